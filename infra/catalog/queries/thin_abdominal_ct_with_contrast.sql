-- Thin-slice abdominal CT series of 2023 with contrast: primary, at most 2.5 mm, at least 30 slices
SELECT datastore_id,
       image_set_id,
       version_id,
       patient_id,
       study_instance_uid,
       series_instance_uid,
       study_date,
       contrast_bolus_agent,
       slice_thickness,
       number_of_instances
FROM series
WHERE modality = 'CT'
  AND study_date BETWEEN DATE '2023-01-01' AND DATE '2023-12-31'
  AND coalesce(is_primary, TRUE)
  AND (upper(body_part_examined) IN ('ABDOMEN', 'ABDOMENPELVIS', 'CHESTABDOMEN', 'CHESTABDPELVIS', 'LIVER', 'PANCREAS')
       OR regexp_like(lower(coalesce(series_description, '') || ' ' || coalesce(study_description, '')), 'abdom'))
  AND contrast_bolus_agent IS NOT NULL
  AND slice_thickness <= DECIMAL '2.5'
  -- Frames: an instance without pixels is no slice, and a multi-frame one is many.
  AND number_of_frames >= 30
ORDER BY study_date, patient_id, series_instance_uid
