-- CT and MR studies that nobody has segmented yet (no DICOM SEG), newest first
SELECT study_instance_uid,
       patient_ids,
       study_date,
       study_description,
       modalities,
       number_of_series,
       number_of_instances
FROM studies
WHERE NOT has_segmentation
  AND arrays_overlap(modalities, ARRAY['CT', 'MR'])
ORDER BY study_date DESC, study_instance_uid
