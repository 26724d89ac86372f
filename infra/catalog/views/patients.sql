WITH indexed AS (
    SELECT datastore_id,
           image_set_id,
           patient_id,
           patient_sex,
           patient_birth_date,
           study_instance_uid,
           study_date,
           series_instance_uid,
           modality,
           number_of_instances,
           -- Only false means a conflict: the data store does not say it of every image set.
           coalesce(is_primary, TRUE) AS shown
    FROM series
)
SELECT datastore_id,
       patient_id,
       CASE WHEN count(DISTINCT patient_sex) = 1 THEN max(patient_sex) END AS patient_sex,
       CASE WHEN count(DISTINCT patient_birth_date) = 1 THEN max(patient_birth_date) END AS patient_birth_date,
       count(DISTINCT patient_sex) > 1 OR count(DISTINCT patient_birth_date) > 1 AS demographics_differ,
       coalesce(
           array_sort(array_agg(DISTINCT modality) FILTER (WHERE shown AND modality IS NOT NULL)),
           CAST(ARRAY[] AS array(varchar))
       ) AS modalities,
       count(DISTINCT study_instance_uid) FILTER (WHERE shown) AS number_of_studies,
       count(DISTINCT series_instance_uid) FILTER (WHERE shown) AS number_of_series,
       coalesce(sum(number_of_instances) FILTER (WHERE shown), 0) AS number_of_instances,
       min(study_date) FILTER (WHERE shown) AS first_study_date,
       max(study_date) FILTER (WHERE shown) AS last_study_date,
       count(DISTINCT image_set_id) AS number_of_image_sets,
       count(DISTINCT image_set_id) FILTER (WHERE NOT shown) AS image_sets_in_conflict
FROM indexed
-- Studies without a patient ID may be of anybody: each has a row of its own.
GROUP BY datastore_id,
         patient_id,
         CASE WHEN patient_id IS NULL THEN study_instance_uid END
