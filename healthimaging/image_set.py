"""One version of one image set: its header, frames, volumes and DICOM datasets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError as TransportError

from healthimaging.errors import HealthImagingError, ImageSetNotFoundError, MetadataError, ServiceError
from healthimaging.frames import WORKERS, Frame, fetch_frames
from healthimaging.metadata import ImageSetMetadata
from healthimaging.reference import ImageSetRef
from healthimaging.slices import SPACING_TOLERANCE
from healthimaging.volume import Volume, assemble_volume, plan_volume

if TYPE_CHECKING:
    from pydicom import Dataset


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
    ) -> None:
        self._client = client
        self._workers = workers
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
            workers: Frames fetched and decoded at once by the methods of this object.

        Raises:
            ImageSetNotFoundError: It does not exist, is deleted, or has no such version.
            ServiceError: The service refused or failed.
            MetadataError: The header is malformed, or is that of another image set.
        """
        identity = {"datastoreId": datastore_id, "imageSetId": image_set_id}
        pinned = {} if version is None else {"versionId": str(version)}
        properties = _call(client, "GetImageSet", identity | pinned)
        if properties.get("imageSetState") == "DELETED":
            msg = "The image set is deleted"
            raise ImageSetNotFoundError(msg, image_set_id=image_set_id)
        # What the latest version was when it was opened is the version that everything below reads.
        version_id = str(properties["versionId"])
        if version is not None and version_id != str(version):
            msg = f"Version {version} was asked for, the answer is of version {version_id}"
            raise MetadataError(msg, image_set_id=image_set_id)
        answer = _call(client, "GetImageSetMetadata", identity | {"versionId": version_id})
        metadata = ImageSetMetadata.from_bytes(answer["imageSetMetadataBlob"])
        # Whatever lies between (a proxy, a cache) must never give one patient's header for another's.
        if (metadata.datastore_id, metadata.image_set_id) != (datastore_id, image_set_id):
            msg = f"The header is that of image set {metadata.image_set_id} in {metadata.datastore_id}"
            raise MetadataError(msg, image_set_id=image_set_id)
        return cls(
            client,
            ImageSetRef(datastore_id=datastore_id, image_set_id=image_set_id, version_id=version_id),
            metadata,
            # Datastores from before primary image sets do not say; all their image sets are what WADO serves.
            is_primary=bool(properties.get("isPrimary", True)),
            workers=workers,
        )

    def frames(self) -> Iterator[Frame]:
        """Yields every frame of every instance, verified, in the order of the metadata, as they arrive.

        Raises:
            FrameError: A frame cannot be delivered; the fields say which.
        """
        return fetch_frames(self._client, self.ref, self.metadata.instances, workers=self._workers)

    def volumes(
        self, *, series_instance_uid: str | None = None, spacing_tolerance: float = SPACING_TOLERANCE
    ) -> list[Volume]:
        """One volume a series; geometry is checked before the first frame is fetched.

        Args:
            series_instance_uid: The one series that is wanted; every series when None.
            spacing_tolerance: As `healthimaging.slices.SPACING_TOLERANCE`.

        Raises:
            VolumeError: A series' frames do not make one quantity.
            GeometryError: A series' slices do not make a regular grid; the subclass says why.
            FrameError: A frame cannot be delivered.
        """
        try:
            plans = [
                plan_volume(series, spacing_tolerance=spacing_tolerance)
                for series in self.metadata.series.values()
                if series_instance_uid in (None, series.series_instance_uid)
            ]
            return [
                assemble_volume(
                    plan, fetch_frames(self._client, self.ref, plan.instances, workers=self._workers)
                )
                for plan in plans
            ]
        except HealthImagingError as error:
            error.image_set_id = self.ref.image_set_id
            raise

    def datasets(self, *, pixels: bool = True) -> list[Dataset]:
        """Complete pydicom datasets, explicit VR little endian, ready to be written.

        Slices come in the order of their positions where all have one (as in `volumes`), else by
        InstanceNumber.

        Args:
            pixels: False leaves PixelData out, and other bulk data empty, and fetches no frame.

        Raises:
            MetadataError: An attribute of the metadata cannot be expressed in DICOM, or an instance has more
                or fewer frames than its header announces.
            FrameError: A frame cannot be delivered.
        """
        from healthimaging.datasets import attach_pixels, build_dataset, in_slice_order, require_all_frames

        instances = in_slice_order(self.metadata)
        if pixels:
            for instance in instances:
                require_all_frames(instance)
        built = {
            instance.sop_instance_uid: build_dataset(self.metadata, instance, bulk=pixels)
            for instance in instances
        }
        if pixels:
            waiting = {instance.sop_instance_uid: instance for instance in instances if instance.frames}
            arrived: list[Frame] = []
            for frame in fetch_frames(self._client, self.ref, waiting.values(), workers=self._workers):
                arrived.append(frame)
                instance = waiting[frame.instance_uid]
                if frame.number == len(instance.frames):
                    attach_pixels(built[frame.instance_uid], instance, [one.pixels for one in arrived])
                    arrived.clear()
        return list(built.values())


_METHODS = {"GetImageSet": "get_image_set", "GetImageSetMetadata": "get_image_set_metadata"}


def _call(client: Any, operation: str, params: dict[str, str]) -> dict[str, Any]:
    """One API call, its errors typed and its streaming body read."""
    image_set_id = params["imageSetId"]
    try:
        answer: dict[str, Any] = getattr(client, _METHODS[operation])(**params)
        return {name: value.read() if hasattr(value, "read") else value for name, value in answer.items()}
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "Unknown")
        if code == "ResourceNotFoundException":
            msg = f"The image set does not exist in datastore {params['datastoreId']}"
            if "versionId" in params:
                msg += f", or has no version {params['versionId']}"
            raise ImageSetNotFoundError(msg, image_set_id=image_set_id) from error
        msg = f"{operation} failed: {code}"
        raise ServiceError(msg, operation=operation, code=code, image_set_id=image_set_id) from error
    except (BotoCoreError, TransportError, OSError) as error:
        code = type(error).__name__
        msg = f"{operation} failed: {code}"
        raise ServiceError(msg, operation=operation, code=code, image_set_id=image_set_id) from error
