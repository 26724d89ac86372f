-- Which scanners, with which software, made how many series, and from when to when
SELECT manufacturer,
       manufacturer_model_name,
       station_name,
       array_join(software_versions, ', ') AS software,
       modality,
       count(DISTINCT series_instance_uid) AS series,
       min(study_date) AS earliest,
       max(study_date) AS latest
FROM series
WHERE coalesce(is_primary, TRUE)
  AND manufacturer IS NOT NULL
  -- Made by programs, such as this platform's own results.
  AND coalesce(modality, '') NOT IN ('SEG', 'SR', 'PR', 'KO', 'REG', 'RTSTRUCT', 'RTPLAN', 'RTDOSE', 'DOC')
GROUP BY manufacturer, manufacturer_model_name, station_name, array_join(software_versions, ', '), modality
ORDER BY series DESC, manufacturer, manufacturer_model_name, station_name, software, modality
