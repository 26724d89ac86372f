-- Series that lie in more than one image set: parts that came apart, or copies that conflict
SELECT series_instance_uid,
       max(modality) AS modality,
       count(DISTINCT image_set_id) AS image_sets,
       count_if(coalesce(is_primary, TRUE)) AS primary_image_sets,
       sum(number_of_instances) AS instances
FROM series
GROUP BY datastore_id, series_instance_uid
HAVING count(DISTINCT image_set_id) > 1
ORDER BY image_sets DESC, series_instance_uid
