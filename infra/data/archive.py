"""The archive: an AWS HealthImaging data store, and ARNs of what is in it."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_healthimaging as healthimaging
from aws_cdk import aws_kms as kms
from constructs import Construct

DATASTORE_TYPE = "AWS::HealthImaging::Datastore"
"""Name, key and tags of this type are create-only: any change of them replaces the data store."""


class Archive(Construct):
    """The data store that holds every image of an environment.

    It is retained whatever happens to its stack, its name is constant and it has no tags: a tag that changes
    would make CloudFormation create an empty data store beside the full one and forget the latter.
    """

    def __init__(self, scope: Construct, id: str, *, name: str, key: kms.IKey) -> None:
        super().__init__(scope, id)
        self._datastore = healthimaging.CfnDatastore(
            self, "Datastore", datastore_name=name, kms_key_arn=key.key_arn
        )
        self._datastore.apply_removal_policy(cdk.RemovalPolicy.RETAIN)

    @property
    def datastore_id(self) -> str:
        return self._datastore.attr_datastore_id

    @property
    def datastore_arn(self) -> str:
        return self._datastore.attr_datastore_arn

    @property
    def image_sets_arn(self) -> str:
        """All image sets of the data store. Metadata and frame actions are authorised on this and on the
        data store.
        """
        return f"{self._datastore.attr_datastore_arn}/imageset/*"
