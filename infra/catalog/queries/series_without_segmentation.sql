-- CT and MR image series that no segmentation (DICOM SEG) refers to, largest first
WITH segmented AS (
    SELECT DISTINCT datastore_id, series_uid
    FROM series
    CROSS JOIN UNNEST(referenced_series_instance_uids) AS referenced (series_uid)
    WHERE modality = 'SEG'
      AND coalesce(is_primary, TRUE)
)
SELECT image.image_set_id,
       image.patient_id,
       image.study_instance_uid,
       image.series_instance_uid,
       image.modality,
       image.body_part_examined,
       image.number_of_instances
FROM series AS image
LEFT JOIN segmented
       ON segmented.datastore_id = image.datastore_id AND segmented.series_uid = image.series_instance_uid
WHERE image.modality IN ('CT', 'MR')
  AND coalesce(image.is_primary, TRUE)
  AND segmented.series_uid IS NULL
ORDER BY image.number_of_instances DESC, image.series_instance_uid
