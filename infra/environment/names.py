"""Names in environment files, and what becomes of them in templates."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=32)]
"""Lower-case words joined by hyphens. Becomes part of resource names and, in Pascal case, of stack output
names.
"""

AccountId = Annotated[str, Field(pattern=r"^[0-9]{12}$")]


class Section(BaseModel):
    """A table of an environment file. Keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def pascal_case(slug: str) -> str:
    """`LungSegmentation` of `lung-segmentation`: the form that CloudFormation's logical ids need."""
    return "".join(word.capitalize() for word in slug.split("-"))
