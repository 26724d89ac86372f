"""The table and the options against the standard's own table, as another project reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_has_tag, dictionary_VR

from arrival.deidentification.options import (
    DESCRIPTORS,
    DEVICE_IDENTITY,
    INSTITUTION_IDENTITY,
    NOT_SHIFTED,
    PATIENT_CHARACTERISTICS,
    REFERENCES,
    TIMES_KEPT_BESIDES,
)
from arrival.deidentification.profile import Profile
from arrival.deidentification.rules import Action, rule_of
from arrival.deidentification.table import TABLE, basic_action, table_version

COLUMNS = json.loads((Path(__file__).parent / "confidentiality_columns_2024b.json").read_text())["columns"]
NOTHING_RETAINED = Profile(
    shift_dates=False,
    clean_descriptors=False,
    retain_patient_characteristics=False,
    retain_safe_private=False,
)


def column(name: str) -> set[int]:
    return {int(tag, 16) for tag in COLUMNS[name].split()}


def test_the_librarys_table_agrees_with_another_reading_of_the_standard() -> None:
    for action, tags in COLUMNS["basicProfile"].items():
        for tag in tags.split():
            assert TABLE[int(tag, 16)] == action, tag
    assert basic_action(0x60023000) == "X"
    assert basic_action(0x00280010) is None
    assert table_version()["standard"] == "DICOM PS3.15 2026c Table E.1-1"


@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (DESCRIPTORS, "cleanDescOpt"),
        (DEVICE_IDENTITY, "rtnDevIdOpt"),
        (INSTITUTION_IDENTITY, "rtnInstIdOpt"),
        (PATIENT_CHARACTERISTICS, "rtnPatCharsOpt"),
        (REFERENCES, "rtnUIDsOpt"),
        (TIMES_KEPT_BESIDES, "rtnLongModifDatesOpt"),
    ],
)
def test_an_option_relaxes_no_attribute_that_the_standards_column_does_not_name(
    ours: frozenset[int], name: str
) -> None:
    assert ours - column(name) == set()


def test_dates_and_times_are_kept_by_kind_where_the_standards_column_says_so() -> None:
    column_2024b = column("rtnLongModifDatesOpt")
    known = {int(tag, 16) for tags in COLUMNS["basicProfile"].values() for tag in tags.split()}
    temporal = {
        tag
        for tag in TABLE
        if dictionary_has_tag(tag) and dictionary_VR(tag) in ("DA", "DT", "TM") and tag in known
    }
    assert temporal - column_2024b == NOT_SHIFTED


def test_without_options_every_attribute_of_the_table_is_changed() -> None:
    kept = {
        tag
        for tag in TABLE
        if dictionary_has_tag(tag)
        and rule_of(tag, dictionary_VR(tag), NOTHING_RETAINED).action is Action.KEEP
    }
    # Their items are treated one by one, and every UID in them is replaced.
    assert kept == REFERENCES
