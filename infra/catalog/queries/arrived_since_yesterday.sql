-- What has come into the archive since this time yesterday, newest first
SELECT created_at,
       image_set_id,
       study_instance_uid,
       series_instance_uid,
       modality,
       number_of_instances,
       coalesce(is_primary, TRUE) AS is_primary
FROM series
WHERE created_at >= date_add('hour', -24, CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp))
ORDER BY created_at DESC, series_instance_uid
