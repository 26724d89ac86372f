SELECT compacted.datastore_id, compacted.image_set_id, compacted.version_id, compacted.is_primary,
       CAST(compacted.created_at AS timestamp(3)) AS created_at,
       CAST(compacted.updated_at AS timestamp(3)) AS updated_at, compacted.patient_id,
       compacted.issuer_of_patient_id, compacted.patient_sex, compacted.patient_birth_date,
       compacted.patient_age_years, compacted.patient_weight, compacted.patient_size,
       compacted.study_instance_uid, compacted.study_date,
       CAST(compacted.study_at AS timestamp(3)) AS study_at, compacted.study_id,
       compacted.accession_number, compacted.study_description, compacted.institution_name,
       compacted.series_instance_uid, compacted.series_number, compacted.series_date,
       compacted.series_description, compacted.modality, compacted.body_part_examined,
       compacted.laterality, compacted.patient_position, compacted.manufacturer,
       compacted.manufacturer_model_name, compacted.station_name, compacted.software_versions,
       compacted.protocol_name, compacted.frame_of_reference_uid, compacted.contrast_bolus_agent,
       compacted.convolution_kernel, compacted.scanning_sequence, compacted.sequence_name, compacted.kvp,
       compacted.magnetic_field_strength, compacted.repetition_time, compacted.echo_time,
       compacted.image_type, compacted.burned_in_annotation, compacted."rows", compacted."columns",
       compacted.slice_thickness, compacted.spacing_between_slices, compacted.pixel_spacing,
       compacted.number_of_instances, compacted.number_of_frames, compacted.pixel_bytes,
       compacted.sop_class_uids, compacted.stored_transfer_syntax_uids,
       compacted.referenced_series_instance_uids, compacted.attributes,
       CAST(compacted.indexed_at AS timestamp(3)) AS indexed_at
FROM compacted_series AS compacted
LEFT JOIN newest
       ON newest.datastore_id = compacted.datastore_id AND newest.image_set_id = compacted.image_set_id
WHERE newest.version_id IS NULL
   OR newest.version_id < compacted.version_id
   OR (newest.version_id = compacted.version_id
       AND NOT coalesce(newest.indexed_at > compacted.indexed_at, FALSE))
UNION ALL
SELECT change.datastore_id, change.image_set_id, change.version_id, change.is_primary, change.created_at,
       change.updated_at, change.patient_id, change.issuer_of_patient_id, change.patient_sex,
       change.patient_birth_date, change.patient_age_years, change.patient_weight, change.patient_size,
       change.study_instance_uid, change.study_date, change.study_at, change.study_id,
       change.accession_number, change.study_description, change.institution_name,
       change.series_instance_uid, change.series_number, change.series_date, change.series_description,
       change.modality, change.body_part_examined, change.laterality, change.patient_position,
       change.manufacturer, change.manufacturer_model_name, change.station_name, change.software_versions,
       change.protocol_name, change.frame_of_reference_uid, change.contrast_bolus_agent,
       change.convolution_kernel, change.scanning_sequence, change.sequence_name, change.kvp,
       change.magnetic_field_strength, change.repetition_time, change.echo_time, change.image_type,
       change.burned_in_annotation, change."rows", change."columns", change.slice_thickness,
       change.spacing_between_slices, change.pixel_spacing, change.number_of_instances,
       change.number_of_frames, change.pixel_bytes, change.sop_class_uids,
       change.stored_transfer_syntax_uids, change.referenced_series_instance_uids, change.attributes,
       change.indexed_at
FROM series_changes AS change
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
