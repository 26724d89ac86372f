"""Tables of labels: what spreadsheets write is read; what is wrong is named by line, never by content."""

from __future__ import annotations

import pytest
from workbench_fakes import FakeS3, deployment

from workbench.datasets.class_table import open_class_table, read_class_table
from workbench.errors import DatasetInvalid


@pytest.mark.parametrize(
    "text",
    [
        "study_instance_uid,class\n1.2,AD\n1.3,CN\n",
        "\ufeffAge;StudyInstanceUID;Label\r\n70;1.2;AD\r\n71;1.3;CN\r\n;;\r\n",
        'Label\tStudy Instance UID\n"AD"\t 1.2 \n CN\t1.3',
    ],
)
def test_what_spreadsheets_write_is_understood(text: str) -> None:
    table = read_class_table(text.encode(), source="t.csv")
    assert dict(table.classes) == {"1.2": "AD", "1.3": "CN"}
    assert table.warnings == ()
    assert len(table.sha256) == 64


def test_columns_can_be_named() -> None:
    content = b"uid,group,class\n1.2,0,x\n1.3,1,y\n"
    table = read_class_table(content, source="t.csv", study_column="uid", class_column="group")
    assert dict(table.classes) == {"1.2": "0", "1.3": "1"}
    with pytest.raises(DatasetInvalid, match="no columns called") as caught:
        read_class_table(content, source="t.csv")
    assert "--study-column" in caught.value.advice
    assert "uid, group, class" in caught.value.advice
    with pytest.raises(DatasetInvalid, match="2 columns called"):
        read_class_table(b"study_instance_uid,class,label\n", source="t.csv")
    with pytest.raises(DatasetInvalid, match="no columns 'x'"):
        read_class_table(content, source="t.csv", study_column="x")


def test_every_problem_is_said_at_once_by_line_and_without_what_cells_hold() -> None:
    text = "study_instance_uid,class\n1.2,AD\nDoe^Jane,CN\n1.4,\n1.5\n1.2,CN\n1.6,CN\n"
    with pytest.raises(DatasetInvalid, match="4 problems") as caught:
        read_class_table(text.encode(), source="t.csv")
    said = "\n".join([caught.value.message, *caught.value.details])
    for words in (
        "line 3 has no Study Instance UID",
        "line 4 has no class",
        "line 5 has 1 cells",
        "lines 2 and 6 give study 1.2 different classes",
    ):
        assert words in said
    assert "Doe" not in said


def test_a_line_that_repeats_another_is_a_warning() -> None:
    table = read_class_table(b"study_instance_uid,class\n1.2,AD\n1.3,CN\n1.2,AD\n", source="t.csv")
    assert table.warnings == ("1 lines of t.csv repeat a study and its class: 4",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"study_instance_uid,class\n1.2,\xff\n", "UTF-8"),
        (b"study_instance_uid,class\n1.2,AD\n1.3,AD\n", "a classifier needs two"),
        (b'study_instance_uid,class\n1.2,"AD\n', "line 2"),
    ],
)
def test_what_is_no_table_of_classes(content: bytes, words: str) -> None:
    with pytest.raises(DatasetInvalid, match=words) as caught:
        read_class_table(content, source="t.csv")
    assert caught.value.advice


def test_a_table_without_a_header_line_is_refused_without_its_first_patient() -> None:
    with pytest.raises(DatasetInvalid, match="begins with a line of data") as caught:
        read_class_table(b"1.2,Doe^Jane,AD\n1.3,Roe^John,CN\n", source="t.csv")
    assert "Doe" not in f"{caught.value.message} {caught.value.advice} {caught.value.details}"


def test_a_table_lies_in_s3_too() -> None:
    s3 = FakeS3({"labels/t.csv": b"study_instance_uid,class\n1.2,AD\n1.3,CN\n"})
    table = open_class_table(deployment(s3=s3), "s3://labels/t.csv")
    assert (table.source, len(table.classes)) == ("s3://labels/t.csv", 2)
