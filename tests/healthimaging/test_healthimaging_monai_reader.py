"""Image sets through MONAI's own LoadImage: beside other readers, in workers, in caches, and back again."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_healthimaging import (
    DATASTORE,
    IMAGE_SET,
    SERIES_UID,
    STUDY_UID,
    FakeService,
    ct_series,
    image_set,
    instance,
)

pytest.importorskip("monai")

import torch
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset, ThreadDataLoader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImage,
    LoadImaged,
    Orientationd,
    SaveImage,
    Spacingd,
    SpatialPadd,
)

from healthimaging import ImageSet, ImageSetRef, Volume
from healthimaging.errors import (
    FrameChecksumError,
    GantryTiltError,
    GeometryMismatchError,
    ImageSetNotFoundError,
    VolumeError,
)
from healthimaging.monai import ImageSetReader

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
"""Of a reader of MONAI for GPUs."""

REF = ImageSetRef(datastore_id=DATASTORE, image_set_id=IMAGE_SET, version_id="1")


def service() -> FakeService:
    """What a worker makes for itself."""
    return ct_series()[0]


def oblique_series() -> tuple[FakeService, np.ndarray[Any, Any]]:
    """Six slices of 10 x 14 pixels of 0.75 x 0.5 mm, tilted against every axis, and their HU."""
    rng = np.random.default_rng(3)
    stored = rng.integers(0, 4096, size=(6, 10, 14), dtype=np.uint16)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    row, column = rotation[:, 0], rotation[:, 1]
    normal = np.cross(row, column)
    built = [
        instance(
            stored[k],
            number=k + 1,
            position=tuple(np.array([12.5, -40, 7]) + 3 * k * normal),
            orientation=(*row, *column),
            spacing=(0.75, 0.5),
        )
        for k in rng.permutation(6)
    ]
    return image_set(built), stored.astype(np.int16) - 1024


def loaded(client: Any, *refs: Any, **options: Any) -> Any:
    item = {"image": list(map(str, refs)) if len(refs) > 1 else str(refs[0])}
    return LoadImaged("image", reader=ImageSetReader(client, **options), ensure_channel_first=True)(item)[
        "image"
    ]


def test_a_reference_is_read_like_a_file() -> None:
    client, hu = ct_series()
    tensor = loaded(client, REF)
    assert tensor.shape == (1, 12, 9, 7)
    assert tensor.dtype == torch.float32
    assert np.array_equal(tensor[0].numpy(), hu.transpose(2, 1, 0))
    (volume,) = ImageSet.open(client, DATASTORE, IMAGE_SET).volumes()
    for column, row, slice_ in ((0, 0, 0), (11, 8, 6), (3, 5, 2)):
        left, back, up = volume.geometry.to_patient((column, row, slice_))
        ras = np.asarray(tensor.affine) @ [column, row, slice_, 1]
        assert ras[:3] == pytest.approx([-left, -back, up])


def test_metadata_names_the_image_and_not_the_patient() -> None:
    client, _ = ct_series()
    meta = loaded(client, REF).meta
    assert meta["image_set_id"] == IMAGE_SET
    assert meta["datastore_id"] == DATASTORE
    assert meta["version_id"] == "1"
    assert meta["study_instance_uid"] == STUDY_UID
    assert meta["series_instance_uid"] == SERIES_UID
    assert meta["instance_uids"].split("\\") == [f"{SERIES_UID}.{7 - k}" for k in range(7)]
    assert meta["frame_of_reference_uid"] == "1.2.3.9"
    assert meta["filename_or_obj"] == str(REF)
    assert meta["spacing"] == pytest.approx([1, 2, 2.5])
    patient = client.document["Patient"]["DICOM"]
    for identifying in (patient["PatientName"], patient["PatientID"].strip()):
        assert not [name for name, value in meta.items() if identifying in str(value)]


def test_the_same_image_as_nifti_gives_the_same_tensor(tmp_path: Path) -> None:
    client, _ = oblique_series()
    ours = LoadImage(reader=ImageSetReader(client))(str(REF))
    SaveImage(output_dir=tmp_path, output_postfix="", separate_folder=False, print_log=False)(ours[None])
    (file,) = tmp_path.rglob("*.nii.gz")
    theirs = LoadImage(reader="NibabelReader")(file)
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())
    assert ours.affine.numpy() == pytest.approx(theirs.affine.numpy(), abs=1e-5)
    assert ours.pixdim.tolist() == pytest.approx(theirs.pixdim.tolist(), abs=1e-6)
    assert ours.meta["space"] == theirs.meta["space"]
    assert list(ours.meta["spatial_shape"]) == list(theirs.meta["spatial_shape"])
    assert np.isnan(ours.meta["original_channel_dim"])
    assert np.isnan(theirs.meta["original_channel_dim"])
    assert ours.meta["original_affine"] == pytest.approx(theirs.meta["original_affine"], abs=1e-5)


def test_monai_reading_the_dicom_files_sees_the_same_image(tmp_path: Path) -> None:
    client, _ = oblique_series()
    for dataset in ImageSet.open(client, DATASTORE, IMAGE_SET).datasets():
        dataset.save_as(tmp_path / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
    upright = Orientationd("image", axcodes="RAS", labels=None)
    ours = upright({"image": loaded(client, REF)})["image"]
    files = LoadImaged("image", reader="PydicomReader", ensure_channel_first=True)({"image": tmp_path})
    theirs = upright(files)["image"]
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())
    assert ours.affine.numpy() == pytest.approx(theirs.affine.numpy(), abs=1e-4)


def test_files_are_still_read_as_files(tmp_path: Path) -> None:
    client, _ = ct_series()
    np.save(tmp_path / "map.npy", np.full((2, 3, 4), 5.0))
    item = {"image": str(REF), "map": tmp_path / "map.npy"}
    by_hand = LoadImaged(("image", "map"), reader=["NumpyReader", ImageSetReader(client)])(item)
    automatic = LoadImaged(("image", "map"))
    automatic.register(ImageSetReader(client))
    for read in (by_hand, automatic(item)):
        assert read["image"].shape == (12, 9, 7)
        assert read["map"].unique().tolist() == [5]


def test_references_may_be_objects_and_nothing_else_is_taken_for_one() -> None:
    client, _ = ct_series()
    reader = ImageSetReader(client)
    assert LoadImage(reader=reader, expanduser=False)(REF).shape == (12, 9, 7)
    assert reader.verify_suffix(str(REF))
    assert reader.verify_suffix([REF, Path(str(REF))])
    assert reader.read(str(REF).replace("/", "\\")) == [REF]
    unpinned = f"{DATASTORE}/{IMAGE_SET}"
    for other in ("image.nii.gz", unpinned, f"{unpinned}@latest", f"/{REF}", ""):
        assert not reader.verify_suffix(other)


def test_errors_keep_their_type_and_say_where() -> None:
    client, _ = ct_series()
    frame = f"frame-{SERIES_UID}.2"
    client.frames[frame] = client.frames[f"frame-{SERIES_UID}.1"]
    with pytest.raises(FrameChecksumError) as caught:
        loaded(client, REF)
    assert (caught.value.image_set_id, caught.value.sop_instance_uid) == (IMAGE_SET, f"{SERIES_UID}.2")
    with pytest.raises(ImageSetNotFoundError):
        loaded(client, replace(REF, image_set_id="2" * 32))
    with pytest.raises(RuntimeError) as wrapped:  # what MONAI makes of every error in a chain
        Compose([LoadImaged("image", reader=ImageSetReader(client))])({"image": str(REF)})
    assert isinstance(wrapped.value.__cause__, FrameChecksumError)


def last(volumes: Sequence[Volume]) -> Volume:
    return volumes[-1]


def test_several_volumes_are_refused_unless_one_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = ct_series()
    (volume,) = ImageSet.open(client, DATASTORE, IMAGE_SET).volumes()
    echoes = [
        replace(volume, array=volume.array + k, distinction=(("EchoTime", str(10 * k)),)) for k in (1, 2)
    ]
    monkeypatch.setattr(ImageSet, "volumes", lambda _self, **_options: echoes)
    with pytest.raises(VolumeError, match=r"2 volumes.*EchoTime 10.*EchoTime 20") as caught:
        loaded(client, REF)
    assert caught.value.image_set_id == IMAGE_SET
    assert np.array_equal(loaded(client, REF, choose=last)[0].numpy(), echoes[1].array.transpose(2, 1, 0))


def test_image_sets_on_one_grid_become_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    client, hu = ct_series()
    both = loaded(client, REF, replace(REF, version_id="2"))
    assert both.shape == (2, 12, 9, 7)
    assert both.meta["version_id"] == "1"
    assert np.array_equal(both[1].numpy(), hu.transpose(2, 1, 0))
    (volume,) = ImageSet.open(client, DATASTORE, IMAGE_SET).volumes()
    moved = volume.geometry.affine + np.outer([1, 0, 0, 0], [0, 0, 0, 3])
    other = replace(volume, geometry=replace(volume.geometry, affine=moved))
    answers = iter([[volume], [other]])
    monkeypatch.setattr(ImageSet, "volumes", lambda _self, **_options: next(answers))
    with pytest.raises(GeometryMismatchError):
        loaded(client, REF, REF)


def test_colour_comes_channel_first(monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = ct_series()
    (volume,) = ImageSet.open(client, DATASTORE, IMAGE_SET).volumes()
    colour = np.random.default_rng(1).integers(0, 255, (*volume.geometry.shape, 3), dtype=np.uint8)
    monkeypatch.setattr(ImageSet, "volumes", lambda _self, **_options: [replace(volume, array=colour)])
    tensor = loaded(client, REF)
    assert tensor.shape == (3, 12, 9, 7)
    assert np.array_equal(tensor.numpy(), colour.transpose(3, 2, 1, 0))
    assert tensor.meta["original_channel_dim"] == 0


@pytest.mark.parametrize("level", [1, 2])
def test_a_level_is_a_coarser_grid_of_the_same_place(level: int) -> None:
    client, _ = oblique_series()
    full, coarse = loaded(client, REF), loaded(client, REF, level=level)
    step = 2**level
    assert coarse.shape == (1, -(-14 // step), -(-10 // step), 6)
    assert coarse.pixdim.tolist() == pytest.approx([0.5 * step, 0.75 * step, 3])
    place = np.array([2, 1, 4, 1])
    same = place * [step, step, 1, 1]
    assert np.asarray(coarse.affine) @ place == pytest.approx(np.asarray(full.affine) @ same)


def test_tilted_slices_are_resampled_only_on_request() -> None:
    rng = np.random.default_rng(9)
    pixels = rng.integers(0, 99, (8, 16, 12), dtype=np.uint16)
    tilted = image_set([instance(pixels[k], number=k, position=(0, 0.5 * k, 2 * k)) for k in range(8)])
    with pytest.raises(GantryTiltError):
        loaded(tilted, REF)
    upright = loaded(tilted, REF, resample=True)
    assert upright.shape == (1, 12, 20, 8)
    assert upright.pixdim.tolist() == pytest.approx([1, 1, 2])


def test_what_transforms_did_is_undone() -> None:
    client, _ = oblique_series()
    forward = Compose(
        [
            LoadImaged("image", reader=ImageSetReader(client)),
            EnsureChannelFirstd("image"),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(0.4, 0.4, 0.4), mode="bilinear", padding_mode="border"),
        ]
    )
    before = loaded(client, REF)
    item = forward({"image": str(REF)})
    assert item["image"].pixdim.tolist() == pytest.approx([0.4] * 3)
    item["prediction"] = item["image"] * 1
    after = Invertd("prediction", transform=forward, orig_keys="image", nearest_interp=False, to_tensor=True)(
        item
    )["prediction"]
    assert after.shape == before.shape
    assert after.affine.numpy() == pytest.approx(before.affine.numpy(), abs=1e-4)
    # Noise is the hardest image to interpolate twice; a flipped or shifted axis correlates with nothing.
    assert np.corrcoef(after.numpy().ravel(), before.numpy().ravel())[0, 1] > 0.9


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_make_their_own_client(start: str) -> None:
    data = Dataset([{"image": str(REF)}] * 4, LoadImaged("image", reader=ImageSetReader(service)))
    if start == "fork":
        assert data[0]["image"].shape == (12, 9, 7)  # what a fork inherits is not used
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=start)
    batches = [batch["image"] for batch in loader]
    assert [tuple(batch.shape) for batch in batches] == [(2, 12, 9, 7)] * 2
    assert batches[0].meta["image_set_id"] == [IMAGE_SET] * 2


def copied(reader: ImageSetReader) -> ImageSetReader:
    """As it arrives in another process."""
    arrived: ImageSetReader = pickle.loads(pickle.dumps(reader))  # noqa: S301 - written a moment ago
    return arrived


def test_a_client_of_another_process_is_refused() -> None:
    data = Dataset([{"image": str(REF)}], LoadImaged("image", reader=ImageSetReader(service())))
    assert data[0]["image"].shape == (12, 9, 7)
    with pytest.raises(RuntimeError, match="give a function that makes one"):
        list(DataLoader(data, num_workers=1, multiprocessing_context="fork"))
    reader = copied(ImageSetReader(service()))
    with pytest.raises(TypeError, match="give a function that makes one"):
        reader.get_data([REF])
    assert copied(ImageSetReader(service)).get_data([REF])[0].shape == (12, 9, 7)


def test_threads_share_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    # How long PyTorch waits for each thread at the end.
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    client, _ = ct_series()
    data = Dataset([{"image": str(REF)}] * 3, LoadImaged("image", reader=ImageSetReader(client)))
    loader = ThreadDataLoader(data, batch_size=1, num_workers=2, use_thread_workers=True)
    assert [tuple(batch["image"].shape) for batch in loader] == [(1, 12, 9, 7)] * 3
    assert len(client.requested) == 3 * 7


def test_caches_read_once(tmp_path: Path) -> None:
    client, _ = ct_series()
    load = Compose([LoadImaged("image", reader=ImageSetReader(client), ensure_channel_first=True)])
    items = [{"image": str(REF)}]
    cached = CacheDataset(items, load, progress=False)
    assert torch.equal(cached[0]["image"], cached[0]["image"])
    assert len(client.requested) == 7
    for track_meta, weights_only in ((False, True), (True, False)):
        client.requested.clear()
        folder = tmp_path / str(track_meta)
        stored = PersistentDataset(items, load, folder, track_meta=track_meta, weights_only=weights_only)
        first, second = stored[0]["image"], stored[0]["image"]
        assert torch.equal(torch.as_tensor(first), torch.as_tensor(second))
        assert len(client.requested) == 7
    assert second.meta["image_set_id"] == IMAGE_SET


def test_volumes_of_different_length_make_a_batch() -> None:
    rng = np.random.default_rng(5)

    def series(slices: int) -> FakeService:
        pixels = rng.integers(0, 99, (slices, 9, 12), dtype=np.uint16)
        return image_set([instance(pixels[k], number=k, position=(0, 0, k)) for k in range(slices)])

    pad = SpatialPadd("image", spatial_size=(12, 9, 8))
    items = [pad({"image": loaded(series(slices), REF)}) for slices in (3, 5)]
    (batch,) = DataLoader(items, batch_size=2)
    assert batch["image"].shape == (2, 1, 12, 9, 8)
    assert [len(uids.split("\\")) for uids in batch["image"].meta["instance_uids"]] == [3, 5]
