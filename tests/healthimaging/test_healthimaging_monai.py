"""MetaTensors with MONAI's conventions, and manifests as datasets. Runs where MONAI is installed."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, FakeService, ct_series

pytest.importorskip("monai")

import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, PersistentDataset
from monai.transforms import Compose, DeleteItemsd, Orientationd, Spacingd
from pydicom.sr.coding import Code

from healthimaging import Case, ImageSet, ImageSetRef, SegmentDescription, write_segmentation
from healthimaging import monai as connector
from healthimaging.errors import ManifestError, VolumeError
from healthimaging.manifest import patient_key
from healthimaging.segmentation import read_segmentation

REF = ImageSetRef(datastore_id=DATASTORE, image_set_id=IMAGE_SET, version_id="1")
CASE = Case(patient_key=patient_key("P1"), split="train", image=REF)


def opened() -> tuple[FakeService, ImageSet]:
    service, _ = ct_series()
    return service, ImageSet.open(service, DATASTORE, IMAGE_SET)


def test_axes_values_and_affine() -> None:
    _, found = opened()
    (volume,) = found.volumes()
    tensor = connector.load_metatensor(volume)
    slices, rows, columns = volume.geometry.shape
    assert tensor.shape == (1, columns, rows, slices)
    assert tensor.dtype == torch.float32
    for column, row, slice_ in ((0, 0, 0), (3, 5, 2), (11, 8, 6)):
        assert tensor[0, column, row, slice_] == volume.array[slice_, row, column]
        left, back, up = volume.geometry.to_patient((column, row, slice_))
        ras = np.asarray(tensor.affine) @ [column, row, slice_, 1]
        assert ras[:3] == pytest.approx([-left, -back, up])
    assert tensor.meta["series_instance_uid"] == volume.series_instance_uid
    assert tensor.pixdim.tolist() == pytest.approx(list(volume.geometry.spacing))


def test_labels_lie_on_the_image() -> None:
    _, found = opened()
    (volume,) = found.volumes()
    masks = (volume.array > 500)[None]
    segment = SegmentDescription(
        number=1,
        label="lung",
        category=Code("123037004", "SCT", "Anatomical Structure"),
        type=Code("39607008", "SCT", "Lung"),
    )
    written = write_segmentation(
        source=found.datasets(pixels=False),
        masks=masks,
        segments=[segment],
        series_instance_uid="1.2.77",
        sop_instance_uid="1.2.77.1",
        series_number=9,
        algorithm_name="a",
        algorithm_version="1",
    )
    image = connector.load_metatensor(volume)
    label = connector.load_metatensor(read_segmentation(written, volume.geometry))
    assert label.shape == image.shape
    assert torch.equal(label.affine, image.affine)
    assert torch.equal(label.bool().as_tensor(), (image > 500).as_tensor())
    assert label.meta["segment_labels"] == ["lung"]


def test_manifest_cases_become_items_for_dictionary_transforms() -> None:
    service, _ = opened()
    items = connector.ImageSetDataset(service, [CASE])
    assert len(items) == 1
    item = items[0]
    assert set(item) == {"image", "case"}
    assert item["case"] is CASE
    transform = Compose(
        [Orientationd("image", axcodes="RAS", labels=None), Spacingd("image", pixdim=(2, 2, 2))]
    )
    spaced = connector.ImageSetDataset(service, [CASE], transform)[0]["image"]
    assert isinstance(spaced, MetaTensor)
    assert spaced.pixdim.tolist() == pytest.approx([2, 2, 2])


def test_items_can_be_cached() -> None:
    service, _ = opened()
    source = connector.ImageSetDataset(service, [CASE])
    cached = CacheDataset(source, transform=Orientationd("image", axcodes="RAS", labels=None), progress=False)
    asked = len(service.requested)
    assert cached[0]["image"].shape == source[0]["image"].shape
    assert len(service.requested) == asked + 7  # only the second read went to the datastore


def test_cases_are_read_once_where_items_are_kept_on_disk(tmp_path: Path) -> None:
    service, _ = opened()
    load = Compose([connector.LoadCase(service), Orientationd("image", axcodes="RAS", labels=None)])
    stored = PersistentDataset([CASE], load, tmp_path)
    first, second = stored[0], stored[0]
    assert torch.equal(torch.as_tensor(first["image"]), second["image"])
    assert second["case"] == CASE
    assert len(service.requested) == 7
    other = replace(CASE, image=replace(REF, version_id="2"))
    assert PersistentDataset([other], load, tmp_path)[0]["case"] == other
    assert len(service.requested) == 14


def made() -> FakeService:
    return opened()[0]


def test_workers_read_cases() -> None:
    items = connector.ImageSetDataset(made, [CASE] * 5, DeleteItemsd("case"))[1:]
    loader = DataLoader(items, batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert [tuple(batch["image"].shape) for batch in loader] == [(2, 1, 12, 9, 7)] * 2


def test_label_that_is_no_segmentation_is_refused() -> None:
    service, _ = opened()
    labelled = replace(CASE, label=REF)
    with pytest.raises(VolumeError, match="7 instances") as caught:
        connector.load_case(service, labelled)
    assert caught.value.image_set_id == IMAGE_SET


def test_image_set_of_several_volumes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    service, found = opened()
    two: Any = found.volumes() * 2
    monkeypatch.setattr(ImageSet, "volumes", lambda _self, **_options: two)
    with pytest.raises(VolumeError, match="2 volumes"):
        connector.load_case(service, CASE)


def test_an_image_of_another_patient_is_refused() -> None:
    service, _ = opened()
    with pytest.raises(ManifestError, match="not of patient"):
        connector.open_case(service, replace(CASE, patient_key=patient_key("P2")))


@pytest.mark.parametrize(
    ("level", "keyword", "message"),
    [("Patient", "PatientID", "another patient"), ("Study", "StudyInstanceUID", "another study")],
)
def test_a_label_of_another_patient_or_study_is_refused_though_it_fits(
    monkeypatch: pytest.MonkeyPatch, level: str, keyword: str, message: str
) -> None:
    _, image = opened()
    service, _ = ct_series()
    service.document = copy.deepcopy(service.document)
    service.document[level]["DICOM"][keyword] = "9.9"
    label = ImageSet.open(service, DATASTORE, IMAGE_SET)
    other = replace(REF, version_id="2")
    monkeypatch.setattr(connector, "open_pinned", lambda _client, ref: label if ref == other else image)
    case = replace(CASE, label=other)
    with pytest.raises(ManifestError, match=message) as caught:
        connector.load_case(service, case)
    assert "P1" not in str(caught.value)
