-- Patients who have both CT and MR, with how many studies and from when to when
SELECT patient_id,
       patient_sex,
       patient_birth_date,
       modalities,
       number_of_studies,
       first_study_date,
       last_study_date
FROM patients
WHERE contains(modalities, 'CT')
  AND contains(modalities, 'MR')
ORDER BY last_study_date DESC, patient_id
