"""One version of one image set: its header, frames, volumes and DICOM datasets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from healthimaging.errors import HealthImagingError
from healthimaging.frames.fetching import WORKERS, Frame, fetch_frames
from healthimaging.header import read_header
from healthimaging.metadata import ImageSetMetadata
from healthimaging.reading import chosen_series, read_datasets, read_volumes
from healthimaging.reference import ImageSetRef
from healthimaging.timings import ProgressCallback, Stopwatch, Timings
from healthimaging.volumes.slices import SPACING_TOLERANCE
from healthimaging.volumes.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

    from healthimaging.dicom.elements import BulkReader


class ImageSet:
    """An image set, pinned to the version that was opened: later changes to it are not seen.

    Attributes:
        ref: The version that this is.
        metadata: Its header.
        is_primary: Whether it is the study's own copy; False when it conflicts with other image sets of the
            study.
    """

    def __init__(
        self,
        client: Any,
        ref: ImageSetRef,
        metadata: ImageSetMetadata,
        *,
        is_primary: bool,
        workers: int = WORKERS,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._client = client
        self._workers = workers
        self._stopwatch = stopwatch or Stopwatch()
        self.ref = ref
        self.metadata = metadata
        self.is_primary = is_primary

    @classmethod
    def open(
        cls,
        client: Any,
        datastore_id: str,
        image_set_id: str,
        version: str | None = None,
        *,
        workers: int = WORKERS,
    ) -> ImageSet:
        """Reads the header of an image set.

        Args:
            client: boto3 `medical-imaging` client, best from `healthimaging.connect`.
            datastore_id: The datastore.
            image_set_id: The image set.
            version: The version to open; the latest when None.
            workers: Requests for frames under way at once; a client has 32 at most.

        Raises:
            ImageSetNotFoundError: It does not exist, is deleted, or has no such version.
            ServiceError: The service refused or failed.
            MetadataError: The header is malformed, or is that of another image set.
        """
        stopwatch = Stopwatch()
        header = read_header(
            client,
            datastore_id=datastore_id,
            image_set_id=image_set_id,
            version=None if version is None else str(version),
            stopwatch=stopwatch,
        )
        return cls(
            client,
            header.ref,
            header.metadata,
            is_primary=header.is_primary,
            workers=workers,
            stopwatch=stopwatch,
        )

    def __repr__(self) -> str:
        series, instances = len(self.metadata.series), len(self.metadata.instances)
        kind = "primary" if self.is_primary else "not primary"
        return f"ImageSet({self.ref}, {kind}, {series} series, {instances} instances)"

    @property
    def timings(self) -> Timings:
        """Where the time went, summed over everything that was read through this object."""
        return self._stopwatch.timings

    def frames(self, *, level: int = 0, progress: ProgressCallback | None = None) -> Iterator[Frame]:
        """Yields every frame of every instance, verified, in the order of the metadata, as they arrive.

        Args:
            level: How often rows and columns are halved, for thumbnails and coarse grids; see
                `healthimaging.frames.decoding.decode_frame`.
            progress: Is told of every frame.

        Raises:
            MetadataError: An instance has more or fewer frames than its header announces.
            FrameError: A frame cannot be delivered; the fields say which.
        """
        return fetch_frames(
            self._client,
            self.metadata.instances,
            level=level,
            workers=self._workers,
            progress=progress,
            stopwatch=self._stopwatch,
        )

    def volumes(
        self,
        *,
        series_instance_uid: str | None = None,
        spacing_tolerance: float = SPACING_TOLERANCE,
        resample: bool = False,
        level: int = 0,
        accept_incomplete: bool = False,
        progress: ProgressCallback | None = None,
    ) -> list[Volume]:
        """The volumes of each series; geometry is checked before the first frame is fetched.

        Args:
            series_instance_uid: The one series that is wanted; every series when None.
            spacing_tolerance: As `healthimaging.volumes.slices.SPACING_TOLERANCE`.
            resample: Interpolate tilted and unevenly spaced stacks onto a rectangular grid instead of
                refusing them; see `healthimaging.volumes.resampling`.
            level: How often rows and columns are halved, as in `frames`.
            accept_incomplete: Accept stacks of which the header shows that slices are not here; see
                `healthimaging.volumes.planning.plan_volumes`.
            progress: Is told of every frame.

        Raises:
            SeriesNotFoundError: The series that is wanted is not here.
            VolumeError: Frames of a series are neither one quantity nor RGB, or none.
            GeometryError: A series' slices do not make a regular grid; the subclass says why.
            FrameError: A frame cannot be delivered.
        """
        try:
            return read_volumes(
                self._client,
                chosen_series(self.metadata.series.values(), series_instance_uid),
                spacing_tolerance=spacing_tolerance,
                resample=resample,
                level=level,
                accept_incomplete=accept_incomplete,
                workers=self._workers,
                progress=progress,
                stopwatch=self._stopwatch,
            )
        except HealthImagingError as error:
            error.image_set_id = self.ref.image_set_id
            raise

    def datasets(
        self,
        *,
        pixels: bool = True,
        bulk: BulkReader | None = None,
        progress: ProgressCallback | None = None,
    ) -> list[Dataset]:
        """Complete pydicom datasets, explicit VR little endian, ready to be written.

        Slices come in the order of their positions where all have one (as in `volumes`), else by
        InstanceNumber.

        Args:
            pixels: False leaves PixelData out, and other bulk data empty, and fetches no frame.
            bulk: Reads a large private value, which the metadata only points to, by its URI; DICOMweb of the
                datastore when None.
            progress: Is told of every frame.

        Raises:
            MetadataError: An attribute of the metadata cannot be expressed in DICOM, or an instance has more
                or fewer frames than its header announces.
            FrameError: A frame cannot be delivered.
        """
        return read_datasets(
            self._client,
            self.metadata,
            pixels=pixels,
            bulk=bulk,
            workers=self._workers,
            progress=progress,
            stopwatch=self._stopwatch,
        )
