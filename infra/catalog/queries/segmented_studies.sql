-- Studies that have segmentations (DICOM SEG), with the number of image series beside them
SELECT study_instance_uid,
       max(patient_id) AS patient_id,
       count_if(modality = 'SEG') AS segmentations,
       count_if(modality <> 'SEG') AS image_series
FROM series
WHERE is_primary
GROUP BY study_instance_uid
HAVING count_if(modality = 'SEG') > 0
ORDER BY segmentations DESC
