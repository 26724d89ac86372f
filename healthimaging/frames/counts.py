"""Whether a datastore holds every frame that a header announces."""

from __future__ import annotations

from healthimaging.errors import MetadataError
from healthimaging.metadata import InstanceRecord

_REAL_PIXELS = ("FloatPixelData", "DoubleFloatPixelData")


def require_all_frames(instance: InstanceRecord) -> None:
    """Checks that the datastore holds as many frames as the header announces.

    Raises:
        MetadataError: It holds more or fewer; an image without any is an error, too.
    """
    attributes = instance.attributes
    if not instance.frames and any(attributes.get(keyword) for keyword in _REAL_PIXELS):
        return  # real numbers as pixels are attributes of the header
    is_image = attributes.get("Rows") is not None
    announced = attributes.integer("NumberOfFrames") or int(is_image)
    if announced != len(instance.frames):
        msg = f"The header announces {announced} frames, the datastore holds {len(instance.frames)}"
        raise MetadataError(
            msg,
            image_set_id=instance.image_set_id,
            series_instance_uid=instance.series_instance_uid,
            sop_instance_uid=instance.sop_instance_uid,
        )
