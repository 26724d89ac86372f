-- Image sets that are not primary: they conflict with what the data store already has and DICOMweb does not show them
SELECT image_set_id,
       patient_id,
       study_instance_uid,
       series_instance_uid,
       modality,
       number_of_instances
FROM series
WHERE NOT is_primary
ORDER BY patient_id, study_instance_uid
