"""Lower resolutions: what the stream holds, on the right grid, and verified like the whole."""

from __future__ import annotations

from typing import Any

import fake_healthimaging as fake
import imagecodecs
import numpy as np
import pytest

from healthimaging import ImageSet
from healthimaging.errors import FrameChecksumError, FrameDecodeError, FrameError
from healthimaging.frames.codecs import CODECS

ROWS, COLUMNS = 97, 130


def smooth(k: int) -> np.ndarray[Any, Any]:
    """A slice without detail, of which every resolution shows the same values."""
    row, column = np.mgrid[0:ROWS, 0:COLUMNS]
    return np.asarray(1000 + 4 * row + 3 * column + 50 * k, dtype=np.uint16)


def series(slices: int = 4) -> fake.FakeService:
    return fake.image_set(
        [
            fake.instance(smooth(k), number=k + 1, position=(-60, -50, 3 * k), spacing=(0.8, 0.6))
            for k in range(slices)
        ]
    )


def opened(service: fake.FakeService) -> ImageSet:
    return ImageSet.open(service, fake.DATASTORE, fake.IMAGE_SET)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_frames_of_a_level_are_what_the_stream_holds(level: int) -> None:
    service = series()
    frames = list(opened(service).frames(level=level))
    assert len(frames) == 4
    for frame in frames:
        stored = service.frames[f"frame-{frame.instance_uid}"]
        assert np.array_equal(frame.pixels, imagecodecs.htj2k_decode(stored, skipres=level))
        assert frame.pixels.shape == (-(-ROWS // 2**level), -(-COLUMNS // 2**level))
        assert frame.pixels.dtype == np.uint16


@pytest.mark.parametrize("level", [1, 2])
def test_a_level_lies_where_the_whole_lies(level: int) -> None:
    image_set = opened(series())
    (whole,), (coarse,) = image_set.volumes(), image_set.volumes(level=level)
    assert coarse.array.shape == coarse.geometry.shape
    # Each coarse voxel is at the place of every 2^level-th of the whole, and has its value.
    indices = [(0, 0, 0), (coarse.geometry.shape[2] - 2, coarse.geometry.shape[1] - 2, 3)]
    for column, row, slice_ in indices:
        fine = (column * 2**level, row * 2**level, slice_)
        assert np.allclose(coarse.geometry.to_patient((column, row, slice_)), whole.geometry.to_patient(fine))
    sampled = whole.array[:, :: 2**level, :: 2**level].astype(int)
    inner = np.s_[:, 1:-1, 1:-1]
    assert np.abs(coarse.array[inner].astype(int) - sampled[inner]).max() <= 4


def test_a_syntax_without_resolutions_gives_every_second_pixel() -> None:
    service = series(2)
    for k, record in enumerate(service.document["Study"]["Series"][fake.SERIES_UID]["Instances"].values()):
        record["StoredTransferSyntaxUID"] = "1.2.840.10008.1.2.1"
        data = smooth(k).astype("<u2").tobytes()
        service.frames[record["ImageFrames"][0]["ID"]] = data
    for k, frame in enumerate(opened(service).frames(level=1)):
        assert np.array_equal(frame.pixels, smooth(k)[::2, ::2])


def test_signed_pixels_that_were_encoded_as_unsigned_are_not_averaged_over_the_change_of_sign() -> None:
    # A stream of the bits of -1 and 1 holds 65535 and 1: its own lower resolutions mean nothing.
    signed = (smooth(0).astype(np.int16) % 7) - 3
    record, _ = fake.instance(signed, number=1, position=(0, 0, 0))
    service = fake.image_set([(record, imagecodecs.htj2k_encode(signed.view(np.uint16)))])
    image_set = opened(service)
    (whole,), (coarse,) = image_set.frames(), image_set.frames(level=1)
    assert np.array_equal(whole.pixels, signed)
    assert np.array_equal(coarse.pixels, signed[::2, ::2])


def with_reduced_checksum(service: fake.FakeService, change: int) -> None:
    """Documents of 2023 have a checksum for each resolution."""
    for record in service.document["Study"]["Series"][fake.SERIES_UID]["Instances"].values():
        (entry,) = record["ImageFrames"]
        half = imagecodecs.htj2k_decode(service.frames[entry["ID"]], skipres=1)
        entry["PixelDataChecksumFromBaseToFullResolution"].insert(
            0, {"Width": half.shape[1], "Height": half.shape[0], "Checksum": fake.crc32(half) ^ change}
        )


@pytest.mark.parametrize(("change", "whole_decoded"), [(0, False), (1, True)])
def test_a_checksum_of_the_level_saves_decoding_the_whole(
    change: int, whole_decoded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = series()
    with_reduced_checksum(service, change)
    decoded: list[Any] = []
    real = imagecodecs.htj2k_decode

    def watching(data: bytes, **options: Any) -> Any:
        decoded.append(options.get("skipres"))
        return real(data, **options)

    monkeypatch.setattr("healthimaging.frames.codecs.imagecodecs.htj2k_decode", watching)
    frames = list(opened(service).frames(level=1))
    assert np.array_equal(
        frames[0].pixels, real(service.frames[f"frame-{frames[0].instance_uid}"], skipres=1)
    )
    # A checksum of the level that does not fit proves nothing against the pixels: the whole decides.
    assert (None in decoded) == whole_decoded


@pytest.mark.parametrize("level", [1, 2, 4])
def test_a_damaged_frame_is_refused_at_every_level(level: int) -> None:
    service = series(1)
    (key,) = service.frames
    data = service.frames[key]
    assert isinstance(data, bytes)
    refused = 0
    for position in range(150, len(data) - 1, 7):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        service.frames[key] = bytes(damaged)
        try:
            (frame,) = opened(service).frames(level=level)
        except FrameError:
            refused += 1
        else:
            assert np.array_equal(frame.pixels, imagecodecs.htj2k_decode(data, skipres=level))
    assert refused


def test_a_frame_without_a_checksum_has_no_levels_either() -> None:
    service = series(1)
    record = next(iter(service.document["Study"]["Series"][fake.SERIES_UID]["Instances"].values()))
    record["ImageFrames"][0]["PixelDataChecksumFromBaseToFullResolution"] = []
    with pytest.raises(FrameChecksumError):
        list(opened(service).frames(level=1))


def test_a_level_that_the_stream_lacks_is_refused() -> None:
    with pytest.raises(FrameDecodeError, match="at level 9") as caught:
        list(opened(series(1)).frames(level=9))
    assert caught.value.sop_instance_uid


def test_a_negative_level_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        list(opened(series(1)).frames(level=-1))


def test_every_htj2k_syntax_has_levels() -> None:
    assert {uid for uid, codec in CODECS.items() if codec.reduce} == {
        f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)
    }
