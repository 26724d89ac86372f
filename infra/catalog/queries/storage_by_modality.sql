-- How much the archive holds of each modality: image sets, instances, frames, and gigabytes of pixels without compression
SELECT modality,
       count(DISTINCT image_set_id) AS image_sets,
       sum(number_of_instances) AS instances,
       sum(number_of_frames) AS frames,
       round(sum(CAST(coalesce(pixel_bytes, 0) AS double)) / 1e9, 3) AS gigabytes,
       count_if(pixel_bytes IS NULL AND number_of_frames > 0) AS series_of_unknown_size
FROM series
GROUP BY modality
ORDER BY gigabytes DESC, modality
