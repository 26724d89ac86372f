-- CT series thin enough for volumetric training: primary, at least 30 slices, slices of at most 5 mm
SELECT datastore_id,
       image_set_id,
       version_id,
       patient_id,
       study_instance_uid,
       series_instance_uid,
       body_part_examined,
       slice_thickness,
       number_of_instances
FROM series
WHERE modality = 'CT'
  AND coalesce(is_primary, TRUE)
  -- Frames: an instance without pixels is no slice, and a multi-frame one is many.
  AND number_of_frames >= 30
  AND slice_thickness <= 5
ORDER BY patient_id, study_date, series_number
