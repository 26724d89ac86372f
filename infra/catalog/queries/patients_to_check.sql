-- Patient IDs under which sex or birth date differ: perhaps two people
SELECT datastore_id,
       patient_id,
       number_of_studies,
       number_of_image_sets,
       image_sets_in_conflict
FROM patients
WHERE demographics_differ
ORDER BY patient_id
