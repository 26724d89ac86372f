WITH indexed AS (
    SELECT datastore_id,
           image_set_id,
           patient_id,
           study_instance_uid,
           study_date,
           study_id,
           accession_number,
           study_description,
           series_instance_uid,
           modality,
           number_of_instances,
           -- Only false means a conflict: the data store does not say it of every image set.
           coalesce(is_primary, TRUE) AS shown
    FROM series
)
SELECT datastore_id,
       study_instance_uid,
       CASE WHEN count(DISTINCT patient_id) = 1 THEN max(patient_id) END AS patient_id,
       coalesce(
           array_sort(array_agg(DISTINCT patient_id) FILTER (WHERE patient_id IS NOT NULL)),
           CAST(ARRAY[] AS array(varchar))
       ) AS patient_ids,
       max(study_date) FILTER (WHERE shown) AS study_date,
       max(study_id) FILTER (WHERE shown) AS study_id,
       max(accession_number) FILTER (WHERE shown) AS accession_number,
       max(study_description) FILTER (WHERE shown) AS study_description,
       coalesce(
           array_sort(array_agg(DISTINCT modality) FILTER (WHERE shown AND modality IS NOT NULL)),
           CAST(ARRAY[] AS array(varchar))
       ) AS modalities,
       coalesce(bool_or(modality = 'SEG') FILTER (WHERE shown), FALSE) AS has_segmentation,
       count(DISTINCT series_instance_uid) FILTER (WHERE shown) AS number_of_series,
       coalesce(sum(number_of_instances) FILTER (WHERE shown), 0) AS number_of_instances,
       count(DISTINCT image_set_id) AS number_of_image_sets,
       count(DISTINCT image_set_id) FILTER (WHERE NOT shown) AS image_sets_in_conflict
FROM indexed
GROUP BY datastore_id, study_instance_uid
