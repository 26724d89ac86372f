-- Series whose pixels may show a person: annotation burned in, screen captures, ultrasound and documents that do not say NO
SELECT image_set_id,
       study_instance_uid,
       series_instance_uid,
       modality,
       burned_in_annotation,
       array_join(image_type, '/') AS image_type,
       number_of_instances
FROM series
WHERE upper(coalesce(burned_in_annotation, '')) = 'YES'
   OR (upper(coalesce(burned_in_annotation, '')) <> 'NO'
       AND (modality IN ('US', 'ES', 'XC', 'OT', 'SC', 'DOC', 'GM', 'SM')
            OR contains(coalesce(image_type, CAST(ARRAY[] AS array(varchar))), 'SECONDARY')
            -- The image type is null where instances differ; these are the classes of secondary capture.
            OR any_match(sop_class_uids, uid -> uid = '1.2.840.10008.5.1.4.1.1.7'
                                             OR uid LIKE '1.2.840.10008.5.1.4.1.1.7.%')))
ORDER BY modality, study_instance_uid, series_instance_uid
