"""Several volumes of one image set, with the pixels that belong to each."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, FakeService, crc32, image_set, instance

from healthimaging import ImageSet
from healthimaging.errors import GantryTiltError, MissingSliceError, VolumeError

Array = np.ndarray[Any, Any]
rng = np.random.default_rng(11)


def opened(service: FakeService) -> ImageSet:
    return ImageSet.open(service, DATASTORE, IMAGE_SET)


def stored(*shape: int) -> Array:
    return rng.integers(0, 4096, size=shape, dtype=np.uint16)


def hu(array: Array) -> Array:
    return array.astype(np.int16) - 1024


def slices(array: Array, *, name: int, **attributes: Any) -> list[tuple[dict[str, Any], bytes]]:
    """Axial slices 2.5 mm apart."""
    return [
        instance(plane, number=None, uid=100 * name + k, position=(0, 0, 2.5 * k), **attributes)
        for k, plane in enumerate(array)
    ]


def test_localizer_and_two_echoes_have_each_their_own_pixels() -> None:
    first, second, localizer = stored(5, 9, 12), stored(5, 9, 12), stored(1, 16, 16)
    built = [
        *slices(second, name=2, EchoTime="9.2"),
        *slices(localizer, name=3, orientation=(0, 1, 0, 0, 0, -1), SliceThickness="8"),
        *slices(first, name=1, EchoTime="4.6"),
    ]
    volumes = opened(image_set([built[k] for k in rng.permutation(len(built))])).volumes()
    found = {volume.distinction[-1]: volume for volume in volumes}
    assert len(found) == 3
    assert np.array_equal(found["EchoTime", "4.6"].array, hu(first))
    assert np.array_equal(found["EchoTime", "9.2"].array, hu(second))
    alone = found["Rows", "16"]
    assert np.array_equal(alone.array, hu(localizer))
    assert alone.geometry.spacing == (1, 1, 8)


def test_phases_of_one_multi_frame_instance() -> None:
    phases = stored(3, 4, 8, 8)  # (phases, slices, rows, columns)
    frames = [(phase, k) for k in (2, 0, 3, 1) for phase in (1, 2, 0)]
    built = [instance(phases[phase, k], number=1, position=(0, 0, 0)) for phase, k in frames]
    record, _ = built[0]
    record["ImageFrames"] = [
        {**one["ImageFrames"][0], "ID": f"f{n}"} for n, (one, _) in enumerate(built, start=1)
    ]
    dicom = record["DICOM"]
    dicom["NumberOfFrames"] = str(len(frames))
    del dicom["ImagePositionPatient"]
    dicom["PerFrameFunctionalGroupsSequence"] = [
        {
            "PlanePositionSequence": [{"ImagePositionPatient": ["0", "0", f"{2.5 * k}"]}],
            "FrameContentSequence": [{"TemporalPositionIndex": phase + 1}],
        }
        for phase, k in frames
    ]
    service = image_set([(record, b"")])
    service.frames = {f"f{n}": data for n, (_, data) in enumerate(built, start=1)}
    volumes = opened(service).volumes()
    assert [volume.distinction for volume in volumes] == [
        (("TemporalPositionIndex", str(phase)),) for phase in (1, 2, 3)
    ]
    for phase, volume in enumerate(volumes):
        assert np.array_equal(volume.array, hu(phases[phase]))
        assert [frames[n - 1] for n in volume.frame_numbers] == [(phase, k) for k in range(4)]
    assert sorted(service.requested) == sorted(service.frames)  # each once


def test_colour_keeps_its_stored_values() -> None:
    pixels = rng.integers(0, 256, size=(3, 8, 10, 3), dtype=np.uint8)
    built = [
        instance(plane, number=k, position=(0, 0, 2 * k), SamplesPerPixel=3, PhotometricInterpretation="RGB")
        for k, plane in enumerate(pixels)
    ]
    for (record, _), plane in zip(built, pixels, strict=True):
        record["ImageFrames"][0]["PixelDataChecksumFromBaseToFullResolution"][0]["Checksum"] = crc32(plane)
    (volume,) = opened(image_set(built[::-1])).volumes()
    assert volume.array.dtype == np.uint8
    assert np.array_equal(volume.array, pixels)
    assert volume.geometry.shape == (3, 8, 10)


def test_colours_of_a_palette_are_refused_with_what_to_use() -> None:
    built = slices(stored(3, 8, 8), name=1, PhotometricInterpretation="PALETTE COLOR")
    with pytest.raises(VolumeError, match=r"frames\(\)"):
        opened(image_set(built)).volumes()


@pytest.mark.parametrize("level", [1, 2])
def test_lower_resolution_lies_on_its_geometry(level: int) -> None:
    # A linear ramp along each axis is the same ramp at every level, wherever sampling keeps pixels in place.
    z, y, x = np.indices((3, 33, 40))
    ramp = (100 * z + 8 * y + 16 * x).astype(np.uint16)
    built = [
        instance(plane, number=k, position=(-5, 7, 3 * k), spacing=(2, 0.5), RescaleIntercept="0")
        for k, plane in enumerate(ramp)
    ]
    assert imagecodecs.htj2k_decode(built[0][1]).shape == (33, 40)
    (volume,) = opened(image_set(built)).volumes(level=level)
    assert volume.array.shape == volume.geometry.shape
    index = np.stack(np.indices(volume.array.shape)[::-1], axis=-1)
    at = volume.geometry.to_patient(index) - (-5, 7, 0)
    wanted = 100 * at[..., 2] / 3 + 8 * at[..., 1] / 2 + 16 * at[..., 0] / 0.5
    # Wavelets smooth the borders by a few values; a shift by half a pixel would be 4 to 8 everywhere.
    inner = (slice(None), slice(2, -2), slice(2, -2))
    assert np.abs(volume.array - wanted)[inner].max() <= 1


def test_tilted_stack_is_resampled_on_request_only() -> None:
    pixels = stored(4, 9, 12)
    built = [
        instance(plane, number=k, position=(0, 3 * k, 5 * k), spacing=(1, 1))
        for k, plane in enumerate(pixels)
    ]
    with pytest.raises(GantryTiltError):
        opened(image_set(built)).volumes()
    (volume,) = opened(image_set(built)).volumes(resample=True)
    assert volume.resampled
    assert volume.array.shape == volume.geometry.shape == (4, 18, 12)
    for k in range(4):
        assert np.array_equal(volume.array[k, 3 * k : 3 * k + 9], hu(pixels[k]))


def test_every_second_slice_is_refused_before_a_frame_is_fetched() -> None:
    pixels = stored(4, 9, 12)
    built = [instance(plane, number=2 * k + 1, position=(0, 0, 5 * k)) for k, plane in enumerate(pixels)]
    service = image_set(built)
    with pytest.raises(MissingSliceError):
        opened(service).volumes()
    assert service.requested == []
    (volume,) = opened(service).volumes(accept_incomplete=True)
    assert np.array_equal(volume.array, hu(pixels))
