-- Patients by modality, sex and decade of age at the study: who a dataset would be made of
SELECT modality,
       patient_sex,
       CAST(floor(coalesce(patient_age_years,
                           CAST(date_diff('day', patient_birth_date, study_date) AS double) / 365.25) / 10) * 10 AS integer)
           AS age_from,
       count(DISTINCT patient_id) AS patients,
       count(DISTINCT study_instance_uid) AS studies
FROM series
WHERE coalesce(is_primary, TRUE)
  AND modality NOT IN ('SEG', 'SR', 'PR', 'KO')
GROUP BY modality,
         patient_sex,
         CAST(floor(coalesce(patient_age_years,
                             CAST(date_diff('day', patient_birth_date, study_date) AS double) / 365.25) / 10) * 10 AS integer)
ORDER BY modality, patient_sex, age_from
