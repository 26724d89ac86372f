-- How many studies, series and images of each modality, and from when to when
SELECT modality,
       count(DISTINCT study_instance_uid) AS studies,
       count(DISTINCT series_instance_uid) AS series,
       sum(number_of_instances) AS instances,
       min(study_date) AS earliest,
       max(study_date) AS latest
FROM series
WHERE coalesce(is_primary, TRUE)
GROUP BY modality
ORDER BY studies DESC, modality
