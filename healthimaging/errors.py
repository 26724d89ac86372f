"""Every error of the connector: one hierarchy, with the identity of what failed as fields.

Messages and fields carry identifiers (image set, series, instance, frame) and technical values, never
names, patient IDs or dates.
"""

from __future__ import annotations


class HealthImagingError(Exception):
    """Base of every error that this library raises on purpose.

    Args:
        message: What is wrong, without patient data.
        image_set_id: The image set concerned, where known.
        series_instance_uid: The series concerned, where known.
        sop_instance_uid: The instance concerned, where known.
        frame_number: The frame concerned, counted from 1 as DICOM does, where known.
    """

    def __init__(
        self,
        message: str,
        *,
        image_set_id: str | None = None,
        series_instance_uid: str | None = None,
        sop_instance_uid: str | None = None,
        frame_number: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.image_set_id = image_set_id
        self.series_instance_uid = series_instance_uid
        self.sop_instance_uid = sop_instance_uid
        self.frame_number = frame_number

    def __str__(self) -> str:
        where = [
            f"{name} {value}"
            for name, value in (
                ("image set", self.image_set_id),
                ("series", self.series_instance_uid),
                ("instance", self.sop_instance_uid),
                ("frame", self.frame_number),
            )
            if value is not None
        ]
        return f"{self.message} [{', '.join(where)}]" if where else self.message


# The service
# -----------------------------------------------------------------------------------------------------


class ImageSetNotFoundError(HealthImagingError):
    """The image set, or the version asked for, does not exist or is deleted."""


class ServiceError(HealthImagingError):
    """HealthImaging refused a call, or did not answer it after all retries.

    Attributes:
        operation: The API operation, for example `GetImageFrame`.
        code: The service's error code, or the name of the transport error.
    """

    def __init__(self, message: str, *, operation: str, code: str, image_set_id: str | None = None) -> None:
        super().__init__(message, image_set_id=image_set_id)
        self.operation = operation
        self.code = code


class MetadataError(HealthImagingError):
    """The metadata document is not what the service documents, or an attribute in it is malformed."""


# Frames
# ----------------------------------------------------------------------------------------------------------


class FrameError(HealthImagingError):
    """A frame cannot be delivered. No pixel of it was."""


class FrameUnavailableError(FrameError):
    """The service did not deliver the frame's bytes after all retries.

    Attributes:
        code: The service's error code, or the name of the transport error.
    """

    def __init__(
        self, message: str, *, code: str, image_set_id: str, sop_instance_uid: str, frame_number: int
    ) -> None:
        super().__init__(
            message, image_set_id=image_set_id, sop_instance_uid=sop_instance_uid, frame_number=frame_number
        )
        self.code = code


class FrameDecodeError(FrameError):
    """The frame's bytes are not a valid stream of their transfer syntax."""


class FrameChecksumError(FrameError):
    """The frame's CRC32 is not the one that the metadata gives."""


class FrameLayoutError(FrameError):
    """The decoded frame is not what Rows, Columns, BitsAllocated and PixelRepresentation announce."""


class UnsupportedTransferSyntaxError(FrameError):
    """There is no decoder for the frame's transfer syntax."""


# Geometry and volumes
# --------------------------------------------------------------------------------------------


class GeometryError(HealthImagingError):
    """The positions in the header do not make a regular grid."""


class MissingGeometryError(GeometryError):
    """A slice lacks position, orientation, pixel spacing or thickness."""


class MixedOrientationError(GeometryError):
    """A slice lies in another plane than the first, for example a localizer among axial slices."""


class DuplicatePositionError(GeometryError):
    """Two slices lie at the same place."""


class MissingSliceError(GeometryError):
    """The grid is regular but for gaps where slices are missing."""


class IrregularSpacingError(GeometryError):
    """The slices are not evenly spaced."""


class GantryTiltError(GeometryError):
    """The slices shift sideways from one to the next: a sheared grid, not a rectangular one."""


class GeometryMismatchError(GeometryError):
    """Two grids that must be one are not."""


class VolumeError(HealthImagingError):
    """The frames do not make a volume of one quantity: no pixels, mixed shapes, colour, or a lookup table."""


# DICOM and files
# -------------------------------------------------------------------------------------------------


class SegmentationError(HealthImagingError):
    """A segmentation cannot be written or read."""


class ManifestError(HealthImagingError):
    """A dataset manifest is malformed or contradicts itself."""


class DicomWebError(HealthImagingError):
    """A DICOMweb request failed as a whole.

    Attributes:
        status: HTTP status code; None when no answer came.
    """

    def __init__(
        self, message: str, *, status: int | None = None, sop_instance_uid: str | None = None
    ) -> None:
        super().__init__(message, sop_instance_uid=sop_instance_uid)
        self.status = status
