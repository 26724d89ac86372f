"""Identifiers and ARNs of HealthImaging resources."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

_ARN = re.compile(
    r"arn:aws:medical-imaging:(?P<region>[a-z0-9-]+):(?P<account>\d{12})"
    r":datastore/(?P<datastore>[0-9a-z]{32})(/imageset/(?P<image_set>[0-9a-z]{32}))?"
)


def new_id() -> str:
    """A fresh identifier as HealthImaging makes them: 32 characters of [0-9a-f]."""
    return uuid.uuid4().hex


@dataclass(frozen=True, kw_only=True)
class Arns:
    """Builds the ARNs of one account and region."""

    account_id: str
    region: str

    def datastore(self, datastore_id: str) -> str:
        """`arn:aws:medical-imaging:{region}:{account}:datastore/{id}`."""
        return f"arn:aws:medical-imaging:{self.region}:{self.account_id}:datastore/{datastore_id}"

    def image_set(self, datastore_id: str, image_set_id: str) -> str:
        """The datastore's ARN followed by `/imageset/{id}` (lower-case s, as AWS writes it)."""
        return f"{self.datastore(datastore_id)}/imageset/{image_set_id}"


@dataclass(frozen=True, kw_only=True)
class ParsedArn:
    """What an ARN of HealthImaging names: a datastore, or an image set in it."""

    datastore_id: str
    image_set_id: str | None


def parse_arn(arn: str) -> ParsedArn | None:
    """The resource that `arn` names, or None where it is not an ARN of HealthImaging."""
    match = _ARN.fullmatch(arn)
    if match is None:
        return None
    return ParsedArn(datastore_id=match["datastore"], image_set_id=match["image_set"])
