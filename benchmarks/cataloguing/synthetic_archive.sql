-- The headers of a synthetic archive, for DuckDB; see synthetic_archive.py. Variables: series, patients,
-- first_day, days, datastore_id, instances.
-- A number from 0 to 1 that depends on a row and on what it is for.
CREATE MACRO chance(number, purpose) AS (hash(number, purpose) % 1000003) / 1000003.0;
CREATE MACRO whole(number, purpose, least, most) AS
    CAST(least + hash(number, purpose) % (most - least + 1) AS INTEGER);
CREATE MACRO one_of(number, purpose, choices) AS choices[1 + CAST(hash(number, purpose) % len(choices) AS INTEGER)];
CREATE MACRO uid(number, purpose) AS
    '1.2.826.0.1.3680043.8.498.' || lpad(CAST(hash(number, purpose) AS VARCHAR), 20, '1')
    || lpad(CAST(hash(purpose, number) % 10000000000000000 AS VARCHAR), 16, '2');
-- As HealthImaging makes them: 32 of 0-9 and a-z.
CREATE MACRO id(number, purpose) AS translate(md5(number || purpose), '0123456789abcdef', 'k7q2w9e4r5t0ypzx');
CREATE TABLE series_headers AS
WITH numbered AS (
    SELECT number, number // 3 AS study, number % 3 AS place, (number // 3) % getvariable('patients') AS patient
    FROM range(getvariable('series')) AS series (number)
),
studied AS (
    SELECT *,
           CASE WHEN chance(study, 'kind') < 0.42 THEN 'CT'
                WHEN chance(study, 'kind') < 0.72 THEN 'MR'
                WHEN chance(study, 'kind') < 0.82 THEN 'CR'
                WHEN chance(study, 'kind') < 0.90 THEN 'US'
                WHEN chance(study, 'kind') < 0.95 THEN 'MG'
                ELSE 'PT' END AS kind,
           getvariable('first_day') + whole(study, 'date', 0, getvariable('days') - 1) AS study_date
    FROM numbered
),
typed AS (
    SELECT *,
           CASE WHEN kind IN ('CT', 'MR') AND place = 2 AND chance(number, 'seg') < 0.35 THEN 'SEG'
                WHEN kind = 'PT' AND place = 0 THEN 'CT'
                ELSE kind END AS modality
    FROM studied
)
SELECT number,
       study,
       modality,
       CASE modality WHEN 'CT' THEN whole(number, 'size', 60, 760) WHEN 'MR' THEN whole(number, 'size', 20, 400)
                     WHEN 'PT' THEN whole(number, 'size', 200, 400) WHEN 'US' THEN whole(number, 'size', 5, 40)
                     WHEN 'MG' THEN 4 WHEN 'CR' THEN whole(number, 'size', 1, 2) ELSE 1 END AS number_of_instances,
       getvariable('datastore_id') AS datastore_id,
       id(number, 'image set') AS image_set_id,
       CAST(1 + whole(number, 'version', 0, 9) // 9 AS BIGINT) AS version_id,
       chance(number, 'conflict') > 0.01 AS is_primary,
       CAST(study_date AS TIMESTAMP) + INTERVAL 1 DAY + to_seconds(whole(number, 'at', 0, 86399)) AS created_at,
       'PID' || lpad(CAST(patient AS VARCHAR), 8, '0') AS patient_id,
       CASE WHEN chance(patient, 'issuer') < 0.9 THEN 'HOSPITAL' END AS issuer_of_patient_id,
       one_of(patient, 'sex', ['M', 'F', 'F', 'M', 'O']) AS patient_sex,
       DATE '1935-01-01' + whole(patient, 'birth', 0, 25000) AS patient_birth_date,
       floor(date_sub('day', patient_birth_date, study_date) / 365.25) AS patient_age_years,
       45 + chance(patient, 'weight') * 60 AS patient_weight,
       1.5 + chance(patient, 'size') * 0.5 AS patient_size,
       uid(study, 'study') AS study_instance_uid,
       study_date,
       CAST(study_date AS TIMESTAMP) + to_seconds(whole(study, 'time', 21600, 79200)) AS study_at,
       'S' || study AS study_id,
       'ACC' || lpad(CAST(hash(study, 'accession') % 10000000000 AS VARCHAR), 10, '0') AS accession_number,
       kind || ' ' || one_of(study, 'part', ['ABDOMEN', 'CHEST', 'HEAD', 'PELVIS', 'SPINE', 'KNEE']) AS
           study_description,
       one_of(study, 'institution', ['General Hospital', 'University Clinic', 'Radiology Centre']) AS
           institution_name,
       -- Some series are there twice, in two image sets.
       uid(CASE WHEN chance(number, 'twice') < 0.005 THEN number - number % 3 ELSE number END, 'series') AS
           series_instance_uid,
       CAST(1 + place AS INTEGER) AS series_number,
       study_date AS series_date,
       modality || ' ' || one_of(number, 'plan', ['axial', 'thin', 'localizer', 'recon', 'delayed', 'native']) AS
           series_description,
       CASE WHEN chance(number, 'no part') > 0.05
            THEN one_of(study, 'part', ['ABDOMEN', 'CHEST', 'HEAD', 'PELVIS', 'SPINE', 'KNEE']) END AS
           body_part_examined,
       CASE WHEN modality = 'MG' THEN one_of(number, 'side', ['L', 'R']) END AS laterality,
       CASE WHEN modality IN ('CT', 'MR', 'PT') THEN one_of(study, 'lies', ['HFS', 'HFS', 'FFS', 'HFP']) END AS
           patient_position,
       one_of(study, 'maker', ['SIEMENS', 'GE MEDICAL SYSTEMS', 'Philips', 'Canon']) AS manufacturer,
       manufacturer || ' ' || kind || ' ' || whole(study, 'model', 1, 4) AS manufacturer_model_name,
       'ST' || whole(study, 'station', 1, 40) AS station_name,
       ['syngo', 'VA' || whole(study, 'software', 20, 50) || 'A'] AS software_versions,
       one_of(number, 'protocol', ['Routine', 'Trauma', 'Follow-up', 'Screening', 'Angio']) || ' '
           || one_of(study, 'part', ['ABDOMEN', 'CHEST', 'HEAD', 'PELVIS', 'SPINE', 'KNEE']) AS protocol_name,
       uid(study, 'frame of reference') AS frame_of_reference_uid,
       CASE WHEN modality IN ('CT', 'MR') AND chance(number, 'contrast') < 0.4
            THEN one_of(number, 'agent', ['Iomeron 350', 'Ultravist 370', 'Gadovist']) END AS contrast_bolus_agent,
       CASE WHEN modality = 'CT' THEN [one_of(number, 'kernel', ['B30f', 'B70f', 'Br40', 'STANDARD', 'LUNG'])] END AS
           convolution_kernel,
       CASE WHEN modality = 'MR' THEN [one_of(number, 'sequence', ['SE', 'GR', 'IR', 'EP'])] END AS scanning_sequence,
       CASE WHEN modality = 'MR' THEN one_of(number, 'name', ['*tse2d1_15', '*fl3d1', '*ep_b1000t']) END AS
           sequence_name,
       CASE WHEN modality = 'CT' THEN one_of(number, 'kvp', [80, 100, 120, 140]) END AS kvp,
       CASE WHEN modality = 'MR' THEN one_of(study, 'field', [1.5, 1.5, 3.0]) END AS magnetic_field_strength,
       CASE WHEN modality = 'MR' THEN whole(number, 'tr', 400, 9000) END AS repetition_time,
       CASE WHEN modality = 'MR' THEN whole(number, 'te', 5, 120) END AS echo_time,
       CASE WHEN modality = 'SEG' THEN ['DERIVED', 'PRIMARY']
            WHEN series_description LIKE '%localizer' THEN ['ORIGINAL', 'PRIMARY', 'LOCALIZER']
            ELSE ['ORIGINAL', 'PRIMARY', 'AXIAL'] END AS image_type,
       CASE WHEN modality = 'US' THEN one_of(number, 'burned', ['YES', 'NO']) END AS burned_in_annotation,
       CASE WHEN modality IN ('CR', 'MG') THEN whole(study, 'rows', 2000, 3000)
            WHEN modality = 'CT' THEN 512 ELSE 256 END AS "rows",
       "rows" AS "columns",
       CASE WHEN modality IN ('CT', 'MR', 'PT') THEN one_of(number, 'slice', [0.625, 1.0, 1.25, 2.0, 3.0, 5.0]) END AS
           slice_thickness,
       CASE WHEN modality IN ('CT', 'MR', 'PT') THEN slice_thickness END AS spacing_between_slices,
       CASE WHEN modality IN ('CT', 'MR', 'PT', 'SEG')
            THEN [round(0.4 + chance(number, 'spacing') / 2, 4)] END AS spacing,
       CASE WHEN modality IN ('US', 'SEG') THEN whole(number, 'frames', 20, 120) ELSE 1 END AS frames_an_instance,
       CASE modality WHEN 'CT' THEN '1.2.840.10008.5.1.4.1.1.2' WHEN 'MR' THEN '1.2.840.10008.5.1.4.1.1.4'
                     WHEN 'PT' THEN '1.2.840.10008.5.1.4.1.1.128' WHEN 'US' THEN '1.2.840.10008.5.1.4.1.1.3.1'
                     WHEN 'MG' THEN '1.2.840.10008.5.1.4.1.1.1.2' WHEN 'CR' THEN '1.2.840.10008.5.1.4.1.1.1'
                     ELSE '1.2.840.10008.5.1.4.1.1.66.4' END AS sop_class_uid,
       CASE WHEN modality = 'US' THEN '1.2.840.10008.1.2.4.50'
            WHEN modality = 'SEG' THEN '1.2.840.10008.1.2.1'
            ELSE '1.2.840.10008.1.2.4.202' END AS stored_transfer_syntax_uid,
       CASE WHEN modality = 'SEG' THEN [uid(number - 2, 'series')] ELSE [] END AS referenced_series_instance_uids
FROM typed;

-- The wanted number of instances, no more and no less: CT series have what is missing or too much.
SET VARIABLE factor = (
    SELECT CAST(
               (getvariable('instances') - sum(number_of_instances) FILTER (WHERE modality <> 'CT'))
               / sum(number_of_instances) FILTER (WHERE modality = 'CT') AS DOUBLE
           )
    FROM series_headers
);
UPDATE series_headers
SET number_of_instances = greatest(1, CAST(number_of_instances * getvariable('factor') AS INTEGER))
WHERE modality = 'CT';
UPDATE series_headers
SET number_of_instances = number_of_instances
    + (getvariable('instances') - (SELECT sum(number_of_instances) FROM series_headers))
WHERE number = (SELECT max_by(number, number_of_instances) FROM series_headers WHERE modality = 'CT');

CREATE TABLE instance_headers AS
WITH one AS (
    SELECT series.*, CAST(place AS INTEGER) AS place, 1000 * series.number + place AS instance
    FROM series_headers AS series, LATERAL (SELECT unnest(range(series.number_of_instances)) AS place) AS places
)
SELECT number,
       modality,
       place,
       instance,
       series_instance_uid || '.' || (10000 + place) AS sop_instance_uid,
       place + 1 AS instance_number,
       CASE WHEN modality IN ('CT', 'MR') THEN 1 + place // 300 END AS acquisition_number,
       -- In one series of a hundred a slice is missing in the middle.
       CASE WHEN modality IN ('CT', 'MR', 'PT')
            THEN round(-300 + slice_thickness * (place + CASE
                WHEN chance(number, 'gap') < 0.01 AND place > number_of_instances // 2 THEN 1 ELSE 0 END), 3) END AS
           slice_position,
       CASE WHEN slice_position IS NOT NULL THEN [round(-spacing[1] * 256, 3), round(-spacing[1] * 256 - 20, 3), slice_position] END AS
           image_position_patient,
       CASE WHEN slice_position IS NOT NULL THEN [1.0, 0.0, 0.0, 0.0, 1.0, 0.0] END AS image_orientation_patient,
       CASE WHEN modality = 'CT' THEN 12 WHEN modality IN ('US', 'SEG') THEN 8 ELSE 16 END AS bits_stored,
       CASE WHEN modality = 'US' THEN 'RGB' ELSE 'MONOCHROME2' END AS photometric_interpretation,
       strftime(study_at + to_seconds(place // 4), '%H%M%S') || '.' || lpad(CAST(hash(instance, 'time') % 1000000 AS
           VARCHAR), 6, '0') AS content_time,
       CAST(whole(instance, 'width', 200, 2600) AS VARCHAR) AS window_width,
       CAST(whole(instance, 'center', -600, 400) AS VARCHAR) AS window_center,
       CAST(whole(instance, 'dose', 80, 600) AS VARCHAR) AS tube_current,
       -whole(instance, 'least', 0, 1024) AS smallest,
       whole(instance, 'most', 400, 3071) AS largest,
       id(instance, 'frame') AS frame_id,
       hash(instance, 'checksum') % 4294967296 AS checksum
FROM one;
