"""Dataset manifests: which image set versions a model is trained, validated and tested on.

A manifest pins every image set to a version, so that reading it again gives the same pixels, and splits by
patient, so that no patient is on both sides of a measurement. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from healthimaging.errors import ManifestError
from healthimaging.reference import ImageSetRef

SCHEMA = "monai-on-aws/dataset-manifest/2"
"""What is written: version 2 knows classes and says where labels come from."""

_FIRST_SCHEMA = "monai-on-aws/dataset-manifest/1"
"""Still read: every case is labelled by a segmentation, or by nothing."""

Split = Literal["train", "validation", "test"]


def patient_key(patient_id: str) -> str:
    """A patient's name in manifests: the first 16 hexadecimal digits of SHA-256 of PatientID.

    It keeps the patient's data together and the identifier out of the file. It is no anonymisation: who
    knows the identifiers can compute the keys.
    """
    return hashlib.sha256(patient_id.encode("utf-8")).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One image, its label, and the side of the split that its patient is on.

    Attributes:
        patient_key: As `patient_key` makes it.
        split: The side of the split.
        image: The image set to look at.
        label: The image set with its segmentation.
        class_name: The class that the image belongs to as a whole, in place of a segmentation.

    Raises:
        ManifestError: Both a segmentation and a class, or a class without a name.
    """

    patient_key: str
    split: Split
    image: ImageSetRef
    label: ImageSetRef | None = None
    class_name: str | None = None

    def __post_init__(self) -> None:
        if self.class_name is None:
            return
        if self.label is not None:
            msg = "The case has a segmentation and a class; it may have one of both"
            raise ManifestError(msg, image_set_id=self.image.image_set_id)
        if not self.class_name.strip():
            msg = "The case's class has no name"
            raise ManifestError(msg, image_set_id=self.image.image_set_id)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A pinned data set.

    Attributes:
        query: The SQL that chose the images.
        datastore_id: The datastore that every image set lies in.
        seed: What the split was drawn with.
        cases: In the order in which they are read.
        statistics: Counts and sums of the data set, by name.
        labels: Where the labels come from, such as `{"kind": "segmentation"}`, or for classes
            `{"kind": "class", "source": "labels.csv", "sha256": "..."}`.
        schema: Name and version of the format.

    Raises:
        ManifestError: No cases, a patient in two splits, an image twice, or an image set of another
            datastore.
    """

    query: str
    datastore_id: str
    seed: int
    cases: tuple[Case, ...]
    statistics: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        object.__setattr__(self, "statistics", MappingProxyType(dict(self.statistics)))
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))
        if self.schema != SCHEMA:
            msg = f"Manifest schema is {self.schema!r}, this library writes {SCHEMA!r}"
            raise ManifestError(msg)
        if not self.cases:
            msg = "A manifest needs at least one case"
            raise ManifestError(msg)
        splits: dict[str, str] = {}
        images: set[str] = set()
        for case in self.cases:
            for ref in filter(None, (case.image, case.label)):
                if ref.datastore_id != self.datastore_id:
                    msg = f"The image set is of datastore {ref.datastore_id}, not {self.datastore_id}"
                    raise ManifestError(msg, image_set_id=ref.image_set_id)
            if splits.setdefault(case.patient_key, case.split) != case.split:
                msg = f"Patient {case.patient_key} is in {splits[case.patient_key]} and in {case.split}"
                raise ManifestError(msg, image_set_id=case.image.image_set_id)
            if case.image.image_set_id in images:
                msg = "The image set is in the manifest twice"
                raise ManifestError(msg, image_set_id=case.image.image_set_id)
            images.add(case.image.image_set_id)

    def split(self, split: Split) -> tuple[Case, ...]:
        """The cases of one side of the split."""
        return tuple(case for case in self.cases if case.split == split)

    def to_json(self) -> str:
        """The manifest as text; the same manifest always gives the same bytes."""
        document = {
            "schema": self.schema,
            "query": self.query,
            "datastoreId": self.datastore_id,
            "seed": self.seed,
            "labels": dict(self.labels),
            "statistics": dict(self.statistics),
            "cases": [
                {
                    "patientKey": case.patient_key,
                    "split": case.split,
                    "image": _ref_to_json(case.image),
                    "label": None if case.label is None else _ref_to_json(case.label),
                    "class": case.class_name,
                }
                for case in self.cases
            ],
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Reads a manifest strictly: a missing, unknown or mistyped key is an error that names it.

        A manifest of version 1 is read as one of version 2.

        Raises:
            ManifestError: The text is not a valid manifest.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            msg = "The manifest is not JSON"
            raise ManifestError(msg) from error
        schema = document.get("schema") if isinstance(document, dict) else None
        if isinstance(schema, str):
            # Before its keys, which another version may have others of.
            _require_known(schema)
        first = schema == _FIRST_SCHEMA
        fields = _object(
            document, "manifest", _MANIFEST_KEYS if first else {**_MANIFEST_KEYS, "labels": dict}
        )
        for name, number in fields["statistics"].items():
            if not isinstance(number, (int, float)) or isinstance(number, bool) or not math.isfinite(number):
                msg = f"statistics.{name} is not a finite number"
                raise ManifestError(msg)
        for name, told in fields.get("labels", {}).items():
            if not isinstance(told, str):
                msg = f"labels.{name} is not a string"
                raise ManifestError(msg)
        keys = _CASE_KEYS if first else {**_CASE_KEYS, "class": (str, type(None))}
        datastore_id = fields["datastoreId"]
        return cls(
            query=fields["query"],
            datastore_id=datastore_id,
            seed=fields["seed"],
            statistics=fields["statistics"],
            labels=fields.get("labels", {}),
            cases=tuple(
                _case(case, f"cases[{i}]", datastore_id, keys) for i, case in enumerate(fields["cases"])
            ),
        )


def _require_known(schema: str) -> None:
    if schema not in (SCHEMA, _FIRST_SCHEMA):
        msg = f"Manifest schema is {schema!r}, this library reads {SCHEMA!r} and {_FIRST_SCHEMA!r}"
        raise ManifestError(msg)


_Types = Mapping[str, type | tuple[type, ...]]
"""What the values of an object's keys must be."""

_MANIFEST_KEYS: _Types = {
    "schema": str,
    "query": str,
    "datastoreId": str,
    "seed": int,
    "statistics": dict,
    "cases": list,
}
_CASE_KEYS: _Types = {"patientKey": str, "split": str, "image": dict, "label": (dict, type(None))}


def _case(value: Any, where: str, datastore_id: str, keys: _Types) -> Case:
    fields = _object(value, where, keys)
    if fields["split"] not in get_args(Split):
        msg = f"{where}.split is {fields['split']!r}, not one of {', '.join(get_args(Split))}"
        raise ManifestError(msg)
    label = fields["label"]
    return Case(
        patient_key=fields["patientKey"],
        split=cast(Split, fields["split"]),
        image=_ref(fields["image"], f"{where}.image", datastore_id),
        label=None if label is None else _ref(label, f"{where}.label", datastore_id),
        class_name=fields.get("class"),
    )


def _ref(value: Any, where: str, datastore_id: str) -> ImageSetRef:
    fields = _object(value, where, {"imageSetId": str, "versionId": str})
    return ImageSetRef(
        datastore_id=datastore_id, image_set_id=fields["imageSetId"], version_id=fields["versionId"]
    )


def _ref_to_json(ref: ImageSetRef) -> dict[str, str]:
    return {"imageSetId": ref.image_set_id, "versionId": ref.version_id}


def _object(value: Any, where: str, types: _Types) -> dict[str, Any]:
    if not isinstance(value, dict):
        msg = f"{where} is not an object"
        raise ManifestError(msg)
    problems = [f"{where}.{key} is missing" for key in types if key not in value]
    problems += [f"{where}.{key} is unknown" for key in value if key not in types]
    problems += [
        f"{where}.{key} is a {type(value[key]).__name__}"
        for key, wanted in types.items()
        if key in value and (not isinstance(value[key], wanted) or isinstance(value[key], bool))
    ]
    if problems:
        raise ManifestError("; ".join(problems))
    return value
