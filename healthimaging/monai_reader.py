"""Image sets for MONAI's own `LoadImage`, beside NIfTI and DICOM files. Needs torch and monai.

    LoadImaged("image", reader=ImageSetReader(), ensure_channel_first=True)({"image": str(ref)})

MONAI's conventions: spatial axes in the order of the affine's columns, affine in RAS mm. A (slices, rows,
columns) array therefore becomes (columns, rows, slices), and the LPS affine has x and y negated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data.image_reader import ImageReader
from monai.utils import ImageMetaKey, MetaKeys, SpaceKeys

from healthimaging.client import connect
from healthimaging.errors import VolumeError
from healthimaging.frames.fetching import WORKERS
from healthimaging.image_set import ImageSet
from healthimaging.reference import ImageSetRef
from healthimaging.volumes.geometry import Geometry
from healthimaging.volumes.slices import SPACING_TOLERANCE
from healthimaging.volumes.volume import Volume

NO_CHANNEL = float("nan")
"""`original_channel_dim` of an array without a channel axis, as MONAI's readers say it."""


class ProcessClient:
    """One client a process, made when it is first needed.

    A client holds connections and locks: it can neither be pickled nor be used on both sides of a fork, and
    a `DataLoader` with workers does one or the other.

    Args:
        source: A function without arguments that makes a client, for example `healthimaging.connect` or a
            `functools.partial` of it; or a client, which then serves its own process only.
    """

    def __init__(self, source: Any | Callable[[], Any]) -> None:
        self._make = source if callable(source) else None
        self._clients = {} if self._make else {os.getpid(): source}

    def get(self) -> Any:
        """The client of this process.

        Raises:
            TypeError: A client was given, to another process.
        """
        process = os.getpid()
        if process not in self._clients:
            if self._make is None:
                msg = (
                    "A client serves the process that made it. For workers, give a function that makes one: "
                    "client=healthimaging.connect"
                )
                raise TypeError(msg)
            # Two threads may both make one; the first that is stored serves both.
            return self._clients.setdefault(process, self._make())
        return self._clients[process]

    def __getstate__(self) -> dict[str, Any]:
        # Without the client: in the other process, `get` makes one or says why it cannot.
        return {"_make": self._make, "_clients": {}}


class ImageSetReader(ImageReader):
    """Reads image sets by their references, for `LoadImage` and `LoadImaged`.

    Items name image sets as `str(ImageSetRef)` writes them, `datastore/imageset@version`. Several of one key
    (`{"image": [str(t1), str(t2)]}`) become channels, and must lie on one grid.

    Segmentations are not read by themselves, as they store only the frames that are not empty: use
    `healthimaging.monai.LoadCase`, which lays them on their image.

    Args:
        client: A function without arguments that makes a `medical-imaging` client, called once in every
            process; or a client, which serves this process and its threads, but no `DataLoader` workers.
        level: How often the image is halved in its plane, by decoding less of it; 0 is full resolution.
        series_instance_uid: The series to read from image sets of several; None for the only one.
        resample: Whether tilted or unevenly spaced slices may be resampled to a regular grid.
        spacing_tolerance: As `healthimaging.volumes.slices.SPACING_TOLERANCE`.
        accept_incomplete: As `ImageSet.volumes`.
        choose: Which volume is wanted of image sets that hold several, such as echoes or a localizer: a
            function that workers can import, given all of them. None refuses such image sets.
        workers: As `ImageSet.open`.
    """

    def __init__(
        self,
        client: Any | Callable[[], Any] = connect,
        *,
        level: int = 0,
        series_instance_uid: str | None = None,
        resample: bool = False,
        spacing_tolerance: float = SPACING_TOLERANCE,
        accept_incomplete: bool = False,
        choose: Callable[[Sequence[Volume]], Volume] | None = None,
        workers: int = WORKERS,
    ) -> None:
        super().__init__()
        self._client = ProcessClient(client)
        self._choose = choose
        self._workers = workers
        self._options: dict[str, Any] = {
            "level": level,
            "series_instance_uid": series_instance_uid,
            "resample": resample,
            "spacing_tolerance": spacing_tolerance,
            "accept_incomplete": accept_incomplete,
        }

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """Whether these are references to image sets: MONAI chooses a reader by this."""
        try:
            self.read(filename)
        except ValueError:
            return False
        return True

    def read(self, data: Sequence[Any] | Any, **_options: Any) -> list[ImageSetRef]:
        """The references alone: nothing is fetched before `get_data`.

        `LoadImage` takes every exception of `read` for "another reader's file", and its type is lost; those
        of `get_data` reach the caller.

        Raises:
            ValueError: It is no reference.
        """
        several = isinstance(data, (list, tuple))
        return [_reference(one) for one in (data if several else [data])]

    def get_data(self, img: Sequence[ImageSetRef]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Fetches the image sets.

        Returns:
            (columns, rows, slices) of one grey image set, (channels, columns, rows, slices) of colour or of
            several; values after rescale (HU for CT), in the volume's own type. And the metadata of the
            first: MONAI's keys and identifiers, without what names the patient.

        Raises:
            VolumeError: An image set is not one volume.
            GeometryMismatchError: Several image sets do not lie on one grid.
            HealthImagingError: One cannot be read; the subclass says why.
        """
        read = [self._volume(ref) for ref in img]
        opened, first = read[0]
        for _, other in read[1:]:
            first.geometry.require_match(other.geometry)
        meta = describe(first, opened)
        if len(read) == 1 and first.array.ndim == 3:
            meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = NO_CHANNEL
            return channel_first(first)[0], meta
        return np.concatenate([channel_first(volume) for _, volume in read]), meta

    def _volume(self, ref: ImageSetRef) -> tuple[ImageSet, Volume]:
        image_set = open_pinned(self._client.get(), ref, workers=self._workers)
        if self._choose is None:
            return image_set, only_volume(image_set, **self._options)
        return image_set, self._choose(image_set.volumes(**self._options))


def _reference(value: Any) -> ImageSetRef:
    return value if isinstance(value, ImageSetRef) else ImageSetRef.parse(str(value))


def open_pinned(client: Any, ref: ImageSetRef, *, workers: int = WORKERS) -> ImageSet:
    """Opens the very version that the reference names."""
    return ImageSet.open(client, ref.datastore_id, ref.image_set_id, ref.version_id, workers=workers)


def only_volume(image_set: ImageSet, **options: Any) -> Volume:
    """The volume of an image set that has one.

    Args:
        image_set: The image set.
        **options: As `ImageSet.volumes`.

    Raises:
        VolumeError: It has none, or several.
    """
    volumes = image_set.volumes(**options)
    if len(volumes) != 1:
        told = "; ".join(_told(volume) for volume in volumes)
        msg = f"The image set holds {len(volumes)} volumes, one is needed: {told}"
        raise VolumeError(msg, image_set_id=image_set.ref.image_set_id)
    return volumes[0]


def _told(volume: Volume) -> str:
    differs = ", ".join(f"{keyword} {value}" for keyword, value in volume.distinction)
    return f"{' x '.join(map(str, volume.geometry.shape))} slices, rows, columns" + (
        f" ({differs})" if differs else ""
    )


def channel_first(volume: Volume, *, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """(channels, columns, rows, slices), contiguous: one channel of grey, one a sample of colour.

    Args:
        volume: The volume.
        dtype: Of the values; None keeps the volume's.
    """
    array = volume.array[..., None] if volume.array.ndim == 3 else volume.array
    turned: npt.NDArray[Any] = np.empty(array.shape[::-1], array.dtype if dtype is None else dtype)
    # Row by row, which is what a cache holds: turning the whole volume at once takes three times as long.
    for row in range(array.shape[1]):
        turned[:, :, row] = array[:, row].transpose(2, 1, 0)
    return turned


def describe_grid(geometry: Geometry) -> dict[str, Any]:
    """Metadata of a grid by the names that MONAI's transforms know, for an array of `channel_first`."""
    return {
        MetaKeys.AFFINE: geometry.ras_affine.copy(),
        # Spacing and Invert compare it with the affine.
        MetaKeys.ORIGINAL_AFFINE: geometry.ras_affine.copy(),
        MetaKeys.SPATIAL_SHAPE: np.array(geometry.shape[::-1]),
        MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        MetaKeys.SPACE: SpaceKeys.RAS,
        "spacing": np.array(geometry.spacing),
    }


def describe(volume: Volume, image_set: ImageSet | None = None) -> dict[str, Any]:
    """Metadata of a volume: its grid, and identifiers, none of which names the patient.

    Every value can be collated to a batch: nothing is None, and what differs in length between volumes is one
    text.

    Args:
        volume: The volume.
        image_set: Where it comes from, if that shall be named.
    """
    named: dict[str, Any] = {
        "series_instance_uid": volume.series_instance_uid,
        # As DICOM writes several values: lists of different length cannot be collated.
        "instance_uids": "\\".join(volume.instance_uids),
        "modality": volume.modality,
        "frame_of_reference_uid": volume.geometry.frame_of_reference_uid,
    }
    if image_set is not None:
        named |= {
            "datastore_id": image_set.ref.datastore_id,
            "image_set_id": image_set.ref.image_set_id,
            "version_id": image_set.ref.version_id,
            "study_instance_uid": image_set.metadata.study_instance_uid,
            # LoadImage sets it, too; SaveImage names files after it.
            ImageMetaKey.FILENAME_OR_OBJ: str(image_set.ref),
        }
    return describe_grid(volume.geometry) | {
        name: value for name, value in named.items() if value is not None
    }
