"""The request to an endpoint: one image set, or a list of them under ``inputs``.

Accepted as well is how a notebook of AWS's MONAI workshop (aws-samples/monai-on-aws-workshop, NIMonSageMaker)
names an image set: ``{"image": "ahi://DATASTORE/IMAGE_SET"}``. Its other notebooks send the promised forms.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from runtime.errors import InvalidRequestError

MAXIMUM_INPUTS = 100
"""Image sets in one request: bounds how long one request can hold the worker."""

_Identifier = Annotated[str, Field(pattern=r"^[0-9a-z]{32}$")]
"""Identifier of a datastore or an image set (AWS HealthImaging API reference)."""


def _version_as_text(value: object) -> object:
    # Event documents and hand-written requests carry the version as a number; the API wants text.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class ImageSetInput(BaseModel):
    """One image set to segment; without ``versionId`` its latest version."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )

    datastore_id: _Identifier
    image_set_id: _Identifier
    version_id: Annotated[
        Annotated[str, Field(pattern=r"^[0-9]{1,19}$")] | None, BeforeValidator(_version_as_text)
    ] = None


class _Image(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    image: Annotated[str, Field(pattern=r"^ahi://[0-9a-z]{32}/[0-9a-z]{32}$")]


class _Inputs(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    inputs: Annotated[list[ImageSetInput], Field(min_length=1, max_length=MAXIMUM_INPUTS)]


def parse_request(body: bytes) -> tuple[ImageSetInput, ...]:
    """Read ``{"datastoreId", "imageSetId", "versionId"?}``, ``{"inputs": [those]}`` or the workshop's form.

    Raises
    ------
    InvalidRequestError
        With every field that is wrong, named by its place; values are not repeated.
    """
    document = read_json(body)
    if not isinstance(document, dict):
        raise InvalidRequestError("the body must be a JSON object")
    try:
        if "inputs" in document:
            return tuple(_Inputs.model_validate(document).inputs)
        if "image" in document:
            datastore_id, image_set_id = (
                _Image.model_validate(document).image.removeprefix("ahi://").split("/")
            )
            return (ImageSetInput(datastore_id=datastore_id, image_set_id=image_set_id),)
        return (ImageSetInput.model_validate(document),)
    except ValidationError as error:
        raise InvalidRequestError(explain(error)) from error


def read_json(body: bytes) -> Any:
    """Read a JSON document.

    Raises
    ------
    InvalidRequestError
        When it is none, or names a member twice: which of the two image sets is meant would be a guess.
    """
    try:
        return json.loads(body, object_pairs_hook=_members)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the body is not a JSON document in UTF-8") from error


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise InvalidRequestError("an object of the body has a member twice")
    return members


def explain(error: ValidationError) -> str:
    """Say what is wrong with which member. Values are not repeated, nor are names that we do not know."""
    return "; ".join(_explain(detail) for detail in error.errors())


def _explain(detail: Any) -> str:
    place = [str(part) for part in detail["loc"]]
    if detail["type"] == "extra_forbidden":
        place[-1] = "a member that is not known"
    return f"{'.'.join(place)}: {detail['msg']}"
