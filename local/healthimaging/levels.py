"""Which attributes HealthImaging keeps at the patient, study and series level of an image set.

From the developer guide's "Metadata normalization" (PS3.6 2022b): the modules of PS3.3 that describe patients
(C.7.1, C.2), studies (C.7.2) and series (C.7.3.1, C.7.4, C.7.5). Every other attribute, and every private
one, stays with its instance.
"""

from __future__ import annotations

from typing import Literal

from pydicom.datadict import tag_for_keyword

Level = Literal["patient", "study", "series"]

_PATIENT = """
PatientName PatientID IssuerOfPatientID IssuerOfPatientIDQualifiersSequence TypeOfPatientID PatientBirthDate
PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar
PatientSex ReferencedPatientPhotoSequence QualityControlSubject ReferencedPatientSequence PatientBirthTime
OtherPatientIDs OtherPatientIDsSequence OtherPatientNames EthnicGroup PatientComments
PatientSpeciesDescription PatientSpeciesCodeSequence PatientBreedDescription PatientBreedCodeSequence
BreedRegistrationSequence StrainDescription StrainNomenclature StrainCodeSequence
StrainAdditionalInformation StrainStockSequence GeneticModificationsSequence ResponsiblePerson
ResponsiblePersonRole ResponsibleOrganization PatientIdentityRemoved DeidentificationMethod
DeidentificationMethodCodeSequence SourcePatientGroupIdentificationSequence
GroupOfPatientsIdentificationSequence ClinicalTrialSponsorName ClinicalTrialProtocolID
ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName ClinicalTrialSubjectID
ClinicalTrialSubjectReadingID ClinicalTrialProtocolEthicsCommitteeName
ClinicalTrialProtocolEthicsCommitteeApprovalNumber
"""

_STUDY = """
StudyInstanceUID StudyDate StudyTime ReferringPhysicianName ReferringPhysicianIdentificationSequence
ConsultingPhysicianName ConsultingPhysicianIdentificationSequence StudyID AccessionNumber
IssuerOfAccessionNumberSequence StudyDescription PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence
NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence RequestingService
RequestingServiceCodeSequence ReferencedStudySequence ProcedureCodeSequence
ReasonForPerformedProcedureCodeSequence AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence
PatientAge PatientSize PatientSizeCodeSequence PatientWeight PatientBodyMassIndex MeasuredAPDimension
MeasuredLateralDimension MedicalAlerts Allergies SmokingStatus PregnancyStatus LastMenstrualDate
PatientState Occupation AdditionalPatientHistory AdmissionID IssuerOfAdmissionIDSequence ReasonForVisit
ReasonForVisitCodeSequence ServiceEpisodeID IssuerOfServiceEpisodeIDSequence ServiceEpisodeDescription
PatientSexNeutered ClinicalTrialTimePointID ClinicalTrialTimePointDescription
LongitudinalTemporalOffsetFromEvent LongitudinalTemporalEventType ConsentForClinicalTrialUseSequence
"""

_SERIES = """
Modality SeriesInstanceUID SeriesNumber Laterality SeriesDate SeriesTime PerformingPhysicianName
PerformingPhysicianIdentificationSequence ProtocolName SeriesDescription SeriesDescriptionCodeSequence
OperatorsName OperatorIdentificationSequence ReferencedPerformedProcedureStepSequence RelatedSeriesSequence
BodyPartExamined PatientPosition SmallestPixelValueInSeries LargestPixelValueInSeries
RequestAttributesSequence PerformedProcedureStepID PerformedProcedureStepStartDate
PerformedProcedureStepStartTime PerformedProcedureStepEndDate PerformedProcedureStepEndTime
PerformedProcedureStepDescription PerformedProtocolCodeSequence CommentsOnThePerformedProcedureStep
AnatomicalOrientationType TreatmentSessionUID ClinicalTrialCoordinatingCenterName ClinicalTrialSeriesID
ClinicalTrialSeriesDescription Manufacturer InstitutionName InstitutionAddress StationName
InstitutionalDepartmentName InstitutionalDepartmentTypeCodeSequence ManufacturerModelName
ManufacturerDeviceClassUID DeviceSerialNumber SoftwareVersions GantryID UDISequence DeviceUID
SpatialResolution DateOfLastCalibration TimeOfLastCalibration DateOfManufacture DateOfInstallation
FrameOfReferenceUID PositionReferenceIndicator
"""


def _tags(keywords: str) -> frozenset[str]:
    found: set[str] = set()
    for keyword in keywords.split():
        tag = tag_for_keyword(keyword)
        if tag is None:
            msg = f"{keyword} is not in the DICOM dictionary"
            raise ValueError(msg)
        found.add(f"{tag:08X}")
    return frozenset(found)


PATIENT_TAGS = _tags(_PATIENT)
STUDY_TAGS = _tags(_STUDY)
SERIES_TAGS = _tags(_SERIES)


def level_of(tag: str) -> Level | None:
    """The level at which the attribute is kept, None for an instance's own attribute."""
    if tag in PATIENT_TAGS:
        return "patient"
    if tag in STUDY_TAGS:
        return "study"
    if tag in SERIES_TAGS:
        return "series"
    return None


PATIENT_ID = "00100020"
STUDY_UID = "0020000D"
SERIES_UID = "0020000E"
SOP_INSTANCE_UID = "00080018"
SOP_CLASS_UID = "00080016"
STUDY_DATE = "00080020"
STUDY_TIME = "00080030"
STUDY_ID = "00200010"
ACCESSION_NUMBER = "00080050"
SERIES_NUMBER = "00200011"
INSTANCE_NUMBER = "00200013"
