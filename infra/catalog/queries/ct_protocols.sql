-- How CT is acquired: series by protocol, kernel, tube voltage and slice thickness, to find what drifts
SELECT protocol_name,
       array_join(convolution_kernel, ', ') AS kernel,
       kvp,
       slice_thickness,
       count(DISTINCT series_instance_uid) AS series,
       count(DISTINCT patient_id) AS patients,
       max(study_date) AS latest
FROM series
WHERE modality = 'CT'
  AND coalesce(is_primary, TRUE)
GROUP BY protocol_name, array_join(convolution_kernel, ', '), kvp, slice_thickness
ORDER BY series DESC, protocol_name, kernel, kvp, slice_thickness
