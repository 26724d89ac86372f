"""The report and the summary: complete after a success, honest after a failure."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from workbench_result import findings, ingest_report, phantom, steps

from arrival.importing.job_output import FailedFile
from workbench.demo.findings import Findings, summary
from workbench.demo.line_chart import line_chart, nice_axis
from workbench.demo.planes import PIXEL_MM, orthogonal_planes
from workbench.demo.report import bars, duration, render_report
from workbench.errors import WorkbenchError
from workbench.ingest import IngestReport

VOID = {"meta", "br", "img"}


class Balance(HTMLParser):
    """Fails on tags that are closed in another order than they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """Open and closed at once."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_has_everything_and_needs_nothing() -> None:
    page = render_report(findings(), steps())
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert not re.findall(r'src="(?!data:)|<link|@import', page), "a self-contained page fetches nothing"
    assert re.findall(r'href="(?!data:)([^"]*)"', page) == [
        "evaluation/report.html",
        "evaluation/model-card.json",
    ], "it leads to what lies beside it"
    assert "<script" not in page
    for text in (
        "all 6 steps held",
        "0.931",
        "SELECT patient_id",
        "AWS::CloudTrail::Trail",
        "2.25.1",
        "before: the same again",
        "On 1 patient, held out: not seen in training.",
        "No intervals",
        "Nothing was approved before",
    ):
        assert text in page
    assert "DEMO-&lt;1&gt;" in page, "values of the catalog are text, not markup"


def test_summary_has_the_promised_keys() -> None:
    document = json.loads(json.dumps(summary(findings(), steps())))
    assert document["ok"] is True
    assert document["steps"][0] == {"name": "Start the local cloud", "ok": True, "seconds": 3.4}
    assert document["dice"] == 0.931
    assert set(document["segmentation"]) == {
        "seriesInstanceUid",
        "sopInstanceUid",
        "imageSetId",
        "isPrimary",
        "s3Uri",
    }
    assert (document["evaluation"]["heldOut"], document["evaluation"]["patients"]) == (True, 1)
    assert document["evaluation_files"]["report"] == "evaluation/report.html"
    assert document["model_card"] == "Draft"
    assert document["recorded_only"][1] == "AWS::CloudTrail::Trail"
    assert document["counts"]["imported_files"] == 48
    assert [one["mode"] for one in document["in_service"]] == ["asynchronous", "real-time"]
    assert [(one["way"], one["storedAnew"]) for one in document["ways"]] == [
        ("asynchronous request", True),
        ("real-time request", False),
    ]


def test_a_failure_is_the_first_thing_that_one_reads() -> None:
    result = Findings(environment="local", started="2026-01-02T03:04:05+00:00", minimum_dice=0.85)
    result.error = WorkbenchError("Port 4566 is taken.", advice="Stop the other one.", details=["line <1>"])
    result.failed_step = "Start the local cloud"
    page = render_report(result, steps(failed="Start the local cloud"))
    assert "✗ Start the local cloud" in page
    assert "Port 4566 is taken." in page
    assert "Stop the other one." in page
    assert "line &lt;1&gt;" in page
    assert "What the model found" not in page
    assert "Every way" not in page
    assert "picture for readers" not in page
    document = summary(result, steps(failed="Start the local cloud"))
    assert (document["ok"], document["failed_step"], document["dice"]) == (
        False,
        "Start the local cloud",
        None,
    )


def test_failed_files_are_named() -> None:
    result = findings()
    good = ingest_report()
    result.ingest = IngestReport(
        datastore_id=good.datastore_id,
        jobs=good.jobs,
        imported=good.imported,
        failed=(FailedFile(file="in/broken.dcm", kind="ParseError", reason="cut short"),),
        skipped=(),
        warnings=(),
    )
    page = render_report(result, steps())
    assert "in/broken.dcm" in page
    assert "1 file failed" in page


def test_planes_have_true_proportions_and_radiological_sides() -> None:
    volume, geometry, masks = phantom()
    axial, coronal, sagittal = orthogonal_planes(volume, geometry, masks)
    assert (axial.left, axial.right, axial.top, axial.bottom) == ("R", "L", "A", "P")
    assert (coronal.left, coronal.right, coronal.top, coronal.bottom) == ("R", "L", "H", "F")
    assert (sagittal.left, sagittal.right, sagittal.top, sagittal.bottom) == ("A", "P", "H", "F")
    assert axial.width == coronal.width
    assert coronal.height == sagittal.height
    # 36 slices of 5 mm hold a mask; the margin is cut by the volume's end at 200 mm.
    assert coronal.height == pytest.approx(200 / PIXEL_MM, abs=1)
    picture = Image.open(io.BytesIO(base64.b64decode(coronal.png)))
    assert picture.size == (coronal.width, coronal.height)


def test_head_is_up_whatever_the_slice_order() -> None:
    volume, geometry, masks = phantom()
    volume[30:] = 500  # towards the head
    picture = Image.open(io.BytesIO(base64.b64decode(orthogonal_planes(volume, geometry, masks)[1].png)))
    grey = np.asarray(picture, dtype=float)
    assert grey[:40].mean() > grey[-40:].mean()


def test_contours_lie_around_the_mask() -> None:
    volume, geometry, masks = phantom()
    axial = orthogonal_planes(volume, geometry, masks)[0]
    numbers = [float(one) for one in re.findall(r"[\d.]+", axial.contours["reference"])]
    xs = numbers[0::2]
    # Two lungs, 144 mm from the outer border of one to that of the other.
    assert (max(xs) - min(xs)) * PIXEL_MM == pytest.approx(144, abs=2)
    assert axial.contours["reference"].count("M") == 2


def test_empty_masks_make_pictures_too() -> None:
    volume, geometry, masks = phantom()
    planes = orthogonal_planes(volume, geometry, {name: mask & False for name, mask in masks.items()})
    assert all(plane.contours["prediction"] == "" for plane in planes)


def test_bars_follow_each_other() -> None:
    found = bars(steps())
    assert found[0].left == 0
    assert found[-1].left + found[-1].width == pytest.approx(100)
    assert found[1].left == pytest.approx(found[0].width)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.37), (0, 120), (3, 3), (-2, 5)])
def test_axes_are_round_and_cover(low: float, high: float) -> None:
    axis = nice_axis(low, high, most=5)
    assert axis.low <= low
    assert axis.high >= high
    assert 2 <= len(axis.ticks) <= 8


def test_chart_without_points_says_so() -> None:
    assert "No values of loss &lt;x&gt;" in line_chart([], label="loss <x>", colour="#000")


def test_duration() -> None:
    assert (duration(42.4), duration(125)) == ("42 s", "2 min 5 s")
