-- CT, MR and PT series with gaps: neighbouring slices further apart than one and a half times the usual distance
WITH positions AS (
    SELECT DISTINCT datastore_id,
           image_set_id,
           series_instance_uid,
           -- Slices of one stack may differ in its last digits; adding nothing makes 0 of -0.
           transform(image_orientation_patient, one -> round(one, 2) + 0e0) AS orientation,
           slice_position
    FROM instances
    WHERE modality IN ('CT', 'MR', 'PT')
      AND coalesce(is_primary, TRUE)
      AND slice_position IS NOT NULL
),
distances AS (
    SELECT datastore_id,
           image_set_id,
           series_instance_uid,
           orientation,
           slice_position,
           slice_position - lag(slice_position) OVER (
               PARTITION BY datastore_id, image_set_id, series_instance_uid, orientation
               ORDER BY slice_position
           ) AS distance
    FROM positions
),
-- Of each orientation: a localizer has several, and each its own distance.
usual AS (
    SELECT datastore_id,
           image_set_id,
           series_instance_uid,
           orientation,
           count(*) + 1 AS slices,
           approx_percentile(distance, 0.5) AS usual_distance
    FROM distances
    WHERE distance > 0.001
    GROUP BY datastore_id, image_set_id, series_instance_uid, orientation
)
SELECT usual.image_set_id,
       usual.series_instance_uid,
       usual.slices,
       round(usual.usual_distance, 3) AS usual_distance_mm,
       count(*) AS gaps,
       round(max(distances.distance), 3) AS largest_gap_mm,
       sum(CAST(round(distances.distance / usual.usual_distance) AS bigint) - 1) AS slices_missing
FROM distances
JOIN usual
  ON usual.datastore_id = distances.datastore_id
 AND usual.image_set_id = distances.image_set_id
 AND usual.series_instance_uid = distances.series_instance_uid
 AND usual.orientation = distances.orientation
WHERE usual.slices >= 4
  AND distances.distance > 1.5 * usual.usual_distance
GROUP BY usual.image_set_id, usual.series_instance_uid, usual.orientation, usual.slices,
         usual.usual_distance
ORDER BY slices_missing DESC, usual.series_instance_uid
