"""Manifests: one text for one manifest, strict reading, and no patient on two sides."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from healthimaging import Case, ImageSetRef, Manifest
from healthimaging.errors import ManifestError
from healthimaging.manifest import patient_key

DATASTORE = "d" * 32


def ref(name: str, version: str = "1") -> ImageSetRef:
    return ImageSetRef(datastore_id=DATASTORE, image_set_id=name, version_id=version)


def case(
    name: str = "a",
    patient: str = "p",
    split: Any = "train",
    label: str | None = None,
    class_name: str | None = None,
) -> Case:
    return Case(
        patient_key=patient,
        split=split,
        image=ref(name),
        label=None if label is None else ref(label, "3"),
        class_name=class_name,
    )


def manifest(*cases: Case, **changed: Any) -> Manifest:
    made = {"query": "SELECT 1", "datastore_id": DATASTORE, "seed": 7, "cases": cases or (case(),), **changed}
    return Manifest(**made)


@given(
    st.lists(
        st.tuples(
            st.text(min_size=1, max_size=8),
            st.sampled_from(["train", "validation", "test"]),
            st.sampled_from(["segmentation", "class", "nothing"]),
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda item: item[0],
    ),
    st.text(),
    st.integers(),
    st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
    st.dictionaries(st.text(), st.text()),
)
def test_reading_gives_back_what_was_written(
    cases: list[tuple[str, Any, str]],
    query: str,
    seed: int,
    statistics: dict[str, float],
    labels: dict[str, str],
) -> None:
    made = manifest(
        *(
            case(
                name,
                name,
                split,
                label=name + "-label" if kind == "segmentation" else None,
                class_name="AD" if kind == "class" else None,
            )
            for name, split, kind in cases
        ),
        query=query,
        seed=seed,
        statistics=statistics,
        labels=labels,
    )
    assert Manifest.from_json(made.to_json()) == made
    assert Manifest.from_json(made.to_json()).to_json() == made.to_json()


def test_keys_are_camel_case() -> None:
    document = json.loads(manifest(case(label="l")).to_json())
    assert set(document) == {"schema", "query", "datastoreId", "seed", "labels", "statistics", "cases"}
    assert document["cases"][0] == {
        "patientKey": "p",
        "split": "train",
        "image": {"imageSetId": "a", "versionId": "1"},
        "label": {"imageSetId": "l", "versionId": "3"},
        "class": None,
    }


def test_a_manifest_of_the_first_version_is_read_and_written_as_the_second() -> None:
    made = manifest(case("a", "p", label="l"), case("b", "q", "test"))
    document = json.loads(made.to_json())
    document["schema"] = "monai-on-aws/dataset-manifest/1"
    del document["labels"]
    for written in document["cases"]:
        del written["class"]
    read = Manifest.from_json(json.dumps(document))
    assert read == made
    assert read.to_json() == made.to_json()


def test_the_first_version_knows_no_classes() -> None:
    document = json.loads(manifest(case(class_name="AD")).to_json())
    document["schema"] = "monai-on-aws/dataset-manifest/1"
    del document["labels"]
    with pytest.raises(ManifestError, match=r"cases\[0\]\.class is unknown"):
        Manifest.from_json(json.dumps(document))


def test_a_case_has_a_segmentation_or_a_class() -> None:
    with pytest.raises(ManifestError, match="one of both"):
        case(label="l", class_name="AD")
    with pytest.raises(ManifestError, match="no name"):
        case(class_name=" ")


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(manifest().to_json()), **fields})


def changed_case(**fields: Any) -> str:
    document = json.loads(manifest().to_json())
    document["cases"][0].update(fields)
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ("{}", r"manifest\.schema is missing; manifest\.query is missing"),
        (changed(extra=1), r"manifest\.extra is unknown"),
        (changed(seed="7"), r"manifest\.seed is a str"),
        (changed(seed=True), r"manifest\.seed is a bool"),
        (changed(schema="other/3"), "other/3"),
        (changed(schema="monai-on-aws/dataset-manifest/3", weights={}), r"manifest/3.*reads.*manifest/2"),
        (changed(statistics={"mean": float("nan")}), r"statistics\.mean is not a finite number"),
        (changed(statistics={"a": "x"}), r"statistics\.a"),
        (changed(cases=[]), "at least one"),
        (changed(cases=[1]), r"cases\[0\] is not an object"),
        (changed_case(split="train2"), r"cases\[0\]\.split"),
        (changed_case(image={"imageSetId": "a"}), r"cases\[0\]\.image\.versionId is missing"),
        (changed_case(label={"imageSetId": "a", "versionId": 1}), r"label\.versionId is a int"),
        (changed(labels={"kind": 1}), r"labels\.kind is not a string"),
        (changed(labels=[]), r"manifest\.labels is a list"),
        (changed_case(**{"class": 1}), r"cases\[0\]\.class is a int"),
        (changed_case(image=None), r"cases\[0\]\.image is a NoneType"),
    ],
)
def test_what_is_no_manifest_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        Manifest.from_json(text)


def test_patient_on_two_sides_is_leakage() -> None:
    with pytest.raises(ManifestError, match="train and in test"):
        manifest(case("a", "p", "train"), case("b", "p", "test"))


def test_image_twice_is_refused() -> None:
    with pytest.raises(ManifestError, match="twice"):
        manifest(case("a"), case("a"))


def test_image_set_of_another_datastore_is_refused() -> None:
    with pytest.raises(ManifestError, match="datastore"):
        manifest(case(), datastore_id="e" * 32)


def test_split() -> None:
    made = manifest(case("a", "p"), case("b", "q", "test"))
    assert [c.image.image_set_id for c in made.split("test")] == ["b"]
    assert made.split("validation") == ()


def test_patient_key_is_stable_and_short() -> None:
    assert patient_key("P1") == "fbeae7c18667b698"
    assert patient_key("P1") != patient_key("P2")
