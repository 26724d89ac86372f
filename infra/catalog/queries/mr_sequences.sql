-- How MR is acquired: series by field strength, sequence and echo time
SELECT magnetic_field_strength,
       array_join(scanning_sequence, ', ') AS sequence,
       sequence_name,
       echo_time,
       repetition_time,
       count(DISTINCT series_instance_uid) AS series,
       count(DISTINCT patient_id) AS patients
FROM series
WHERE modality = 'MR'
  AND coalesce(is_primary, TRUE)
GROUP BY magnetic_field_strength, array_join(scanning_sequence, ', '), sequence_name, echo_time, repetition_time
ORDER BY series DESC, magnetic_field_strength, sequence, sequence_name, echo_time, repetition_time
