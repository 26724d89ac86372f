"""The region, where only `AWS_REGION` names it."""

from __future__ import annotations

from collections.abc import MutableMapping

_REGION = "AWS_REGION"
_READ_BY_BOTO3 = "AWS_DEFAULT_REGION"


def adopt_region(environment: MutableMapping[str, str]) -> None:
    """Gives boto3 the region of `AWS_REGION` where it has no other.

    AWS's services and other SDKs set and read `AWS_REGION`; boto3 reads `AWS_DEFAULT_REGION` alone ("AWS SDKs
    and Tools Reference Guide", AWS Region). To be called before a client is made.

    Args:
        environment: Of the process; an empty value counts as none.
    """
    region = environment.get(_REGION)
    if region and not environment.get(_READ_BY_BOTO3):
        environment[_READ_BY_BOTO3] = region
