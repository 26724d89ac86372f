-- Studies and series of each modality by month of the study, newest first
SELECT date_trunc('month', study_date) AS month,
       modality,
       count(DISTINCT study_instance_uid) AS studies,
       count(DISTINCT series_instance_uid) AS series
FROM series
WHERE study_date IS NOT NULL
  AND coalesce(is_primary, TRUE)
GROUP BY date_trunc('month', study_date), modality
ORDER BY month DESC, modality
