"""What the workshop's loop does to a volume, as a MONAI transform: every frame scaled to 0..1 by itself."""

from __future__ import annotations

from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform


class ScaleFrames(Transform):
    """An item's `image`, (1, columns, rows, slices) in HU, becomes (1, slices, rows, columns) of 0..1.

    The same numbers as the stored values give in float64: HU are those plus a constant, and a quotient of
    whole numbers that float32 holds is rounded to the same float32 either way.
    """

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        image = data["image"]
        planes = image.as_tensor()[0].permute(2, 1, 0).contiguous()
        for plane in planes:
            lowest, highest = plane.aminmax()
            if lowest < highest:
                plane.sub_(lowest).div_(highest - lowest)
        return {**data, "image": MetaTensor(planes[None], affine=image.affine)}
