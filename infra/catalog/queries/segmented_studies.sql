-- Studies that have segmentations (DICOM SEG), with the number of image series beside them
SELECT study_instance_uid,
       max(patient_id) AS patient_id,
       count(DISTINCT series_instance_uid) FILTER (WHERE modality = 'SEG') AS segmentations,
       count(DISTINCT series_instance_uid) FILTER (
           WHERE modality NOT IN ('SEG', 'SR', 'PR', 'KO', 'REG', 'RTSTRUCT', 'RTPLAN', 'RTDOSE', 'DOC')
       ) AS image_series
FROM series
WHERE coalesce(is_primary, TRUE)
GROUP BY datastore_id, study_instance_uid
HAVING count_if(modality = 'SEG') > 0
ORDER BY segmentations DESC, study_instance_uid
