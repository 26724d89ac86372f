"""What every way of serving takes from the rest of the platform."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns

from infra.assets.images import Image
from infra.data.archive import Archive
from infra.data.buckets import Buckets
from infra.environment import Environment
from infra.network.placement import Placement


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where endpoints are and what they work on."""

    environment: Environment
    archive: Archive
    buckets: Buckets
    key: kms.IKey
    image: Image
    """The inference image of this version of the repository. A model package brings the one that it was
    evaluated with."""
    placement: Placement
    alarm_topic: sns.ITopic
