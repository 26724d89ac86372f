"""Complete pydicom datasets from metadata and frames: explicit VR little endian, uncompressed, valid when
written.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import copy
from io import BytesIO
from typing import TypeVar

import numpy as np
from pydicom import DataElement, Dataset, FileDataset
from pydicom.config import IGNORE
from pydicom.dataset import FileMetaDataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian

from healthimaging.dicom.character_sets import CHARACTER_SET, UNICODE, suits
from healthimaging.dicom.elements import BulkReader, ElementMaker, Elements
from healthimaging.errors import GeometryError, MetadataError
from healthimaging.frames.codecs import CODECS, FrameLayout, PixelArray
from healthimaging.metadata import ImageSetMetadata, InstanceRecord, SeriesRecord
from healthimaging.volumes.geometry import plane_directions
from healthimaging.volumes.slices import ORIENTATION_TOLERANCE, slice_plane

IMPLEMENTATION_CLASS_UID = UID("2.25.194717708221888335482234533436526988058")
"""Names this library as the writer of a file (DICOM PS3.10 section 7.1); from a random UUID (PS3.5 section
B.2).
"""

_SOP_CLASS_UID = BaseTag(0x00080016)
_SOP_INSTANCE_UID = BaseTag(0x00080018)
_STUDY_INSTANCE_UID = BaseTag(0x0020000D)
_SERIES_INSTANCE_UID = BaseTag(0x0020000E)

AnyDataset = TypeVar("AnyDataset", bound=Dataset)

_LOSSY_SYNTAXES = {"1.2.840.10008.1.2.4.50": "ISO_10918_1"}
"""Transfer syntaxes that always lose something -> LossyImageCompressionMethod."""


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


class DatasetBuilder:
    """Builds datasets of one image set; much faster for many instances than one by one. Of one thread.

    Args:
        metadata: Of the image set.
        bulk: Reads a large value (BulkDataURI) that the metadata only points to, for example
            `DicomWeb.retrieve_bulk_data`; None leaves such values empty.
    """

    def __init__(self, metadata: ImageSetMetadata, *, bulk: BulkReader | None = None) -> None:
        self._metadata = metadata
        self._makers = [ElementMaker(bulk=bulk) for _ in range(4)]

    def build(self, instance: InstanceRecord) -> Dataset:
        """One instance without its pixel data, file meta information included.

        Args:
            instance: Of the same image set.

        Raises:
            MetadataError: An attribute cannot be expressed in DICOM, or the instance has no SOP class.
            HealthImagingError: `bulk` could not read a value.
        """
        metadata, uid = self._metadata, instance.sop_instance_uid
        series = metadata.series[instance.series_instance_uid]
        levels = (metadata.patient, metadata.study, series.attributes, instance.attributes)
        signed = instance.attributes.integer("PixelRepresentation") == 1
        elements: Elements = {}
        foreign: list[str] = []
        for maker, level in zip(self._makers, levels, strict=True):
            vrs = {**level.vrs, **instance.attributes.vrs} if level.vrs else instance.attributes.vrs
            foreign += maker.add(elements, level.values, vrs, sop_instance_uid=uid, signed=signed)
        for tag, identifier in (
            (_SOP_INSTANCE_UID, uid),
            (_SERIES_INSTANCE_UID, series.series_instance_uid),
            (_STUDY_INSTANCE_UID, metadata.study_instance_uid),
        ):
            if identifier is not None and (tag not in elements or not elements[tag].value):
                elements[tag] = DataElement(tag, "UI", identifier, validation_mode=IGNORE)
        sop_class = elements[_SOP_CLASS_UID].value if _SOP_CLASS_UID in elements else None
        if not sop_class:
            msg = "The instance has no SOPClassUID"
            raise MetadataError(msg, image_set_id=metadata.image_set_id, sop_instance_uid=uid)
        declared = elements.get(CHARACTER_SET)
        if not suits(declared.value if declared is not None else None, foreign):
            elements[CHARACTER_SET] = DataElement(CHARACTER_SET, "CS", UNICODE)
        return _file_dataset(elements, sop_class, elements[_SOP_INSTANCE_UID].value)


def refuse_bulk(uri: str) -> bytes:
    """The `bulk` of those who want every value and have no way to read the large ones.

    Raises:
        MetadataError: Always.
    """
    msg = "A large value is stored apart as bulk data, and nothing was given to read it with"
    raise MetadataError(msg)


def build_dataset(
    metadata: ImageSetMetadata, instance: InstanceRecord, *, bulk: BulkReader | None = None
) -> Dataset:
    """One instance, as `DatasetBuilder` builds it."""
    return DatasetBuilder(metadata, bulk=bulk).build(instance)


_TEMPLATE = FileDataset(
    BytesIO(),
    {},
    preamble=bytes(128),
    file_meta=FileMetaDataset(),
    is_implicit_VR=False,
    is_little_endian=True,
)


def _file_dataset(elements: Elements, sop_class_uid: UID, sop_instance_uid: UID) -> FileDataset:
    """A dataset of these elements, with its file meta information (DICOM PS3.10 section 7.1)."""
    values: dict[BaseTag, tuple[str, bytes | UID]] = {
        BaseTag(0x00020001): ("OB", b"\x00\x01"),
        BaseTag(0x00020002): ("UI", sop_class_uid),
        BaseTag(0x00020003): ("UI", sop_instance_uid),
        BaseTag(0x00020010): ("UI", ExplicitVRLittleEndian),
        BaseTag(0x00020012): ("UI", IMPLEMENTATION_CLASS_UID),
    }
    meta = _of_its_own(_TEMPLATE.file_meta)
    meta._dict = {
        tag: DataElement(tag, vr, value, already_converted=True) for tag, (vr, value) in values.items()
    }
    dataset = _of_its_own(_TEMPLATE)
    dataset.__dict__.update(_dict=elements, file_meta=meta, buffer=BytesIO())
    return dataset


def _of_its_own(template: AnyDataset) -> AnyDataset:
    """An empty dataset like the template: pydicom's constructors take as long as a third of a header."""
    made = template.__class__.__new__(template.__class__)
    made.__dict__.update(
        (name, copy(value) if isinstance(value, (dict, list)) else value)
        for name, value in template.__dict__.items()
    )
    return made


def pixel_bytes(pixels: PixelArray) -> bytes:
    """A frame as little endian bytes; bit-packed frames take a byte a pixel here."""
    if sys.byteorder == "big":
        pixels = pixels.astype(pixels.dtype.newbyteorder("<"))
    return pixels.tobytes()


def attach_pixels(dataset: Dataset, instance: InstanceRecord, frames: Sequence[bytes]) -> None:
    """Sets PixelData from all frames of the instance, and the attributes that decoding changes.

    Args:
        dataset: From `build_dataset`; is changed.
        instance: The same instance.
        frames: `pixel_bytes` of every verified frame, in order.
    """
    codec = CODECS[instance.transfer_syntax_uid]
    layout = FrameLayout.from_attributes(instance.attributes)
    data = b"".join(frames)
    if layout.bits_allocated == 1:
        # Frames of a bit-packed instance follow each other without padding (DICOM PS3.5 section 8.1.1).
        data = np.packbits(np.frombuffer(data, dtype=np.uint8), bitorder="little").tobytes()
    dataset.add_new("PixelData", "OB" if layout.bits_allocated <= 8 else "OW", data + b"\0" * (len(data) % 2))
    if layout.samples_per_pixel > 1:
        dataset.PlanarConfiguration = 0
        if layout.photometric_interpretation in codec.undoes:
            dataset.PhotometricInterpretation = "RGB"
        elif layout.photometric_interpretation == "YBR_FULL_422":
            dataset.PhotometricInterpretation = "YBR_FULL"  # every pixel has its own colour again
    method = _LOSSY_SYNTAXES.get(instance.transfer_syntax_uid)
    if method is not None and dataset.get("LossyImageCompression") != "01":
        # Once lossy, always lossy (PS3.3 section C.7.6.1.1.5). JPEG 2000 and its kin may be either: there
        # the header is believed.
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = method
