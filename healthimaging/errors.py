"""Every error of the connector: one hierarchy, with the identity of what failed as fields.

Messages and fields carry identifiers (image set, series, instance, frame) and technical values, never
names, patient IDs or dates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from healthimaging.dicomweb.stow import StoreOutcome
    from healthimaging.reference import ImageSetRef


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

    def __reduce__(self) -> tuple[Callable[..., HealthImagingError], tuple[Any, ...]]:
        # Errors cross processes, and what pickle does by itself fails for subclasses that need arguments.
        return _again, (type(self), self.args, self.__dict__)

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


def _again(
    kind: type[HealthImagingError], args: tuple[Any, ...], fields: dict[str, Any]
) -> HealthImagingError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


# The service
# ----------------------------------------------------------------------------------------------------------


class ImageSetNotFoundError(HealthImagingError):
    """The image set, or the version asked for, does not exist or is deleted."""


class StudyNotFoundError(ImageSetNotFoundError):
    """The datastore holds no primary image set of the study.

    Attributes:
        non_primary: The study's image sets that are not primary, which are opened by name only.
    """

    def __init__(self, message: str, *, non_primary: Sequence[ImageSetRef] = ()) -> None:
        super().__init__(message)
        self.non_primary = tuple(non_primary)


class SeriesNotFoundError(ImageSetNotFoundError):
    """The datastore holds no primary image set of the series.

    Attributes:
        non_primary: The series' image sets that are not primary, which are opened by name only.
    """

    def __init__(
        self, message: str, *, series_instance_uid: str, non_primary: Sequence[ImageSetRef] = ()
    ) -> None:
        super().__init__(message)
        self.series_instance_uid = series_instance_uid
        self.non_primary = tuple(non_primary)


class MixedPatientsError(HealthImagingError):
    """Image sets that were found as one study or series are of different patients."""


class DuplicateInstanceError(HealthImagingError):
    """One SOP Instance UID names two different instances, so neither can be taken for the right one."""


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
# ----------------------------------------------------------------------------------------------------------


class GeometryError(HealthImagingError):
    """The positions in the header do not make a regular grid."""


class MissingGeometryError(GeometryError):
    """A slice lacks position, orientation, pixel spacing or thickness."""


class MixedOrientationError(GeometryError):
    """A slice lies in another plane than the first, for example a localizer among axial slices."""


class DuplicatePositionError(GeometryError):
    """Slices lie at one place, and nothing in the header sorts them into whole volumes."""


class MissingSliceError(GeometryError):
    """Slices are missing: the grid has gaps, or the header counts more slices than there are."""


class IrregularSpacingError(GeometryError):
    """The slices are not evenly spaced."""


class GantryTiltError(GeometryError):
    """The slices shift sideways from one to the next: a sheared grid, not a rectangular one."""


class GeometryMismatchError(GeometryError):
    """Two grids that must be one are not."""


class VolumeError(HealthImagingError):
    """The frames make no volume of one quantity or of RGB: no pixels, a palette, or a lookup table."""


# DICOM and files
# ----------------------------------------------------------------------------------------------------------


class SegmentationError(HealthImagingError):
    """A segmentation cannot be written or read."""


class ManifestError(HealthImagingError):
    """A dataset manifest is malformed or contradicts itself."""


class DicomWebError(HealthImagingError):
    """A DICOMweb request failed as a whole.

    Attributes:
        status: HTTP status code; None when no answer came.
        code: The service's error code, or the name of the transport error; None when neither is known.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        sop_instance_uid: str | None = None,
    ) -> None:
        super().__init__(message, sop_instance_uid=sop_instance_uid)
        self.status = status
        self.code = code


class DicomWebAnswerError(DicomWebError):
    """A DICOMweb request was answered, but not with what the standard says, or with something cut off."""


class StoreInterruptedError(DicomWebError):
    """Storing stopped before every instance had an outcome.

    Attributes:
        outcomes: What became of the instances that were answered; nothing of it is undone.
        unanswered: SOP Instance UIDs of those that were sent without an answer: they may be stored or not.
            The instances after them were not sent. An instance that is stored again replaces itself, as
            another version of its image set.
    """

    def __init__(
        self,
        message: str,
        *,
        outcomes: Sequence[StoreOutcome],
        unanswered: Sequence[str],
        status: int | None = None,
        code: str | None = None,
        sop_instance_uid: str | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, sop_instance_uid=sop_instance_uid)
        self.outcomes = tuple(outcomes)
        self.unanswered = tuple(unanswered)
