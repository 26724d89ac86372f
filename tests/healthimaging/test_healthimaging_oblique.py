"""Oblique grids from headers to arrays and back: highdicom's volumes, and segmentations there and back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from fake_healthimaging import DATASTORE, IMAGE_SET, document, image_set, instance
from hypothesis import given, settings
from hypothesis import strategies as st
from planned_series import rotation
from pydicom.data import get_testdata_file
from pydicom.sr.coding import Code

from healthimaging import (
    Geometry,
    ImageSet,
    SegmentDescription,
    Volume,
    read_segmentation,
    write_segmentation,
)
from healthimaging.errors import GeometryMismatchError
from healthimaging.metadata import ImageSetMetadata
from healthimaging.volumes.planning import plan_volumes

Array = np.ndarray[Any, Any]
angles = st.floats(-3.14, 3.14)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """An oblique stack, its stored pixels in slice order, and its image set."""

    grid: Geometry
    stored: Array
    volume: Volume
    source: list[pydicom.Dataset]
    """Datasets in an order of their own."""
    order: list[int]
    """`source[k]` is slice `order[k]`."""


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    affine = np.eye(4)
    sides = [draw(st.floats(0.3, 6)) for _ in range(3)]
    affine[:3, :3] = rotation(draw(angles), draw(angles), draw(angles)) * sides
    affine[:3, 3] = [draw(st.floats(-400, 400)) for _ in range(3)]
    shape = (draw(st.integers(1, 6)), draw(st.integers(4, 11)), draw(st.integers(4, 11)))
    grid = Geometry(affine, shape, "1.2.3.9")
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    stored = rng.integers(0, 4096, size=shape, dtype=np.uint16)
    order = list(rng.permutation(shape[0]))
    built = [
        instance(
            stored[k],
            number=draw(st.sampled_from([None, k + 1])),
            uid=k,
            position=grid.to_patient((0, 0, k)).tolist(),
            orientation=tuple(grid.direction[:, :2].T.reshape(-1)),
            spacing=(sides[1], sides[0]),
            SliceThickness=f"{sides[2]:.6f}",
        )
        for k in order
    ]
    opened = ImageSet.open(image_set(built), DATASTORE, IMAGE_SET)
    (volume,) = opened.volumes()
    datasets = {dataset.SOPInstanceUID: dataset for dataset in opened.datasets()}
    source = [datasets[record["DICOM"]["SOPInstanceUID"]] for record, _ in built]
    return Scan(grid=grid, stored=stored, volume=volume, source=source, order=order)


def slice_first(geometry: Geometry) -> Array:
    """The affine for (slice, row, column) indices, which highdicom uses."""
    return geometry.affine[:, [2, 1, 0, 3]]


@settings(max_examples=60, deadline=None)
@given(scans())
def test_volumes_are_what_the_stack_was_made_of_and_what_highdicom_makes_of_it(scan: Scan) -> None:
    assert scan.volume.geometry.largest_shift(scan.grid) < 1e-3
    assert np.array_equal(scan.volume.array, scan.stored.astype(np.int16) - 1024)
    if len(scan.source) == 1:
        return  # highdicom makes no volume of one slice without SpacingBetweenSlices
    theirs = highdicom.get_volume_from_series(scan.source)
    ours = slice_first(scan.volume.geometry)
    if theirs.affine[:3, 0] @ ours[:3, 0] < 0:
        theirs = theirs.flip_spatial(0)
    assert theirs.spatial_shape == scan.volume.geometry.shape
    assert theirs.affine == pytest.approx(ours, abs=1e-4)
    assert np.array_equal(theirs.array, scan.volume.array)
    assert theirs.frame_of_reference_uid == scan.volume.geometry.frame_of_reference_uid
    assert theirs.spacing == pytest.approx(scan.volume.geometry.spacing[::-1], abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(scans(), st.integers(1, 3), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.data())
def test_volume_to_segmentation_file_to_volume_is_the_identity(
    scan: Scan, segments: int, density: float, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    masks = rng.random((segments, *scan.volume.geometry.shape)) < density
    written = write_segmentation(
        source=scan.source,
        masks=masks[:, scan.order],
        segments=[
            SegmentDescription(
                number=k + 1,
                label=f"s{k}",
                category=Code("123037004", "SCT", "Anatomical Structure"),
                type=Code("39607008", "SCT", "Lung"),
            )
            for k in range(segments)
        ],
        series_instance_uid="1.2.3.77",
        sop_instance_uid="1.2.3.77.1",
        series_number=900,
        algorithm_name="test",
        algorithm_version="1.0",
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "segmentation.dcm"
        written.save_as(path, enforce_file_format=True)
        read = pydicom.dcmread(path)
        theirs = highdicom.seg.segread(path)
    found = read_segmentation(read, scan.volume.geometry)
    assert np.array_equal(found.array, masks)
    # Where another reader sees the voxels is where they are.
    if masks.any() and len(scan.source) > 1:
        volume = theirs.get_volume(allow_missing_positions=True)
        for segment in range(segments):
            places = volume.map_indices_to_reference(np.argwhere(volume.array[..., segment]))
            indices = scan.volume.geometry.to_index(places)
            assert np.abs(indices - np.round(indices)).max(initial=0) < 0.05
            seen = {tuple(int(x) for x in index) for index in np.round(indices)}
            assert seen == {(c, r, s) for s, r, c in np.argwhere(masks[segment]).tolist()}
    # And on no other grid.
    moved = scan.volume.geometry.affine.copy()
    moved[:3, 3] += 0.3 * moved[:3, data.draw(st.integers(0, 2))]
    with pytest.raises(GeometryMismatchError):
        read_segmentation(read, Geometry(moved, scan.volume.geometry.shape, "1.2.3.9"))


def values(dataset: pydicom.Dataset) -> dict[str, Any]:
    """A header as the metadata document has it, as far as geometry asks for it."""
    found: dict[str, Any] = {}
    for element in dataset:
        if element.VR == "SQ":
            found[element.keyword] = [values(item) for item in element.value]
        elif element.VR in ("AT", "CS", "DS", "FD", "IS", "LO", "SH", "UI", "UL", "US"):
            several = element.value if element.VM > 1 else [element.value]
            found[element.keyword] = [str(one) for one in several]
    return found


def test_a_real_enhanced_ct_lies_where_highdicom_says() -> None:
    path = get_testdata_file("eCT_Supplemental.dcm")
    assert isinstance(path, str)
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    for keyword in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID"):
        del dataset[keyword]  # the document has its own
    record = {"DICOM": values(dataset), "ImageFrames": [{"ID": "f1"}, {"ID": "f2"}]}
    root = document({dataset.SOPInstanceUID: record})
    (series,) = ImageSetMetadata.from_document(root).series.values()
    (plan,) = plan_volumes(series)
    theirs = highdicom.imread(path).get_volume_geometry()
    ours = slice_first(plan.stack.geometry)
    assert theirs is not None
    assert theirs.spatial_shape == plan.stack.geometry.shape
    if theirs.affine[:3, 0] @ ours[:3, 0] < 0:
        theirs = theirs.flip_spatial(0)
    assert theirs.affine == pytest.approx(ours)
    assert plan.stack.geometry.frame_of_reference_uid == dataset.FrameOfReferenceUID
    assert (plan.slopes, plan.intercepts) == ((1, 1), (-1024, -1024))
