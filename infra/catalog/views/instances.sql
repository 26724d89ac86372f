SELECT compacted.datastore_id, compacted.image_set_id, compacted.version_id, compacted.is_primary,
       CAST(compacted.created_at AS timestamp(3)) AS created_at,
       CAST(compacted.updated_at AS timestamp(3)) AS updated_at, compacted.patient_id,
       compacted.study_instance_uid, compacted.study_date, compacted.modality,
       compacted.series_instance_uid, compacted.sop_instance_uid, compacted.sop_class_uid,
       compacted.instance_number, compacted.acquisition_number, compacted.image_type,
       compacted.image_position_patient, compacted.image_orientation_patient, compacted.slice_position,
       compacted.pixel_spacing, compacted.slice_thickness, compacted."rows", compacted."columns",
       compacted.bits_stored, compacted.photometric_interpretation, compacted.number_of_frames,
       compacted.pixel_bytes, compacted.stored_transfer_syntax_uid, compacted.attributes,
       CAST(compacted.indexed_at AS timestamp(3)) AS indexed_at
FROM compacted_instances AS compacted
LEFT JOIN newest
       ON newest.datastore_id = compacted.datastore_id AND newest.image_set_id = compacted.image_set_id
WHERE newest.version_id IS NULL
   OR newest.version_id < compacted.version_id
   OR (newest.version_id = compacted.version_id
       AND NOT coalesce(newest.indexed_at > compacted.indexed_at, FALSE))
UNION ALL
SELECT change.datastore_id, change.image_set_id, change.version_id, change.is_primary, change.created_at,
       change.updated_at, change.patient_id, change.study_instance_uid, change.study_date,
       change.modality, change.series_instance_uid, change.sop_instance_uid, change.sop_class_uid,
       change.instance_number, change.acquisition_number, change.image_type,
       change.image_position_patient, change.image_orientation_patient, change.slice_position,
       change.pixel_spacing, change.slice_thickness, change."rows", change."columns", change.bits_stored,
       change.photometric_interpretation, change.number_of_frames, change.pixel_bytes,
       change.stored_transfer_syntax_uid, change.attributes, change.indexed_at
FROM instance_changes AS change
JOIN newest
  ON newest.datastore_id = change.datastore_id
 AND newest.image_set_id = change.image_set_id
 AND newest.version_id = change.version_id
LEFT JOIN merged
       ON merged.datastore_id = change.datastore_id AND merged.image_set_id = change.image_set_id
WHERE NOT change.is_deleted
  AND (merged.version_id IS NULL
       OR merged.version_id < change.version_id
       OR (merged.version_id = change.version_id
           AND coalesce(change.indexed_at > merged.indexed_at, FALSE)))
