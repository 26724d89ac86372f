"""The demo's DICOM: geometry and values equal to the source, whoever reads it; labels on the same grid."""

from __future__ import annotations

import shutil
from pathlib import Path

import highdicom
import nrrd
import numpy as np
import pydicom
import pytest

from healthimaging.segmentation import read_segmentation
from healthimaging.volumes.geometry import Geometry
from workbench.demo.comparison import dice, on_grid
from workbench.demo.ct_series import ct_datasets, write_series
from workbench.demo.label import SEGMENT, write_label
from workbench.demo.lung_mask import silver_lung_mask
from workbench.demo.nrrd_volume import CtVolume, lps_affine, read_nrrd
from workbench.demo.patients import LUNG1, PATIENTS, deterministic_uid
from workbench.demo.series_check import check_conformance, check_geometry
from workbench.errors import WorkbenchError


@pytest.fixture
def volume() -> CtVolume:
    array = np.random.default_rng(0).integers(-1024, 3072, (6, 20, 30)).astype(np.int16)
    affine = np.diag([0.6, 0.7, 5.0, 1.0])
    affine[:3, 3] = [-146.25, -325.1, -777.5]
    return CtVolume(array=array, affine=affine)


def test_nrrd_is_read_in_dicom_order(tmp_path: Path) -> None:
    data = np.arange(2 * 3 * 4, dtype=np.int16).reshape(4, 3, 2)  # column, row, slice
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([0.5, 0.75, 5.0]),
        "space origin": np.array([-1.0, -2.0, -3.0]),
    }
    nrrd.write(str(tmp_path / "ct.nrrd"), data, header, index_order="F")
    volume = read_nrrd(tmp_path / "ct.nrrd")
    assert volume.array.shape == (2, 3, 4)
    assert volume.array[1, 2, 3] == data[3, 2, 1]
    assert volume.spacing == (0.5, 0.75, 5.0)
    np.testing.assert_allclose(volume.affine @ [1, 1, 1, 1], [-0.5, -1.25, 2.0, 1.0])
    assert volume.voxel_ml == pytest.approx(0.5 * 0.75 * 5 / 1000)


def test_ras_becomes_lps() -> None:
    header = {
        "space": "right-anterior-superior",
        "space directions": np.diag([-1.0, -2.0, 3.0]),
        "space origin": np.array([10.0, 20.0, 30.0]),
    }
    affine = lps_affine(header)
    np.testing.assert_allclose(np.diag(affine), [1, 2, 3, 1])
    np.testing.assert_allclose(affine[:3, 3], [-10, -20, 30])


def test_unknown_space_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="scanner-xyz"):
        lps_affine({"space": "scanner-xyz", "space directions": np.eye(3), "space origin": np.zeros(3)})


def test_series_is_read_back_by_highdicom_as_it_was(volume: CtVolume, tmp_path: Path) -> None:
    paths = write_series(ct_datasets(volume, LUNG1), tmp_path)
    check_geometry(paths, volume)
    read = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths])
    # highdicom chooses the slice order; positions of the same voxels must agree with the source.
    first = next(k for k in range(6) if np.array_equal(read.array[k], volume.array[0]))
    np.testing.assert_allclose(read.affine @ [first, 0, 0, 1], volume.affine @ [0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(read.affine @ [first, 4, 7, 1], volume.affine @ [7, 4, 0, 1], atol=1e-6)


def test_check_finds_a_shifted_slice_and_a_changed_value(volume: CtVolume, tmp_path: Path) -> None:
    paths = write_series(ct_datasets(volume, LUNG1), tmp_path)
    moved = CtVolume(array=volume.array, affine=volume.affine + np.eye(4, k=3) * 0.01)
    with pytest.raises(WorkbenchError, match="geometry"):
        check_geometry(paths, moved)
    changed = volume.array.copy()
    changed[0, 0, 0] += 1
    with pytest.raises(WorkbenchError, match="pixel values"):
        check_geometry(paths, CtVolume(array=changed, affine=volume.affine))


def test_the_same_volume_gives_the_same_bytes(volume: CtVolume, tmp_path: Path) -> None:
    one = write_series(ct_datasets(volume, LUNG1), tmp_path / "one")
    two = write_series(ct_datasets(volume, LUNG1), tmp_path / "two")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
@pytest.mark.parametrize("patient", PATIENTS, ids=lambda patient: patient.name)
def test_dciodvfy_finds_no_error(patient: object, volume: CtVolume, tmp_path: Path) -> None:
    [chosen] = [one for one in PATIENTS if one is patient]
    assert check_conformance(write_series(ct_datasets(volume, chosen), tmp_path))


def test_values_that_do_not_fit_are_refused(volume: CtVolume) -> None:
    too_dense = CtVolume(array=np.full_like(volume.array, 3072), affine=volume.affine)
    with pytest.raises(WorkbenchError, match="3071"):
        ct_datasets(too_dense, LUNG1)


def test_uids_are_valid_constant_and_different() -> None:
    uids = [deterministic_uid(p.name, "ct", str(k)) for p in PATIENTS for k in range(50)]
    assert all(uid.is_valid for uid in uids)
    assert len(set(uids)) == 100
    assert LUNG1.study_instance_uid == deterministic_uid("lung1", "study")


def test_label_lies_on_the_series_and_repeats_its_study(volume: CtVolume, tmp_path: Path) -> None:
    datasets = ct_datasets(volume, LUNG1)
    mask = np.zeros(volume.array.shape, dtype=bool)
    mask[1:3, 4:9, 5:20] = True
    label = pydicom.dcmread(write_label(LUNG1, datasets, mask, tmp_path))
    for keyword in ("PatientID", "StudyInstanceUID", "StudyID", "StudyDate", "AccessionNumber"):
        assert label[keyword].value == datasets[0][keyword].value
    geometry = Geometry(volume.affine, (6, 20, 30), str(LUNG1.frame_of_reference_uid))
    read = read_segmentation(label, geometry)
    assert [segment.label for segment in read.segments] == [SEGMENT]
    np.testing.assert_array_equal(read.array[0], mask)


def test_grids_of_opposite_slice_order_are_one(volume: CtVolume) -> None:
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 2] * 5
    affine[:3, 2] *= -1
    turned = on_grid(volume.array, volume, Geometry(affine, volume.array.shape))
    np.testing.assert_array_equal(turned, volume.array[::-1])
    np.testing.assert_array_equal(
        on_grid(volume.array, volume, Geometry(volume.affine, volume.array.shape)), volume.array
    )
    with pytest.raises(WorkbenchError, match="mm off"):
        on_grid(volume.array, volume, Geometry(volume.affine + np.eye(4, k=3), volume.array.shape))


def chest() -> tuple[np.ndarray, np.ndarray]:
    """A body with two lungs, a heart, a vessel in a lung, bowel gas, and a table with air between."""
    slices, rows, columns = np.ogrid[0:30, 0:120, 0:160]
    body = ((rows - 55) / 45) ** 2 + ((columns - 80) / 70) ** 2 + 0 * slices < 1
    lungs = np.zeros(body.shape, dtype=bool)
    for centre in (48, 112):
        lungs |= ((slices - 16) / 12) ** 2 + ((rows - 55) / 30) ** 2 + ((columns - centre) / 22) ** 2 < 1
    hounsfield = np.where(body, 40, -1000)
    hounsfield[lungs] = -850
    hounsfield[10:20, 54:57, 40:43] = 60
    hounsfield[1:3, 50:56, 78:84] = -900
    hounsfield[:, 112:115, :] = 100
    return hounsfield.astype(np.int16), lungs


def test_mask_is_the_lungs_and_nothing_else() -> None:
    hounsfield, lungs = chest()
    mask = silver_lung_mask(hounsfield, spacing=(2.0, 2.0, 5.0))
    assert dice(mask, lungs) > 0.97
    assert mask[15, 55, 41], "a vessel within the lung belongs to it"
    assert not mask[2, 52, 80], "bowel gas is no lung"
    assert not mask[:, 100:, :].any(), "air under the table is no lung"
    assert not mask[:, 55, 80].any(), "what lies between the lungs is no lung"


def test_a_volume_without_lungs_is_refused() -> None:
    with pytest.raises(WorkbenchError, match="no lung"):
        silver_lung_mask(np.full((4, 30, 30), 40, dtype=np.int16), spacing=(1.0, 1.0, 5.0))


def test_dice() -> None:
    one, other = np.array([True, True, False]), np.array([True, False, False])
    assert dice(one, other) == pytest.approx(2 / 3)
    assert dice(one & False, other & False) == 1.0
