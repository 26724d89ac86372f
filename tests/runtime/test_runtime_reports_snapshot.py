"""The picture of a segmentation: sides, proportions, colors, words."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import Dataset
from reported import MODEL, RESULT, Segmented, needs_dciodvfy, require_conformity, segmented

from healthimaging import Geometry, SegmentDescription, Volume, write_segmentation
from runtime.reports import drawing
from runtime.reports.drawing import LegendEntry, draw
from runtime.reports.planes import Plane, direction_letters, three_planes
from runtime.reports.snapshot import LUNG_WINDOW, SOFT_TISSUE_WINDOW, write_snapshot


@pytest.fixture(scope="module")
def case() -> Segmented:
    return segmented()


def _snapshot(case: Segmented) -> Dataset:
    return write_snapshot(
        segmentation=case.segmentation,
        source=case.headers,
        volume=case.volume,
        model=MODEL,
        result=RESULT,
    )


def _planes(case: Segmented) -> dict[str, Plane]:
    planes = three_planes(volume=case.volume, segmentation=case.segmentation, segment_number=1)
    return {plane.name: plane for plane in planes}


def test_planes_are_turned_as_radiologists_look_at_them(case: Segmented) -> None:
    """The segment lies in the patient's right front, near the feet (see `reported.segmented`)."""
    planes = _planes(case)
    assert {name: (p.left, p.right, p.top, p.bottom) for name, p in planes.items()} == {
        "axial": ("R", "L", "A", "P"),
        "coronal": ("R", "L", "H", "F"),
        "sagittal": ("A", "P", "H", "F"),
    }
    assert {name: plane.values.shape for name, plane in planes.items()} == {
        "axial": (56, 48),
        "coronal": (20, 48),
        "sagittal": (20, 56),
    }
    assert planes["coronal"].spacing == pytest.approx((4.0, 1.25))
    assert planes["sagittal"].spacing == pytest.approx((4.0, 1.5))
    np.testing.assert_array_equal(planes["axial"].masks[1], case.masks[0, 2])
    np.testing.assert_array_equal(planes["coronal"].masks[1], case.masks[0, ::-1, 8])
    np.testing.assert_array_equal(planes["sagittal"].masks[1], case.masks[0, ::-1, :, 8])
    np.testing.assert_array_equal(planes["coronal"].values, case.volume.array[::-1, 8])


def _turned(case: Segmented, order: tuple[int, int, int], flips: tuple[bool, bool, bool]) -> Segmented:
    """The same voxels in the same places, in an array whose axes are permuted and run backwards."""
    geometry = case.volume.geometry
    affine = geometry.affine.copy()
    shape = geometry.shape
    for axis, flip in enumerate(flips):  # of (slice, row, column), whose affine columns are 2, 1, 0
        if flip:
            affine[:3, 3] += affine[:3, 2 - axis] * (shape[axis] - 1)
            affine[:3, 2 - axis] *= -1
    step = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    columns = [affine[:3, 2 - axis] for axis in order]  # new (slice, row, column) directions
    turned = np.eye(4)
    turned[:3, 3] = affine[:3, 3]
    for position, direction in enumerate(columns):
        turned[:3, 2 - position] = direction
    grid = Geometry(turned, tuple(shape[axis] for axis in order), geometry.frame_of_reference_uid)  # type: ignore[arg-type]  # three axes
    array = case.volume.array[step].transpose(order)
    masks = case.masks[(slice(None), *step)].transpose(0, *(1 + axis for axis in order))
    headers = []
    for index in range(grid.shape[0]):
        header = copy.deepcopy(case.headers[0])
        header.SOPInstanceUID = f"2.25.{index + 1}"
        header.ImagePositionPatient = [float(x) for x in grid.to_patient([0, 0, index])]
        header.ImageOrientationPatient = [float(x) for x in grid.direction[:, :2].T.ravel()]
        header.PixelSpacing = [grid.spacing[1], grid.spacing[0]]
        header.Rows, header.Columns = grid.shape[1:]
        headers.append(header)
    described = [
        SegmentDescription(
            number=int(item.SegmentNumber),
            label=str(item.SegmentLabel),
            category=_code(item.SegmentedPropertyCategoryCodeSequence[0]),
            type=_code(item.SegmentedPropertyTypeCodeSequence[0]),
        )
        for item in case.segmentation.SegmentSequence
    ]
    segmentation = write_segmentation(
        source=headers,
        masks=masks,
        grid=grid,
        segments=described,
        series_instance_uid="2.25.91",
        sop_instance_uid="2.25.92",
        series_number=900,
        algorithm_name="a",
        algorithm_version="1",
    )
    volume = replace(case.volume, array=np.ascontiguousarray(array), geometry=grid)
    return Segmented(
        patient=case.patient, headers=headers, volume=volume, masks=masks, segmentation=segmentation
    )


def _code(item: Dataset):  # type: ignore[no-untyped-def]  # pydicom's Code, which it does not export by type
    from pydicom.sr.coding import Code

    return Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)


@pytest.mark.parametrize(
    ("order", "flips"),
    [
        ((1, 0, 2), (True, False, False)),  # a coronal acquisition, rows from head to feet
        ((2, 0, 1), (True, False, True)),  # a sagittal one
        ((0, 1, 2), (False, True, True)),  # axial, of a patient who lay on the belly
    ],
)
def test_the_picture_does_not_depend_on_the_acquisition(
    case: Segmented, order: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    wanted, got = _planes(case), _planes(_turned(case, order, flips))
    for name, plane in wanted.items():
        other = got[name]
        assert (other.left, other.right, other.top, other.bottom) == (
            plane.left,
            plane.right,
            plane.top,
            plane.bottom,
        )
        assert other.spacing == pytest.approx(plane.spacing)
        assert other.values.shape == plane.values.shape
        # Planes are cut where the segment is widest; the widest of equals depends on the order of slices.
        assert int(other.masks[1].sum()) == int(plane.masks[1].sum())
        np.testing.assert_array_equal(np.argwhere(other.masks[1]), np.argwhere(plane.masks[1]))


def test_oblique_planes_say_so() -> None:
    degrees = np.deg2rad(30)
    assert direction_letters(np.array([np.cos(degrees), np.sin(degrees), 0.0])) == "LP"
    assert direction_letters(np.array([0.1, -0.99, 0.1])) == "A"
    assert direction_letters(np.array([0.0, 0.4, -0.9])) == "FP"


def _bounding_box(where: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def test_segments_are_drawn_in_their_proportions_and_colors(case: Segmented) -> None:
    picture = _snapshot(case).pixel_array
    assert picture.shape == (drawing.HEIGHT, drawing.WIDTH, 3)
    # Contours have the segment's own color; display colors are CIELab in DICOM, a step or two off.
    contour = np.abs(picture.astype(int) - (0, 160, 255)).max(axis=2) <= 3
    cell = drawing.WIDTH // 2
    top = 44  # of the first row of planes
    axial = contour[top : top + cell, :cell]
    coronal = contour[top : top + cell, cell:]
    heights, widths = {}, {}
    for name, part in (("axial", axial), ("coronal", coronal)):
        first_row, last_row, first_column, last_column = _bounding_box(part)
        heights[name], widths[name] = last_row - first_row + 1, last_column - first_column + 1
    # 20 rows of 1.5 mm, 12 columns of 1.25 mm, 7 slices of 4 mm: all at one scale.
    assert heights["axial"] / widths["axial"] == pytest.approx(20 * 1.5 / (12 * 1.25), rel=0.05)
    assert heights["coronal"] / widths["coronal"] == pytest.approx(7 * 4.0 / (12 * 1.25), rel=0.05)
    assert widths["axial"] == pytest.approx(widths["coronal"], abs=2)
    assert _bounding_box(axial)[3] < cell / 2, "the patient's right is on the left of the screen"
    assert _bounding_box(coronal)[0] > cell / 2, "the feet are at the bottom"


def test_the_snapshot_is_of_the_study_and_no_input(case: Segmented) -> None:
    snapshot = _snapshot(case)
    assert (snapshot.SOPClassUID.name, snapshot.Modality) == ("Secondary Capture Image Storage", "OT")
    assert (snapshot.PhotometricInterpretation, snapshot.BurnedInAnnotation) == ("RGB", "NO")
    assert (snapshot.Manufacturer, snapshot.ConversionType) == ("MONAI on AWS", "WSD")
    assert snapshot.StudyInstanceUID == case.headers[0].StudyInstanceUID
    assert snapshot.SourceImageSequence[0].ReferencedSOPInstanceUID == case.segmentation.SOPInstanceUID
    assert not snapshot.PatientOrientation


@needs_dciodvfy
@pytest.mark.parametrize("multi_frame", [False, True])
def test_snapshots_satisfy_dciodvfy(multi_frame: bool, tmp_path: Path) -> None:
    require_conformity(_snapshot(segmented(multi_frame=multi_frame)), tmp_path)


def _spoken(monkeypatch: pytest.MonkeyPatch, case: Segmented) -> tuple[list[str], list[tuple[float, float]]]:
    """The words of a snapshot, and its window."""
    words: list[str] = []
    windows: list[tuple[float, float]] = []
    text, picture = drawing._text, drawing._picture

    def write(*arguments, **options):  # type: ignore[no-untyped-def]  # passes everything on
        words.append(arguments[2])
        text(*arguments, **options)

    def paint(*arguments, **options):  # type: ignore[no-untyped-def]  # passes everything on
        windows.append(options["window"])
        return picture(*arguments, **options)

    monkeypatch.setattr(drawing, "_text", write)
    monkeypatch.setattr(drawing, "_picture", paint)
    _snapshot(case)
    return words, windows


def test_words_name_segments_and_no_patient(monkeypatch: pytest.MonkeyPatch, case: Segmented) -> None:
    words, _ = _spoken(monkeypatch, case)
    assert {"lung  12.6 ml", "tumor  0.7 ml", "lung", "chest test 0.3.1"} <= set(words)
    assert any("NOT FOR DIAGNOSTIC USE" in word for word in words)
    for word in ("INDIA", "Synthetic", "1970", "2024"):
        assert word not in " ".join(words)


def test_an_empty_segmentation_has_a_picture_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    words, windows = _spoken(monkeypatch, segmented(empty=True))
    assert "No voxel was segmented." in words
    assert set(windows) == {SOFT_TISSUE_WINDOW}


def test_windows_follow_what_is_looked_at(monkeypatch: pytest.MonkeyPatch, case: Segmented) -> None:
    def window(array: npt.NDArray[np.int16], modality: str) -> tuple[float, float]:
        volume: Volume = replace(case.volume, array=array, modality=modality)
        (only,) = set(_spoken(monkeypatch, replace(case, volume=volume))[1])
        return only

    ramp = np.linspace(0, 1000, case.volume.array.size).astype(np.int16).reshape(case.volume.array.shape)
    assert window(np.full_like(ramp, -800), "CT") == LUNG_WINDOW
    assert window(np.full_like(ramp, 60), "CT") == SOFT_TISSUE_WINDOW
    black, white = window(ramp, "MR")
    assert 0 <= black < 150 < 900 < white <= 1000


def test_a_long_legend_counts_what_it_leaves_out() -> None:
    plane = Plane(
        name="axial",
        values=np.zeros((4, 4), dtype=np.float32),
        masks={},
        spacing=(1.0, 1.0),
        left="R",
        right="L",
        top="A",
        bottom="P",
    )
    entries = [LegendEntry(number=n, text=f"segment {n} " * 9, color=(n, n, n)) for n in range(1, 120)]
    picture = draw(planes=[plane] * 3, window=(0.0, 1.0), legend=entries, title="t" * 300, caption=[])
    assert picture.shape == (drawing.HEIGHT, drawing.WIDTH, 3)
    assert not picture[:, -6:].any(), "nothing is written over the edge"
