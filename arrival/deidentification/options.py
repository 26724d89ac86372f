"""Attributes that the options of PS3.15 E.3 treat in another way than the Basic Profile.

The library's copy of Table E.1-1 has no option columns. The sets below are parts of those columns, never
more; tests compare them with the columns of edition 2024b. What a column names and a set does not is treated
by the Basic Profile, which is stricter.
"""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword


def tags_of(keywords: str) -> frozenset[int]:
    """Tags of keywords; a keyword that pydicom does not know is an error of this file."""
    found = {keyword: tag_for_keyword(keyword) for keyword in keywords.split()}
    unknown = [keyword for keyword, tag in found.items() if tag is None]
    if unknown:
        raise ValueError(f"unknown DICOM keywords: {unknown}")
    return frozenset(tag for tag in found.values() if tag is not None)


PATIENT_CHARACTERISTICS = tags_of("PatientSex PatientAge PatientSize PatientWeight")
"""Column "Rtn. Pat. Chars.": what models are stratified by. The rest of the column is removed."""

DEVICE_IDENTITY = tags_of(
    "StationName DeviceSerialNumber DeviceUID ManufacturerDeviceClassUID DetectorID GantryID GeneratorID"
    " CassetteID PlateID DeviceDescription DeviceLabel ManufacturerDeviceIdentifier SourceManufacturer"
    " SourceSerialNumber TreatmentMachineName XRayDetectorID XRayDetectorLabel XRaySourceID"
    " UniqueDeviceIdentifier LensMake LensModel LensSerialNumber LensSpecification StationAETitle"
)
"""Column "Rtn. Dev. Id."."""

INSTITUTION_IDENTITY = tags_of(
    "InstitutionName InstitutionAddress InstitutionalDepartmentName InstitutionCodeSequence"
    " InstitutionalDepartmentTypeCodeSequence ClinicalTrialSiteID ClinicalTrialSiteName"
    " ClinicalTrialCoordinatingCenterName"
)
"""Column "Rtn. Inst. Id."."""

NOT_SHIFTED = tags_of("PatientBirthDate PatientBirthTime GPSTimeStamp")
"""Dates and times of the table for which the column "Rtn. Long. Modif. Dates" is empty. All others by VR."""

TIMES_KEPT_BESIDES = tags_of("TimezoneOffsetFromUTC")
"""In that column without being a date or a time; a shift by whole days does not touch it."""

DESCRIPTORS = tags_of(
    "StudyDescription SeriesDescription ProtocolName RequestedProcedureDescription"
    " RequestedSeriesDescription PerformedProcedureStepDescription ScheduledProcedureStepDescription"
    " ContrastBolusAgent RequestedContrastAgent DerivationDescription"
    " AcquisitionDeviceProcessingDescription AcquisitionProtocolDescription AcquisitionFieldOfViewLabel"
    " RespiratoryMotionCompensationTechniqueDescription DecompositionDescription"
    " MultienergyAcquisitionDescription ImageComments FrameComments ROIName ROIDescription"
    " ROIObservationLabel ROIObservationDescription ROIGenerationDescription StructureSetLabel"
    " StructureSetName StructureSetDescription RTPlanLabel RTPlanName RTPlanDescription"
    " PrescriptionDescription TreatmentSite TreatmentSites EntityLabel EntityLongLabel EntityName"
    " EntityDescription UserContentLabel UserContentLongLabel DoseReferenceDescription"
    " FractionGroupDescription BeamDescription SpecimenShortDescription SpecimenDetailedDescription"
    " ContainerDescription AnnotationGroupLabel AnnotationGroupDescription PyramidLabel PyramidDescription"
)
"""Part of the column "Clean Desc." with text about the image; the rest of it, about the person, is
removed."""

UNLISTED_DESCRIPTORS = tags_of("SegmentLabel SegmentDescription ContentDescription")
"""Free text that the table does not name, but that people type into: cleaned where the descriptors are."""

CODE_VALUES = tags_of("LongCodeValue URNCodeValue")
"""Codes that are long text by representation only."""

REFERENCES = tags_of(
    "ReferencedImageSequence SourceImageSequence ReferencedStudySequence"
    " ReferencedPerformedProcedureStepSequence"
)
"""Sequences that the column "Rtn. UIDs" keeps. They stay, with the UIDs inside replaced, so that
segmentations, structure sets and registrations still find their images."""

ALWAYS_REMOVED = tags_of("EncryptedAttributesSequence MACParametersSequence DataSetTrailingPadding")
"""Not in the table: attributes that an earlier de-identification encrypted, what is left of a signature whose
sequence the table removes, and padding that may hold anything."""

PSEUDONYMS = tags_of("PatientID PatientName TrackingID")
"""Replaced by a keyed pseudonym, which the actions Z and D of the table allow. A tracking identifier is typed
by people and joins findings across instances: the same text gets the same pseudonym."""
