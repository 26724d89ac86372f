-- CT and MR series that cannot be read as a volume by what their header lacks: orientation, position, spacing or pixels
SELECT image_set_id,
       series_instance_uid,
       modality,
       count(*) AS instances,
       count_if(image_orientation_patient IS NULL) AS without_orientation,
       count_if(image_position_patient IS NULL) AS without_position,
       count_if(pixel_spacing IS NULL) AS without_spacing,
       count_if(number_of_frames = 0) AS without_pixels
FROM instances
WHERE modality IN ('CT', 'MR')
  AND coalesce(is_primary, TRUE)
  AND number_of_frames <= 1
GROUP BY image_set_id, series_instance_uid, modality
HAVING count_if(image_orientation_patient IS NULL
                OR image_position_patient IS NULL
                OR pixel_spacing IS NULL
                OR number_of_frames = 0) > 0
ORDER BY series_instance_uid
