"""What the viewer's page makes of headers: windows, units, MONOCHROME1, and text that would be markup.

Oracle of the windows: pydicom's own application of them.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, Sequence
from pydicom.pixels.processing import apply_windowing

from healthimaging.image_set_search import FoundImageSet
from healthimaging.reference import ImageSetRef
from workbench.contact_sheet import contact_sheet
from workbench.showing import segmentations
from workbench.showing.grey_values import CT_WINDOWS, GreyValues, grey_values
from workbench.showing.page import Scene, page
from workbench.showing.private_file import write_private
from workbench.showing.segmentations import Overlay, ShownSegment, segmentations_of

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HOSTILE = "</script></title><script>alert(1)</script><img src=x onerror=alert(2)> $title ${voxels} & \"'"
CT_NAMES = [name for name, _, _ in CT_WINDOWS]
VALUES = np.arange(-1000, 1000, dtype=np.int16).reshape(2, 20, 50)


def header(**attributes: Any) -> Dataset:
    made = Dataset()
    for keyword, value in {"PhotometricInterpretation": "MONOCHROME2", **attributes}.items():
        setattr(made, keyword, value)
    return made


def greys(one: Dataset, *, array: Any = VALUES, frame: int = 1) -> GreyValues:
    return grey_values([(one, frame)], array)


def scene(grey: GreyValues, *, text: str = "plain", array: Any = VALUES) -> Scene:
    segment = ShownSegment(
        label=text, image_set_id=text, colour=(255, 0, 0), millilitres=1.0, layer=0, value=1
    )
    return Scene(
        title=text,
        array=array,
        affine=np.eye(4),
        slice_axis=2,
        grey=grey,
        overlay=Overlay(layers=(np.zeros(array.shape, dtype=np.uint8),), segments=(segment,), notes=()),
        headers={"StudyDescription": text},
        notes=[text],
    )


def test_every_window_of_the_header_comes_before_the_presets_and_presets_are_for_ct() -> None:
    windows = {"WindowCenter": [40, -600], "WindowWidth": [400, 1500]}
    told = {"WindowCenterWidthExplanation": ["MEDIASTINUM", "LUNG"]}
    ct = greys(header(Modality="CT", RescaleSlope=1, RescaleIntercept=-1024, **windows, **told))
    assert [(one.name, one.centre, one.width, one.function) for one in ct.windows[:2]] == [
        ("Header: MEDIASTINUM", 40, 400, "LINEAR"),
        ("Header: LUNG", -600, 1500, "LINEAR"),
    ]
    assert [one.name for one in ct.windows[2:]] == [*CT_NAMES, "Percentiles 1 to 99", "All values"]
    assert ct.unit == "HU"
    mr = greys(header(Modality="MR", **windows))
    assert [one.name for one in mr.windows] == [
        *("Header: 1", "Header: 2", "Percentiles 1 to 99", "All values")
    ]
    assert mr.unit == ""
    # A window without any value in it would open a black page.
    black = greys(header(Modality="MR", WindowCenter=9000, WindowWidth=100))
    assert [one.name for one in black.windows] == ["Percentiles 1 to 99", "All values", "Header"]


@pytest.mark.parametrize(
    ("attributes", "unit"),
    [
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleType": "HU"}, "HU"),
        ({"Modality": "CT", "RescaleSlope": 1, "RescaleType": "Z_EFF"}, "Z_EFF"),
        ({"Modality": "CT"}, ""),
        ({"Modality": "MR", "RescaleSlope": 1, "RescaleType": "HU"}, ""),
        ({"Modality": "PT", "RescaleSlope": 2, "Units": "BQML"}, "Bq/ml"),
    ],
)
def test_values_have_the_unit_that_the_header_gives_them(attributes: dict[str, Any], unit: str) -> None:
    found = greys(header(**attributes))
    assert found.unit == unit
    assert ("Lung" in [one.name for one in found.windows]) == (unit == "HU")


def test_windows_of_frames_are_in_their_functional_groups() -> None:
    def groups(centre: float) -> Dataset:
        return header(FrameVOILUTSequence=Sequence([header(WindowCenter=centre, WindowWidth=80)]))

    scale = header(RescaleSlope=1, RescaleIntercept=0, RescaleType="HU")
    enhanced = header(
        Modality="CT",
        SharedFunctionalGroupsSequence=Sequence([header(PixelValueTransformationSequence=Sequence([scale]))]),
        PerFrameFunctionalGroupsSequence=Sequence([groups(30), groups(50)]),
    )
    assert [greys(enhanced, frame=frame).windows[0].centre for frame in (1, 2)] == [30, 50]
    assert greys(enhanced).unit == "HU"
    both = grey_values([(enhanced, 1), (enhanced, 2)], VALUES)
    assert any("Slices differ" in note for note in both.notes)


@pytest.mark.parametrize(
    ("function", "photometric"),
    [("LINEAR", "MONOCHROME2"), ("LINEAR_EXACT", "MONOCHROME1"), ("SIGMOID", "MONOCHROME1")],
)
def test_the_picture_is_as_bright_as_the_standard_has_it(
    function: str, photometric: str, tmp_path: Path
) -> None:
    if BROWSER is None:
        pytest.skip("there is no Chromium here")
    one = header(
        Modality="MR",
        PhotometricInterpretation=photometric,
        WindowCenter=20,
        WindowWidth=16,
        VOILUTFunction=function,
        BitsStored=8,
        PixelRepresentation=0,
    )
    array = np.full((8, 60, 60), 15, dtype=np.int16)
    array[:, :, 30:] = 23
    file = tmp_path / "page.html"
    write_private(file, page(scene(greys(one, array=array), array=array)).encode())
    subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'seen.png'}"),
            *("--virtual-time-budget=20000", "--window-size=1400,900", file.as_uri()),
        ],
        capture_output=True,
        check=True,
        timeout=120,
    )
    seen = np.asarray(Image.open(tmp_path / "seen.png").convert("L")).astype(int)
    # The axial plane is the left half of what is beside the controls (304 pixels).
    middle = (1400 - 304) // 4
    wanted = apply_windowing(np.array([15, 23], dtype=np.uint8), one)
    if photometric == "MONOCHROME1":
        wanted = 255 - wanted
    assert [seen[300, middle - 60], seen[300, middle + 60]] == pytest.approx(wanted, abs=2)


def test_text_of_headers_never_becomes_markup() -> None:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[str] = []
            self.text: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.append(tag)
            assert not [name for name, _ in attrs if name.startswith("on")]

        def handle_data(self, data: str) -> None:
            self.text.append(data)

    read = []
    for text in ("plain", HOSTILE):
        reader = Reader()
        reader.feed(page(scene(greys(header(Modality="MR")), text=text)))
        reader.close()
        read.append(reader)
    assert read[1].tags == read[0].tags
    # It is there as text: title, heading, header, note.
    assert "".join(read[1].text).count(HOSTILE) == 4


def test_only_its_writer_may_read_a_page_even_where_others_could_read_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "shown" / "page.html"
    file.parent.mkdir()
    file.write_text("before")
    file.chmod(0o644)
    write_private(file, b"after")
    assert file.read_bytes() == b"after"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_image_sets_that_nobody_looked_into_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ref = ImageSetRef(datastore_id="d" * 32, image_set_id="e" * 32, version_id="1")
    monkeypatch.setattr(
        segmentations, "find_image_sets", lambda *_, **__: [FoundImageSet(ref=ref, is_primary=False)]
    )
    found = segmentations_of(None, "d" * 32, study_instance_uid="1.2", series_instance_uid="1.2.3")
    assert found == ([], ["e" * 32])


def test_a_centre_keeps_its_own_width() -> None:
    own = greys(header(Modality="MR", WindowCenter=["", 50], WindowWidth=[400, 1500])).windows[0]
    assert (own.centre, own.width) == (50, 1500)


def test_the_contact_sheet_shows_low_values_of_monochrome1_bright() -> None:
    ramp = np.tile(np.arange(64.0), (2, 64, 1))
    plain, inverted = (
        np.asarray(
            Image.open(io.BytesIO(contact_sheet(ramp, spacing=(1, 1, 1), modality="DX", inverted=one))), int
        )
        for one in (False, True)
    )
    assert plain[0, 0] < plain[0, 120] < plain[0, 190]
    assert (inverted == 255 - plain).all()
