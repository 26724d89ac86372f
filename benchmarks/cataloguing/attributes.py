"""Attributes that instances have besides the catalog's columns: keyword -> value, as SQL over
`instance_headers` and `series_headers` (called `series`).

About as many as a scanner writes, and none that are empty. In the catalog they are in the map `attributes`;
in a document of the workshop each is a field.
"""

from __future__ import annotations

OF_ALL = {
    "AcquisitionDate": "strftime(series.study_date, '%Y%m%d')",
    "AcquisitionTime": "content_time",
    "ContentDate": "strftime(series.study_date, '%Y%m%d')",
    "ContentTime": "content_time",
    "InstanceCreationDate": "strftime(series.study_date, '%Y%m%d')",
    "BitsAllocated": "CASE WHEN bits_stored = 8 THEN '8' ELSE '16' END",
    "HighBit": "CAST(bits_stored - 1 AS VARCHAR)",
    "PixelRepresentation": "'0'",
    "SamplesPerPixel": "CASE WHEN series.modality = 'US' THEN '3' ELSE '1' END",
    "LossyImageCompression": "'00'",
}

_WINDOW = {"WindowCenter": "window_center", "WindowWidth": "window_width"}

OF_MODALITY = {
    "CT": {
        **_WINDOW,
        "RescaleIntercept": "'-1024'",
        "RescaleSlope": "'1'",
        "RescaleType": "'HU'",
        "SliceLocation": "CAST(slice_position AS VARCHAR)",
        "XRayTubeCurrent": "tube_current",
        "Exposure": "tube_current",
        "ExposureTime": "'500'",
        "FilterType": "'FLAT'",
        "GantryDetectorTilt": "'0'",
        "TableHeight": "'150'",
        "RotationDirection": "'CW'",
        "ReconstructionDiameter": "'350'",
        "DistanceSourceToDetector": "'1085.6'",
        "DistanceSourceToPatient": "'595'",
        "GeneratorPower": "'42'",
        "FocalSpots": "'1.2'",
    },
    "MR": {
        **_WINDOW,
        "SliceLocation": "CAST(slice_position AS VARCHAR)",
        "SequenceVariant": "'SK\\SP\\OSP'",
        "ScanOptions": "'PFP\\FS'",
        "MRAcquisitionType": "'2D'",
        "NumberOfAverages": "'2'",
        "ImagingFrequency": "'123.25'",
        "ImagedNucleus": "'1H'",
        "EchoNumbers": "'1'",
        "EchoTrainLength": "'15'",
        "PercentSampling": "'100'",
        "PixelBandwidth": "'220'",
        "FlipAngle": "'150'",
        "InPlanePhaseEncodingDirection": "'ROW'",
        "SAR": "'0.82'",
        "TransmitCoilName": "'Body'",
    },
    "PT": {
        **_WINDOW,
        "SliceLocation": "CAST(slice_position AS VARCHAR)",
        "Units": "'BQML'",
        "RescaleSlope": "'2.41'",
        "DecayFactor": "'1.12'",
        "FrameReferenceTime": "content_time",
    },
}
"""Of those modalities that have more."""

LARGEST_AND_SMALLEST = {"SmallestImagePixelValue": "smallest", "LargestImagePixelValue": "largest"}


def attributes_of(modality: str) -> dict[str, str]:
    """All of an instance of this modality."""
    return {
        **OF_ALL,
        **{keyword: f"CAST({value} AS VARCHAR)" for keyword, value in LARGEST_AND_SMALLEST.items()},
        **OF_MODALITY.get(modality, {}),
    }
