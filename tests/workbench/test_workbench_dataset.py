"""Datasets: pairs of image and label, split by patient, the same for the same seed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_workbench_query import FakeAthena
from workbench_fakes import FakeS3, deployment

from healthimaging.manifest import Manifest, patient_key
from workbench.catalog import REQUIRED, SeriesRow
from workbench.datasets.class_table import ClassTable, read_class_table
from workbench.datasets.make import BuiltManifest, Division, build_manifest, make_dataset, store_manifest
from workbench.datasets.patient_split import Stratum, split_patients
from workbench.datasets.selection import default_sql
from workbench.errors import DatasetInvalid, WorkbenchError
from workbench.query import Value

DATASTORE = "d" * 32


def series(
    name: str,
    *,
    study: str,
    patient: str,
    modality: str = "CT",
    datastore: str = DATASTORE,
    **attributes: Value,
) -> SeriesRow:
    return SeriesRow(
        datastore_id=datastore,
        image_set_id=name,
        version_id=2,
        is_primary=True,
        patient_id=patient,
        study_instance_uid=study,
        series_instance_uid=f"1.{name}",
        modality=modality,
        attributes=attributes,
    )


def built(
    rows: list[SeriesRow], *, table: ClassTable | None = None, labelled_only: bool = True, **division: Any
) -> BuiltManifest:
    return build_manifest(
        rows,
        sql="SELECT",
        datastore_id=DATASTORE,
        table=table,
        division=Division(**{"seed": 7, "validation": 0.0, **division}),
        labelled_only=labelled_only,
    )


def build(rows: list[SeriesRow], **options: Any) -> Manifest:
    return built(rows, **options).manifest


def test_label_is_the_segmentation_of_the_same_study() -> None:
    manifest = build(
        [
            series("ct1", study="1", patient="p"),
            series("seg1", study="1", patient="p", modality="SEG"),
            series("ct2", study="2", patient="q"),
        ]
    )
    [case] = manifest.cases
    assert case.label is not None
    assert (case.image.image_set_id, case.image.version_id) == ("ct1", "2")
    assert (case.label.image_set_id, case.label.version_id) == ("seg1", "2")
    assert case.patient_key == patient_key("p")
    assert "p" not in manifest.statistics
    assert manifest.statistics["labelled"] == 1


def test_images_without_a_label_on_request() -> None:
    manifest = build([series("ct2", study="2", patient="q")], labelled_only=False)
    assert manifest.cases[0].label is None


@pytest.mark.parametrize(
    "more",
    [
        series("seg2", study="1", patient="p", modality="SEG"),
        series("ct9", study="1", patient="p"),
    ],
)
def test_an_uncertain_pair_is_refused(more: SeriesRow) -> None:
    rows = [
        series("ct1", study="1", patient="p"),
        series("seg1", study="1", patient="p", modality="SEG"),
        more,
    ]
    with pytest.raises(DatasetInvalid, match="not certain"):
        build(rows)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DatasetInvalid, match="no image series"):
        build([series("ct1", study="1", patient="p", datastore="another")])


def test_a_series_without_patient_id_is_refused_by_uid() -> None:
    rows = [series("ct1", study="1", patient=""), series("s", study="1", patient="", modality="SEG")]
    with pytest.raises(DatasetInvalid, match=r"1\.ct1"):
        build(rows)


def test_all_series_of_a_patient_are_on_one_side() -> None:
    rows = [
        row
        for number in range(12)
        for row in (
            series(f"ct{number}", study=str(number), patient=f"p{number // 3}"),
            series(f"seg{number}", study=str(number), patient=f"p{number // 3}", modality="SEG"),
        )
    ]
    manifest = build(rows, validation=0.25, test=0.25)
    sides: dict[str, set[str]] = {}
    for case in manifest.cases:
        sides.setdefault(case.patient_key, set()).add(case.split)
    assert all(len(one) == 1 for one in sides.values())
    assert manifest.statistics["trainPatients"] == 2
    assert manifest.statistics["testPatients"] == 1
    assert manifest == build(rows[::-1][::-1], validation=0.25, test=0.25)


@given(
    keys=st.sets(st.text(min_size=1), min_size=1, max_size=40),
    seed=st.integers(),
    validation=st.floats(0, 0.49),
    test=st.floats(0, 0.49),
)
def test_split_keeps_a_patient_to_train_on(keys: set[str], seed: int, validation: float, test: float) -> None:
    splits = split_patients(keys, seed=seed, validation=validation, test=test)
    assert set(splits) == keys
    assert "train" in splits.values()
    assert splits == split_patients(sorted(keys), seed=seed, validation=validation, test=test)
    if len(keys) >= 3 and test > 0:
        assert "test" in splits.values()


def test_one_patient_is_trained_on() -> None:
    assert split_patients(["a"], seed=0, validation=0.5) == {"a": "train"}


@pytest.mark.parametrize("validation", [0.5, -0.1, float("nan")])
def test_fractions_must_leave_patients(validation: float) -> None:
    with pytest.raises(DatasetInvalid, match="nothing to train on"):
        split_patients(["a", "b"], seed=0, validation=validation, test=0.5)


def test_default_sql_quotes_what_it_is_given() -> None:
    sql = default_sql(patients=["O'Neil"], label_description="it's")
    assert "'O''Neil'" in sql
    assert "'it''s'" in sql
    assert "SEG" not in default_sql(segmentations=False)


def test_what_is_said_about_images_is_no_image() -> None:
    rows = [
        series("ct1", study="1", patient="p"),
        series("seg1", study="1", patient="p", modality="SEG"),
        series("report", study="1", patient="p", modality="SR"),
        series("snapshot", study="1", patient="p", modality="OT"),
    ]
    assert [case.image.image_set_id for case in build(rows).cases] == ["ct1"]


def people(classes: dict[str, int], **attributes: Value) -> list[SeriesRow]:
    """As many patients of each class as `classes` says; a study UID begins with its class's number."""
    return [
        series(f"{name}{number}", study=f"{index}.{number}", patient=f"{name}{number}", **attributes)
        for index, (name, count) in enumerate(classes.items())
        for number in range(count)
    ]


def table_of(rows: list[SeriesRow]) -> ClassTable:
    lines = [f"{row.study_instance_uid},{row.patient_id.rstrip('0123456789')}" for row in rows]
    text = "\n".join(["study_instance_uid,class", *lines])
    return read_class_table(text.encode(), source="labels.csv")


def test_classes_come_from_the_table_and_are_on_every_side() -> None:
    rows = people({"AD": 4, "CN": 20, "MCI": 1}, number_of_frames=60, pixel_spacing="[0.5, 0.75]")
    table = table_of(rows)
    made = built(rows, table=table, validation=0.2, test=0.2)
    manifest = made.manifest
    assert dict(manifest.labels) == {"kind": "class", "source": "labels.csv", "sha256": table.sha256}
    assert all(case.label is None and case.class_name is not None for case in manifest.cases)
    numbers = manifest.statistics
    assert [numbers[f"{split}Class:AD"] for split in ("train", "validation", "test")] == [2, 1, 1]
    assert [numbers[f"{split}Class:CN"] for split in ("train", "validation", "test")] == [12, 4, 4]
    assert (numbers["trainClass:MCI"], numbers["trainClassPatients:MCI"]) == (1, 1)
    assert made.warnings == (
        "No case of class MCI in validation: its score there says nothing about it",
        "No case of class MCI in test: its score there says nothing about it",
    )
    assert (numbers["slices:smallest"], numbers["slices:largest"]) == (60, 60)
    assert (numbers["rowSpacingMm:largest"], numbers["columnSpacingMm:smallest"]) == (0.5, 0.75)
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_side_that_nobody_is_left_for_is_told() -> None:
    rows = people({"AD": 1, "CN": 1})
    made = built(rows, table=table_of(rows), validation=0.2, test=0.5)
    assert [case.split for case in made.manifest.cases] == ["train", "train"]
    assert made.warnings == (
        "No patient is left for validation: each class needs one to train on first",
        "No patient is left for test: each class needs one to train on first",
    )


def test_a_table_and_a_query_that_differ_are_told() -> None:
    rows = people({"AD": 2, "CN": 2})
    table = table_of([*rows[1:], series("x", study="9.9", patient="CN7")])
    made = built(rows, table=table)
    assert len(made.manifest.cases) == 3
    assert made.warnings == (
        "1 study of the query without a row in labels.csv: 0.0",
        "1 study of labels.csv not in the query: 9.9",
    )
    assert len(build(rows, table=table, labelled_only=False).cases) == 4
    with pytest.raises(DatasetInvalid, match="None of the 1 study of the query is in labels"):
        build([series("y", study="7.7", patient="p")] * 4, table=table_of(rows))


def test_a_class_of_a_study_with_two_image_series_is_not_guessed() -> None:
    rows = [*people({"AD": 2, "CN": 2}), series("second", study="0.1", patient="AD1")]
    with pytest.raises(DatasetInvalid, match=r"several: 0\.1") as caught:
        build(rows, table=table_of(rows[:4]))
    assert caught.value.details == ("0.1: 1.AD1, 1.second",)


def test_strata_are_spread_within_each_class() -> None:
    rows = [
        series(
            f"{name}{number}",
            study=f"{index}.{number}",
            patient=f"{name}{number}",
            patient_sex="F" if number % 4 else "M",
        )
        for index, name in enumerate(("AD", "CN"))
        for number in range(20)
    ]
    manifest = build(rows, table=table_of(rows), test=0.2, stratify=["patient_sex"])
    sexes = {row.image_set_id: (row.patient_id[:2], row.attributes["patient_sex"]) for row in rows}
    tested = sorted(sexes[case.image.image_set_id] for case in manifest.split("test"))
    assert tested == [("AD", "F")] * 3 + [("AD", "M")] + [("CN", "F")] * 3 + [("CN", "M")]


def test_a_stratum_that_is_too_small_is_told_and_persons_are_none() -> None:
    rows = people({"AD": 5, "CN": 5}, manufacturer="A")
    odd = series("AD9", study="0.9", patient="AD9", manufacturer="B")
    made = built([*rows, odd], table=table_of([*rows, odd]), test=0.2, stratify=["manufacturer"], seed=1)
    assert any("Stratum 'B' has 1 patient, none of them in t" in one for one in made.warnings)
    with pytest.raises(DatasetInvalid, match="another value"):
        build(rows, table=table_of(rows), stratify=["patient_id"])
    with pytest.raises(DatasetInvalid, match="no column sex"):
        build(rows, table=table_of(rows), stratify=["sex"])


def pairs(*patients: str) -> list[SeriesRow]:
    return [
        row
        for number, patient in enumerate(patients)
        for row in (
            series(f"ct{number}", study=str(number), patient=patient),
            series(f"seg{number}", study=str(number), patient=patient, modality="SEG"),
        )
    ]


def test_named_patients_are_where_they_were_put() -> None:
    rows = pairs("a", "b", "c")
    manifest = build(rows, test_patients=["b"], validation_patients=["c"])
    sides = {case.patient_key: case.split for case in manifest.cases}
    assert sides == {patient_key("a"): "train", patient_key("b"): "test", patient_key("c"): "validation"}
    with pytest.raises(DatasetInvalid, match=patient_key("z")) as caught:
        build(rows, test_patients=["z"])
    assert "'z'" not in str(caught.value), "the identifier stays out of messages"
    with pytest.raises(DatasetInvalid, match="for validation and for the test"):
        build(rows, test_patients=["a"], validation_patients=["a"])
    with pytest.raises(DatasetInvalid, match="nothing is left to train on"):
        build(rows, test_patients=["a", "b", "c"])


@given(
    classes=st.dictionaries(st.sampled_from("ABC"), st.integers(1, 12), min_size=1),
    seed=st.integers(),
    test=st.floats(0, 0.49),
    validation=st.floats(0, 0.49),
)
def test_each_class_is_trained_on_and_tested_where_it_can_be(
    classes: dict[str, int], seed: int, test: float, validation: float
) -> None:
    patients = {
        f"{name}{number}": Stratum(group=name, within=str(number % 3))
        for name, count in classes.items()
        for number in range(count)
    }
    splits = split_patients(patients, seed=seed, test=test, validation=validation)
    backwards = dict(reversed(patients.items()))
    assert splits == split_patients(backwards, seed=seed, test=test, validation=validation)
    for name, count in classes.items():
        sides = [splits[key] for key in patients if key.startswith(name)]
        assert "train" in sides
        assert ("test" in sides) == (test > 0 and count > 1)
        assert sides.count("test") <= max(1, count * test)


def test_the_same_data_set_is_stored_once_and_nothing_is_overwritten(tmp_path: Any) -> None:
    rows = [[DATASTORE, f"i{n}", "1", "true", f"P{n}", f"1.{n}", f"2.{n}", "CT"] for n in range(4)]
    page = {
        "ResultSet": {
            "ResultSetMetadata": {"ColumnInfo": [{"Name": name, "Type": "varchar"} for name in REQUIRED]},
            "Rows": [{"Data": [{"VarCharValue": cell} for cell in row]} for row in rows],
        }
    }
    labels = tmp_path / "labels.csv"
    labels.write_text("Study Instance UID;Label\n1.0;AD\n1.1;CN\n1.2;AD\n1.3;CN\n")
    s3 = FakeS3()
    said: list[str] = []

    def make() -> str:
        athena = FakeAthena([page], ["SUCCEEDED"])
        return make_dataset(
            deployment(athena=athena, s3=s3), "SELECT", name="demo", labels=labels, progress=said.append
        ).uri

    uri = make()
    body = s3.objects[uri.removeprefix("s3://")]
    assert hashlib.sha256(body).hexdigest()[:16] in uri
    assert make() == uri
    assert len(s3.objects) == 1
    assert any("cases in s3://" in line for line in said)
    s3.objects[uri.removeprefix("s3://")] = b"somebody else's"
    with pytest.raises(WorkbenchError, match="another content"):
        store_manifest(deployment(s3=s3), Manifest.from_json(body), name="demo")
