"""Datasets: pairs of image and label, split by patient, the same for the same seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthimaging.manifest import Manifest, patient_key
from workbench.catalog import SeriesRow
from workbench.dataset import build_manifest, default_sql
from workbench.errors import DatasetInvalid
from workbench.patient_split import split_patients

DATASTORE = "d" * 32


def series(
    name: str, *, study: str, patient: str, modality: str = "CT", datastore: str = DATASTORE
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
    )


def build(rows: list[SeriesRow], **options: float) -> Manifest:
    return build_manifest(
        rows,
        sql="SELECT",
        datastore_id=DATASTORE,
        seed=7,
        validation=options.get("validation", 0.0),
        test=options.get("test", 0.0),
        labelled_only=bool(options.get("labelled_only", True)),
    )


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


def test_fractions_must_leave_patients() -> None:
    with pytest.raises(DatasetInvalid, match="nothing to train on"):
        split_patients(["a", "b"], seed=0, validation=0.5, test=0.5)


def test_default_sql_quotes_what_it_is_given() -> None:
    sql = default_sql(patients=["O'Neil"], label_description="it's")
    assert "'O''Neil'" in sql
    assert "'it''s'" in sql
