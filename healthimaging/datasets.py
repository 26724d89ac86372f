"""Complete pydicom datasets from metadata and frames: explicit VR little endian, uncompressed, valid when
written.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.charset import convert_encodings
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.uid import UID, ExplicitVRLittleEndian

from healthimaging.codecs import CODECS, FrameLayout, PixelArray
from healthimaging.elements import fill_dataset
from healthimaging.errors import GeometryError, MetadataError
from healthimaging.geometry import plane_directions
from healthimaging.metadata import ImageSetMetadata, InstanceRecord, SeriesRecord
from healthimaging.slices import ORIENTATION_TOLERANCE, slice_plane

IMPLEMENTATION_CLASS_UID = UID("2.25.194717708221888335482234533436526988058")
"""Names this library as the writer of a file (DICOM PS3.10 section 7.1); from a random UUID (PS3.5 section
B.2).
"""

_LOSSY_SYNTAXES = frozenset({"1.2.840.10008.1.2.4.50"})


def in_slice_order(metadata: ImageSetMetadata) -> list[InstanceRecord]:
    """All instances: series after series, each in the order of slice positions, else of instance numbers.

    Positions decide where every instance of a series is a single slice in one common orientation; the grid
    need not be regular.
    """
    return [instance for series in metadata.series.values() for instance in _ordered(series)]


def _ordered(series: SeriesRecord) -> list[InstanceRecord]:
    instances = list(series.instances.values())
    if len(instances) < 2:
        return instances
    try:
        planes = [
            slice_plane(i.attributes.over(series.attributes), sop_instance_uid=i.sop_instance_uid)
            for i in instances
        ]
        normal = plane_directions(planes[0].orientation)[2]
    except GeometryError:
        planes = []
    orientations = np.array([plane.orientation for plane in planes])
    if planes and np.abs(orientations - orientations[0]).max() <= ORIENTATION_TOLERANCE:
        distances = [float(np.dot(plane.position, normal)) for plane in planes]
        return [instances[k] for k in np.argsort(distances, kind="stable")]

    def by_number(instance: InstanceRecord) -> tuple[bool, int, str]:
        number = instance.attributes.integer("InstanceNumber")
        return (number is None, number or 0, instance.sop_instance_uid)

    return sorted(instances, key=by_number)


def build_dataset(metadata: ImageSetMetadata, instance: InstanceRecord, *, bulk: bool = True) -> Dataset:
    """One instance without its pixel data, file meta information included.

    Args:
        metadata: Of the image set.
        instance: The instance, of that image set.
        bulk: Whether large values that the metadata only points to are wanted; False leaves them empty.

    Raises:
        MetadataError: An attribute cannot be expressed in DICOM, or the instance has no SOP class.
    """
    uid = instance.sop_instance_uid
    dataset = Dataset()
    series = metadata.series[instance.series_instance_uid]
    for level in (metadata.patient, metadata.study, series.attributes, instance.attributes):
        fill_dataset(
            dataset, level.values, {**level.vrs, **instance.attributes.vrs}, sop_instance_uid=uid, bulk=bulk
        )
    for keyword, value in (
        ("SOPInstanceUID", uid),
        ("SeriesInstanceUID", series.series_instance_uid),
        ("StudyInstanceUID", metadata.study_instance_uid),
    ):
        if value is not None and not dataset.get(keyword):
            setattr(dataset, keyword, value)
    if not dataset.get("SOPClassUID"):
        msg = "The instance has no SOPClassUID"
        raise MetadataError(msg, image_set_id=metadata.image_set_id, sop_instance_uid=uid)
    correct_ambiguous_vr(dataset, is_little_endian=True)
    _require_encodable(dataset)
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    return FileDataset(
        BytesIO(), dataset, preamble=bytes(128), file_meta=meta, is_implicit_VR=False, is_little_endian=True
    )


def require_all_frames(instance: InstanceRecord) -> None:
    """Checks that the datastore holds as many frames as the header announces.

    Raises:
        MetadataError: It holds more or fewer; an image without any is an error, too.
    """
    attributes = instance.attributes
    is_image = attributes.get("Rows") is not None
    announced = attributes.integer("NumberOfFrames") or int(is_image)
    if announced != len(instance.frames):
        msg = f"The header announces {announced} frames, the datastore holds {len(instance.frames)}"
        raise MetadataError(msg, sop_instance_uid=instance.sop_instance_uid)


def attach_pixels(dataset: Dataset, instance: InstanceRecord, frames: Sequence[PixelArray]) -> None:
    """Sets PixelData from all frames of the instance, and the attributes that decoding changes.

    Args:
        dataset: From `build_dataset`; is changed.
        instance: The same instance.
        frames: Verified pixels of every frame, in order.
    """
    codec = CODECS[instance.transfer_syntax_uid]
    layout = FrameLayout.from_attributes(instance.attributes)
    if layout.bits_allocated == 1:
        # Frames of a bit-packed instance follow each other without padding (DICOM PS3.5 section 8.1.1).
        bits = np.concatenate([frame.reshape(-1) for frame in frames])
        data = np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()
    else:
        little = layout.dtype.newbyteorder("<")
        data = b"".join(np.ascontiguousarray(frame, dtype=little).tobytes() for frame in frames)
    dataset.add_new("PixelData", "OB" if layout.bits_allocated <= 8 else "OW", data + b"\0" * (len(data) % 2))
    if layout.samples_per_pixel > 1:
        dataset.PlanarConfiguration = 0
        if layout.photometric_interpretation in codec.undoes:
            dataset.PhotometricInterpretation = "RGB"
    if instance.transfer_syntax_uid in _LOSSY_SYNTAXES:
        dataset.LossyImageCompression = "01"


def _require_encodable(dataset: Dataset) -> None:
    """Turns to UTF-8 where the character set cannot hold the text, which is Unicode in the metadata."""
    texts = [text for text in _texts(dataset) if not text.isascii()]
    if not texts:
        return
    declared = dataset.get("SpecificCharacterSet")
    # Without a declaration text is ASCII, which these are not; pydicom would take it for Latin 1.
    encodings = convert_encodings(declared) if declared else []
    if not all(any(_encodes(text, encoding) for encoding in encodings) for text in texts):
        dataset.SpecificCharacterSet = "ISO_IR 192"


def _texts(dataset: Dataset) -> list[str]:
    return [
        str(value)
        for element in dataset.iterall()
        if element.VR in ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
        for value in (element.value if element.VM > 1 else [element.value])
        if value
    ]


def _encodes(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
