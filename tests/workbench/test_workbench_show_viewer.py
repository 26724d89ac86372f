"""The viewer in a browser, of a series and a segmentation as they are in the archive.

The phantom is a sagittal series, turned by 15 degrees, with a bright cube to the left, one to the front and
one to the head of its middle; the segmentation is of the left one. A program that does not run, a policy that
forbids it, or a side that is wrong are seen in the picture.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError
from cloud_under_test import CloudUnderTest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation
from workbench_fakes import OUTPUTS, FakeDeployment

from healthimaging import DicomWeb, Geometry, SegmentDescription, write_segmentation
from healthimaging.image_set_search import find_image_sets
from workbench.deployment import Deployment, StackOutputs
from workbench.environment import Environment, LocalEndpoint
from workbench.errors import WorkbenchError
from workbench.session import Session
from workbench.show import show
from workbench.showing.patient_axes import PatientAxes
from workbench.showing.segmentations import overlay
from workbench.showing.viewer import NO_SEGMENTATION, write_viewer

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTH, HEIGHT = 1400, 900
PANEL = 304
"""Width of the controls at the right, and height of the title, in pixels."""
TITLE = 39

TURN = Rotation.from_euler("z", 15, degrees=True).as_matrix()
SPACING = 2.0
MIDDLE = np.array([12.0, -40.0, 700.0])
CUBES = {"left": ([30, 0, 0], 1000), "front": ([0, -30, 0], 2000), "head": ([0, 0, 30], 3000)}
"""Place from the middle (LPS, mm, in the phantom's own axes) and HU."""


@dataclass(frozen=True, kw_only=True)
class Phantom:
    deployment: Deployment
    image_set_id: str
    segmentation_id: str


def deployment_of(session: Session, datastore_id: str) -> Deployment:
    """Canned outputs, with a data store that exists."""

    class Deployed(FakeDeployment):
        def stack(self, part: str) -> StackOutputs:
            values = {**OUTPUTS["data"], "DatastoreId": datastore_id}
            return StackOutputs(stack=part, environment="test", values=values)

    return Deployed(session)


def source() -> tuple[list[Dataset], np.ndarray[Any, Any], Geometry]:
    """The series, its HU (slices, rows, columns), and its grid."""
    orientation = [*(TURN @ [0, 1, 0]), *(TURN @ [0, 0, -1])]
    shape = (40, 50, 50)
    normal = TURN @ [-1, 0, 0]
    corner = MIDDLE - SPACING * (
        normal * 19.5 + np.array(orientation[:3]) * 24.5 + np.array(orientation[3:]) * 24.5
    )
    grid = Geometry.from_dicom(
        position=corner.tolist(),
        orientation=orientation,
        pixel_spacing=(SPACING, SPACING),
        slice_spacing=SPACING,
        shape=shape,
    )
    s, r, c = np.indices(shape)
    place = (grid.to_patient(np.stack([c, r, s], axis=-1)) - MIDDLE) @ TURN
    values = np.full(shape, -1000, dtype=np.int16)
    for where, value in CUBES.values():
        values[(np.abs(place - where) <= 5).all(axis=-1)] = value
    template = dcmread(str(get_testdata_file("CT_small.dcm")))
    del template[0xFFFCFFFC]  # padding behind the pixels
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    made = []
    for k in range(shape[0]):
        one = Dataset()
        one.update({e.tag: deepcopy(e) for e in template if e.tag.group < 0x7FE0 and not e.tag.is_private})
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.SOPInstanceUID = generate_uid()
        one.InstanceNumber = k + 1
        one.ImagePositionPatient = [f"{v:.6f}" for v in grid.to_patient((0, 0, k))]
        one.ImageOrientationPatient = [f"{v:.10f}" for v in orientation]
        one.PixelSpacing, one.SliceThickness = [SPACING, SPACING], SPACING
        one.Rows, one.Columns = shape[1:]
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
            one.pop(keyword, None)
        one.PixelData = values[k].tobytes()
        made.append(one)
    return made, values, grid


def segmentation_of(
    datasets: list[Dataset], grid: Geometry, masks: list[np.ndarray[Any, Any]], *labels: str
) -> Dataset:
    """A segmentation of the series, every segment of it red."""
    return write_segmentation(
        source=datasets,
        masks=np.stack(masks),
        grid=grid,
        segments=[
            SegmentDescription(
                number=number,
                label=label,
                category=Code("123037004", "SCT", "Anatomical Structure"),
                type=Code("39607008", "SCT", "Lung"),
                color=(255, 0, 0),
            )
            for number, label in enumerate(labels, start=1)
        ],
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        series_number=9,
        algorithm_name="threshold",
        algorithm_version="1",
    )


@pytest.fixture(scope="module")
def phantom(cloud: CloudUnderTest) -> Phantom:
    session = Session(
        Environment(
            name="test",
            account=cloud.account_id,
            region=cloud.region,
            local=LocalEndpoint(
                endpoint_url=cloud.endpoint_url,
                access_key_id=cloud.access_key_id,
                secret_access_key=cloud.secret_access_key,
                docker=None,
            ),
        )
    )
    client = session.client("medical-imaging")
    datastore = client.create_datastore(datastoreName=f"show-{uuid.uuid4().hex[:12]}")["datastoreId"]
    datasets, values, grid = source()
    segmentation = segmentation_of(datasets, grid, [values == CUBES["left"][1]], "left </script> cube")
    with DicomWeb(client, datastore) as web:
        assert all(one.stored for one in web.store([*datasets, segmentation]))
    image_set_ids = [
        find_image_sets(client, datastore, DICOMSeriesInstanceUID=one.SeriesInstanceUID)[0].ref.image_set_id
        for one in (datasets[0], segmentation)
    ]
    return Phantom(
        deployment=deployment_of(session, datastore),
        image_set_id=image_set_ids[0],
        segmentation_id=image_set_ids[1],
    )


def browse(page: Path, address: str, *options: str) -> bytes:
    """What the browser says of a page, without a network."""
    if BROWSER is None:
        pytest.skip("there is no Chromium here")
    done = subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={page.parent / 'profile'}"),
            *(f"--window-size={WIDTH},{HEIGHT}", "--virtual-time-budget=20000", *options),
            page.as_uri() + address,
        ],
        capture_output=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def directions(panel: np.ndarray[Any, Any], colour: Any) -> set[str]:
    """Towards which sides of a panel's middle pixels of a colour lie."""
    rows, columns = np.nonzero(colour(panel.astype(int)))
    right, down = columns - panel.shape[1] / 2, rows - panel.shape[0] / 2
    sideways = np.abs(right) > np.abs(down)
    found = {
        "right": sideways & (right > 0),
        "left": sideways & (right < 0),
        "bottom": ~sideways & (down > 0),
        "top": ~sideways & (down < 0),
    }
    return {side for side, pixels in found.items() if pixels.sum() > 20}


def white(panel: np.ndarray[Any, Any]) -> Any:
    return (panel >= 250).all(axis=-1)


def red(panel: np.ndarray[Any, Any]) -> Any:
    return (panel[..., 0] > 240) & (panel[..., 1:] < 190).all(axis=-1)


def test_sides_are_those_of_the_patient_and_the_segment_lies_where_it_was_drawn(
    phantom: Phantom, tmp_path: Path
) -> None:
    viewed = write_viewer(phantom.deployment, phantom.image_set_id, folder=tmp_path)
    assert viewed.segments == ("left </script> cube",)
    assert viewed.notes == ()
    middle = ",".join(f"{mm:.3f}" for mm in MIDDLE)
    browse(viewed.html, f"#lps={middle}", f"--screenshot={tmp_path / 'seen.png'}")
    seen = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"))
    views = seen[TITLE:, : WIDTH - PANEL]
    half_height, half_width = views.shape[0] // 2, views.shape[1] // 2
    # The plane of acquisition is the large one.
    sagittal, right = views[:, :half_width], views[:, half_width:]
    axial, coronal = right[:half_height], right[half_height:]
    assert directions(axial, white) == {"top"}
    assert directions(axial, red) == {"right"}
    assert directions(coronal, white) == {"top"}
    assert directions(coronal, red) == {"right"}
    assert directions(sagittal, white) == {"left", "top"}
    assert directions(sagittal, red) == set()


def test_values_places_and_letters_are_written_for_those_who_cannot_see_them(
    phantom: Phantom, tmp_path: Path
) -> None:
    viewed = write_viewer(phantom.deployment, phantom.image_set_id, folder=tmp_path)
    place = MIDDLE + TURN @ CUBES["left"][0]
    document = browse(viewed.html, "#lps=" + ",".join(f"{mm:.3f}" for mm in place), "--dump-dom").decode()
    assert 'data-ready="yes"' in document
    readout = re.search(r'id="readout"[^>]*>([^<]*)<', document)
    assert readout is not None
    value, sides, _, segments = readout[1].split("\n")
    assert value == "1000 HU"
    assert segments == "left &lt;/script&gt; cube"
    told = dict(re.findall(r"([RLAPFH]) ([\d.]+)", sides))
    assert set(told) == {"L", "A", "H"}
    # A voxel's centre is at most half of its diagonal away.
    assert abs(float(told["L"]) - place[0]) < SPACING
    assert abs(float(told["A"]) + place[1]) < SPACING
    assert abs(float(told["H"]) - place[2]) < SPACING
    labels = re.findall(r'role="img" aria-label="([^"]*)"', document)
    assert [label.partition(":")[0] for label in labels] == [
        "Sagittal, oblique by 15 degrees",
        "Axial",
        "Coronal, oblique by 15 degrees",
    ]
    assert "Left of the picture AL, right PR, top H, bottom F." in labels[0]


def test_a_segmentation_can_be_left_out_and_must_be_one_of_the_series(
    phantom: Phantom, tmp_path: Path
) -> None:
    def view(image_set_id: str, segmentation: str | None) -> tuple[str, ...]:
        return write_viewer(
            phantom.deployment, image_set_id, segmentation=segmentation, folder=tmp_path
        ).segments

    assert view(phantom.image_set_id, NO_SEGMENTATION) == ()
    assert view(phantom.image_set_id, phantom.segmentation_id) == ("left </script> cube",)
    with pytest.raises(WorkbenchError, match="no segmentation of series"):
        view(phantom.image_set_id, phantom.image_set_id)
    with pytest.raises(WorkbenchError, match="is a segmentation of series"):
        view(phantom.segmentation_id, None)


def test_segments_that_overlap_are_both_there_and_can_be_told_apart() -> None:
    datasets, values, grid = source()
    one, other = values == CUBES["head"][1], values > 0
    dataset = segmentation_of(datasets, grid, [one, other], "head", "all")
    image_set: Any = SimpleNamespace(ref=SimpleNamespace(image_set_id="s"), datasets=lambda: [dataset])
    axes = PatientAxes.of(grid)
    shown = overlay([image_set], like=grid, axes=axes, factors=(1, 1, 1))
    assert shown.notes == ()
    for segment, mask in zip(shown.segments, (one, other), strict=True):
        assert np.array_equal(shown.layers[segment.layer] == segment.value, axes.turned(mask))
        assert segment.millilitres == pytest.approx(mask.sum() * SPACING**3 / 1000)
    assert shown.segments[0].colour != shown.segments[1].colour
    elsewhere = Geometry(np.eye(4), grid.shape)
    (note,) = overlay([image_set], like=elsewhere, axes=axes, factors=(1, 1, 1)).notes
    assert note.startswith("Segmentation s is not shown: ")


def test_who_may_not_search_is_told_that_segmentations_may_be_missing(
    phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "SearchImageSets")

    client = phantom.deployment.session.client("medical-imaging")
    monkeypatch.setattr(client, "search_image_sets", refused)
    viewed = write_viewer(phantom.deployment, phantom.image_set_id, folder=tmp_path)
    assert viewed.segments == ()
    assert len(viewed.notes) == 1
    assert viewed.notes[0] in viewed.html.read_text(encoding="utf-8")


def test_pages_are_readable_for_their_writer_alone_and_the_sheet_says_where_the_sides_are(
    phantom: Phantom, tmp_path: Path
) -> None:
    viewed = write_viewer(phantom.deployment, phantom.image_set_id, folder=tmp_path)
    sheet = show(phantom.deployment, phantom.image_set_id, folder=tmp_path)
    assert sheet.html is not None
    assert "left AL, right PR, top H, bottom F." in sheet.html.read_text(encoding="utf-8")
    assert {viewed.html, sheet.html, sheet.png} == set(tmp_path.iterdir())
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_the_person_is_not_in_the_page(phantom: Phantom, tmp_path: Path) -> None:
    viewed = write_viewer(phantom.deployment, phantom.image_set_id, folder=tmp_path)
    header = dcmread(str(get_testdata_file("CT_small.dcm")))
    text = viewed.html.read_text(encoding="utf-8")
    for keyword in ("PatientName", "PatientID", "StudyDate"):
        assert str(header[keyword].value) not in text
    asked = write_viewer(phantom.deployment, phantom.image_set_id, folder=tmp_path, patient=True)
    assert str(header.PatientID) in asked.html.read_text(encoding="utf-8")
