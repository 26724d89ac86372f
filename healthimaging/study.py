"""A whole series or study: every primary image set that holds a part of it, as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from healthimaging.errors import MetadataError, SeriesNotFoundError, StudyNotFoundError
from healthimaging.frames.fetching import WORKERS, Frame, fetch_frames
from healthimaging.image_set import ImageSet
from healthimaging.image_set_search import find_image_sets
from healthimaging.merging import merge_series
from healthimaging.metadata import ImageSetMetadata, SeriesRecord
from healthimaging.primary_image_sets import (
    open_primary,
    require_one_patient,
    require_own_instances,
    require_study,
    series_order,
)
from healthimaging.reading import chosen_series, read_datasets, read_volumes
from healthimaging.reference import ImageSetRef
from healthimaging.timings import ProgressCallback, Stopwatch, Timings
from healthimaging.volumes.slices import SPACING_TOLERANCE
from healthimaging.volumes.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

    from healthimaging.dicom.elements import BulkReader


class _ImageSets:
    """What a series and a study have in common.

    Attributes:
        image_sets: The primary image sets, pinned to the versions that were opened, in the order of series
            number, Series Instance UID and image set id. The search may know older versions.
        non_primary: Image sets of the same series or study that contradict the primary ones. Nothing is read
            from them here: `ImageSet.open` opens one by name.
        headers: One header a series, in the order of series number and Series Instance UID; a series that
            lies in several image sets is one.
    """

    def __init__(
        self,
        client: Any,
        image_sets: Sequence[ImageSet],
        *,
        non_primary: Sequence[ImageSetRef],
        headers: Sequence[ImageSetMetadata],
        workers: int,
        stopwatch: Stopwatch,
    ) -> None:
        self._client = client
        self._workers = workers
        self._stopwatch = stopwatch
        self.image_sets = tuple(image_sets)
        self.non_primary = tuple(non_primary)
        self.headers = tuple(headers)

    def _repr(self, uid: str) -> str:
        sets, others = len(self.image_sets), len(self.non_primary)
        return (
            f"{type(self).__name__}({uid}, {len(self.headers)} series in {sets} primary image sets, "
            f"{others} not primary)"
        )

    @property
    def timings(self) -> Timings:
        """Where the time went, summed over the headers and everything that was read through this object."""
        return self._stopwatch.timings

    def frames(self, *, level: int = 0, progress: ProgressCallback | None = None) -> Iterator[Frame]:
        """Yields every frame of every instance, series after series, as `ImageSet.frames`."""
        instances = [instance for header in self.headers for instance in header.instances]
        return fetch_frames(
            self._client,
            instances,
            level=level,
            workers=self._workers,
            progress=progress,
            stopwatch=self._stopwatch,
        )

    def datasets(
        self,
        *,
        pixels: bool = True,
        bulk: BulkReader | None = None,
        progress: ProgressCallback | None = None,
    ) -> list[Dataset]:
        """Complete pydicom datasets, series after series, each as `ImageSet.datasets` gives them.

        Args:
            pixels: As in `ImageSet.datasets`.
            bulk: As in `ImageSet.datasets`.
            progress: Is told of every frame; for each series anew.
        """
        return [
            dataset
            for header in self.headers
            for dataset in read_datasets(
                self._client,
                header,
                pixels=pixels,
                bulk=bulk,
                workers=self._workers,
                progress=progress,
                stopwatch=self._stopwatch,
            )
        ]

    def _volumes(
        self,
        series: Sequence[SeriesRecord],
        *,
        spacing_tolerance: float,
        resample: bool,
        level: int,
        accept_incomplete: bool,
        progress: ProgressCallback | None,
    ) -> list[Volume]:
        return read_volumes(
            self._client,
            series,
            spacing_tolerance=spacing_tolerance,
            resample=resample,
            level=level,
            accept_incomplete=accept_incomplete,
            workers=self._workers,
            progress=progress,
            stopwatch=self._stopwatch,
        )


class Series(_ImageSets):
    """One series, from every primary image set that holds a part of it.

    Attributes:
        metadata: Its header, with this series only. Its `image_set_id` is that of the first image set; the
            instances name their own.
        series_instance_uid: Series Instance UID.
        study_instance_uid: Study Instance UID.
    """

    def __init__(
        self,
        client: Any,
        series_instance_uid: str,
        image_sets: Sequence[ImageSet],
        *,
        non_primary: Sequence[ImageSetRef] = (),
        workers: int = WORKERS,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.metadata = merge_series(series_instance_uid, [one.metadata for one in image_sets])
        self.series_instance_uid = series_instance_uid
        self.study_instance_uid = str(self.metadata.study_instance_uid)
        super().__init__(
            client,
            image_sets,
            non_primary=non_primary,
            headers=[self.metadata],
            workers=workers,
            stopwatch=stopwatch or Stopwatch(),
        )

    @classmethod
    def open(
        cls, client: Any, datastore_id: str, series_instance_uid: str, *, workers: int = WORKERS
    ) -> Series:
        """Finds the image sets of a series, and reads their headers.

        Args:
            client: boto3 `medical-imaging` client, best from `healthimaging.connect`.
            datastore_id: The datastore.
            series_instance_uid: Series Instance UID.
            workers: Requests for frames under way at once; a client has 32 at most.

        Raises:
            SeriesNotFoundError: No primary image set holds it; `non_primary` has those that are not primary.
            ImageSetNotFoundError: An image set was deleted since the search.
            MetadataError: An image set does not hold the series, or they are of different studies.
            MixedPatientsError: The image sets are of different patients.
            DuplicateInstanceError: Two image sets hold different instances of one SOP Instance UID.
            ServiceError: The service refused or failed.
        """
        found = find_image_sets(client, datastore_id, DICOMSeriesInstanceUID=series_instance_uid)
        stopwatch = Stopwatch()
        opened, others = open_primary(client, found, workers=workers, stopwatch=stopwatch)
        if not opened:
            msg = f"No primary image set holds the series; {len(others)} non-primary ones do"
            raise SeriesNotFoundError(msg, series_instance_uid=series_instance_uid, non_primary=others)
        study = opened[0].metadata.study_instance_uid
        for one in opened:
            if series_instance_uid not in one.metadata.series:
                msg = f"The search found it for series {series_instance_uid}, which it does not hold"
                raise MetadataError(msg, image_set_id=one.ref.image_set_id)
            require_study(one, study)
        require_one_patient(opened)
        return cls(
            client, series_instance_uid, opened, non_primary=others, workers=workers, stopwatch=stopwatch
        )

    def __repr__(self) -> str:
        return self._repr(self.series_instance_uid)

    def volumes(
        self,
        *,
        spacing_tolerance: float = SPACING_TOLERANCE,
        resample: bool = False,
        level: int = 0,
        accept_incomplete: bool = False,
        progress: ProgressCallback | None = None,
    ) -> list[Volume]:
        """The volumes of the series; arguments and errors as those of `ImageSet.volumes`."""
        return self._volumes(
            list(self.metadata.series.values()),
            spacing_tolerance=spacing_tolerance,
            resample=resample,
            level=level,
            accept_incomplete=accept_incomplete,
            progress=progress,
        )


class Study(_ImageSets):
    """One study, from all its primary image sets.

    Attributes:
        study_instance_uid: Study Instance UID.
    """

    def __init__(
        self,
        client: Any,
        study_instance_uid: str,
        image_sets: Sequence[ImageSet],
        *,
        non_primary: Sequence[ImageSetRef] = (),
        workers: int = WORKERS,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self.study_instance_uid = study_instance_uid
        holders: dict[str, list[ImageSet]] = {}
        for one in image_sets:
            for uid in one.metadata.series:
                holders.setdefault(uid, []).append(one)
        self._holders = holders
        headers = [merge_series(uid, [one.metadata for one in sets]) for uid, sets in holders.items()]
        require_own_instances(headers)
        super().__init__(
            client,
            image_sets,
            non_primary=non_primary,
            headers=sorted(headers, key=series_order),
            workers=workers,
            stopwatch=stopwatch or Stopwatch(),
        )

    @classmethod
    def open(
        cls, client: Any, datastore_id: str, study_instance_uid: str, *, workers: int = WORKERS
    ) -> Study:
        """Finds the image sets of a study, all pages of them, and reads their headers side by side.

        Args:
            client: boto3 `medical-imaging` client, best from `healthimaging.connect`.
            datastore_id: The datastore.
            study_instance_uid: Study Instance UID.
            workers: Requests for frames under way at once; a client has 32 at most.

        Raises:
            StudyNotFoundError: No primary image set holds it; `non_primary` has those that are not primary.
            ImageSetNotFoundError: An image set was deleted since the search.
            MetadataError: An image set is of another study.
            MixedPatientsError: The image sets are of different patients.
            DuplicateInstanceError: One SOP Instance UID names different instances.
            ServiceError: The service refused or failed.
        """
        found = find_image_sets(client, datastore_id, DICOMStudyInstanceUID=study_instance_uid)
        stopwatch = Stopwatch()
        opened, others = open_primary(client, found, workers=workers, stopwatch=stopwatch)
        if not opened:
            msg = f"No primary image set holds study {study_instance_uid}; {len(others)} non-primary ones do"
            raise StudyNotFoundError(msg, non_primary=others)
        for one in opened:
            require_study(one, study_instance_uid)
        require_one_patient(opened)
        return cls(
            client, study_instance_uid, opened, non_primary=others, workers=workers, stopwatch=stopwatch
        )

    def __repr__(self) -> str:
        return self._repr(self.study_instance_uid)

    def series(self) -> Iterator[Series]:
        """Yields the series, by series number and UID; no more headers are read.

        Who takes the volumes of one series after the other never holds those of the whole study. Their
        `timings` are the study's; its non-primary image sets are not told apart by series.
        """
        for header in self.headers:
            (uid,) = header.series
            yield Series(
                self._client, uid, self._holders[uid], workers=self._workers, stopwatch=self._stopwatch
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
        """The volumes of every series; arguments and errors as those of `ImageSet.volumes`.

        All of them are in memory at once, and a series that is no volume (a report) is an error: `series`
        gives one after the other.
        """
        every = [series for header in self.headers for series in header.series.values()]
        wanted = chosen_series(every, series_instance_uid)
        return self._volumes(
            wanted,
            spacing_tolerance=spacing_tolerance,
            resample=resample,
            level=level,
            accept_incomplete=accept_incomplete,
            progress=progress,
        )
