"""Makes a volume small enough for a page, by means over blocks of voxels."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import numpy.typing as npt

from healthimaging.volumes.geometry import FloatArray

MOST_BYTES = 40 * 2**20
"""Of the voxels before compression: 160 slices of a CT at full resolution, a page of about 30 MB."""

Factors = tuple[int, int, int]
"""Voxels along (z, y, x) that become one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduced:
    """Voxels on a grid that may be coarser than the one they were measured on."""

    array: npt.NDArray[np.generic]
    """(z, y, x), of the type that it had; means are rounded where that is an integer."""
    affine: FloatArray
    factors: Factors


def reduced(array: npt.NDArray[np.generic], affine: FloatArray, *, most_bytes: int = MOST_BYTES) -> Reduced:
    """The volume itself where it is small enough, else means over the smallest blocks that make it so.

    Args:
        array: (z, y, x).
        affine: 4x4, from (x, y, z) indices to LPS mm.
        most_bytes: What the array may take.
    """
    factors = _factors(array.shape, affine, most_bytes // array.itemsize)
    if prod(factors) == 1:
        return Reduced(array=array, affine=affine, factors=factors)
    sums = np.zeros([ceil(n / f) for n, f in zip(array.shape, factors, strict=True)], dtype=np.float64)
    padded = np.pad(array, _padding(array.shape, factors), mode="edge")
    for offset in np.ndindex(*factors):
        sums += padded[tuple(slice(o, None, f) for o, f in zip(offset, factors, strict=True))]
    sums /= prod(factors)
    if np.issubdtype(array.dtype, np.integer):
        sums = np.rint(sums)
    coarse = affine.copy()
    for axis, factor in enumerate(factors[::-1]):
        # The centre of a block lies between the centres of its first and last voxel.
        coarse[:3, 3] += affine[:3, axis] * (factor - 1) / 2
        coarse[:3, axis] *= factor
    return Reduced(array=sums.astype(array.dtype), affine=coarse, factors=factors)


def any_in_block(mask: npt.NDArray[np.bool_], factors: Factors) -> npt.NDArray[np.bool_]:
    """A mask on the coarser grid: a block of which any voxel is in it is, so that nothing small vanishes."""
    if prod(factors) == 1:
        return mask
    padded = np.pad(mask, _padding(mask.shape, factors))
    found = np.zeros([ceil(n / f) for n, f in zip(mask.shape, factors, strict=True)], dtype=np.bool_)
    for offset in np.ndindex(*factors):
        found |= padded[tuple(slice(o, None, f) for o, f in zip(offset, factors, strict=True))]
    return found


def _factors(shape: tuple[int, ...], affine: FloatArray, most: int) -> Factors:
    """Halves the finest axis (two together where they are as fine) until at most `most` voxels are left."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
    factors = np.ones(3, dtype=int)
    while prod(ceil(n / int(f)) for n, f in zip(shape, factors, strict=True)) > most:
        sizes = np.where(factors < shape, spacing * factors, np.inf)
        factors[sizes <= 1.01 * sizes.min()] *= 2
    return int(factors[0]), int(factors[1]), int(factors[2])


def _padding(shape: tuple[int, ...], factors: Factors) -> list[tuple[int, int]]:
    return [(0, -n % f) for n, f in zip(shape, factors, strict=True)]
