"""Labels that fit what a bundle learns, and what is said of those that do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from training_items import CountingReader, made_case

from healthimaging import Case
from training.data.cases import check_cases
from training.data.labels import check_labels, class_number
from training.errors import DataError

CLASSES = {"CN": 0, "AD": 1}
ORGANS = {"lung": 1}


def of_class(number: int, class_name: str, split: Any = "train") -> Case:
    return made_case(number, label=None, class_name=class_name, split=split)


def test_a_class_is_found_by_its_name_whatever_its_case() -> None:
    number = class_number(" ad", CLASSES, image_set_id="image-1")
    assert number.dtype == torch.long
    assert number.shape == ()
    assert int(number) == 1


def test_labels_that_fit_are_let_through() -> None:
    classes = [of_class(1, "cn"), of_class(2, "AD"), of_class(3, "AD", "validation")]
    check_labels(classes, CLASSES, classification=True, every_class=True)
    check_labels([made_case(1), made_case(2)], ORGANS, classification=False, every_class=True)


@pytest.mark.parametrize(
    ("cases", "channels", "classification", "said"),
    [
        (
            [of_class(1, "AD"), of_class(2, "CN"), made_case(3)],
            ORGANS,
            False,
            "2 of 3 cases have a class .'AD', 'CN'., and the bundle learns segmentations",
        ),
        (
            [of_class(1, "AD"), made_case(3)],
            CLASSES,
            True,
            "1 of 2 cases have a segmentation, and the bundle learns classes .'AD', 'CN'.",
        ),
        (
            [of_class(1, "AD"), of_class(2, "CN"), of_class(3, "MCI", "test")],
            CLASSES,
            True,
            "cases of class 'MCI'; the bundle has 'AD', 'CN'",
        ),
        (
            [of_class(1, "AD"), of_class(2, "AD"), of_class(3, "CN", "validation")],
            CLASSES,
            True,
            "No training case is of class 'CN' .there are: AD 2.",
        ),
        ([of_class(3, "CN", "test")], CLASSES, True, "there are: no case of any class"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_what_there_is(
    cases: list[Case], channels: dict[str, int], classification: bool, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        check_labels(cases, channels, classification=classification, every_class=True)


def test_an_evaluation_needs_no_case_of_every_class() -> None:
    check_labels([of_class(1, "AD", "test")], CLASSES, classification=True, every_class=False)


def test_a_case_without_a_label_is_listed() -> None:
    cases = [made_case(1, label=None), of_class(2, "AD"), made_case(3)]
    with pytest.raises(DataError, match="1 of 3 cases cannot be used: image set image-1: It has no label"):
        check_cases(cases, CountingReader())
