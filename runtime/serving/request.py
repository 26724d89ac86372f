"""The request to an endpoint: one image set, or a list of them under ``inputs``."""

from __future__ import annotations

import json
from typing import Annotated

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


class _Inputs(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    inputs: Annotated[list[ImageSetInput], Field(min_length=1, max_length=MAXIMUM_INPUTS)]


def parse_request(body: bytes) -> tuple[ImageSetInput, ...]:
    """Read ``{"datastoreId", "imageSetId", "versionId"?}`` or ``{"inputs": [those]}``.

    Raises
    ------
    InvalidRequestError
        With every field that is wrong, named by its place; values are not repeated.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the body is not a JSON document in UTF-8") from error
    if not isinstance(document, dict):
        raise InvalidRequestError("the body must be a JSON object")
    try:
        if "inputs" in document:
            return tuple(_Inputs.model_validate(document).inputs)
        return (ImageSetInput.model_validate(document),)
    except ValidationError as error:
        raise InvalidRequestError(_explain(error)) from error


def _explain(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in detail['loc'])}: {detail['msg']}" for detail in error.errors()
    )
