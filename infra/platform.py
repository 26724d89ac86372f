"""The Stage: all stacks of one environment, and what each takes from the others."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from infra.catalog.stack import CatalogStack
from infra.data.archive import DATASTORE_TYPE
from infra.data.stack import DataStack
from infra.environment import Environment
from infra.inference.stack import InferenceStack
from infra.training.stack import TrainingStack


class Platform(cdk.Stage):
    """The platform in one account and region."""

    def __init__(self, scope: Construct, *, environment: Environment) -> None:
        super().__init__(
            scope,
            environment.name,
            env=cdk.Environment(account=environment.aws.account, region=environment.aws.region),
        )
        self.environment = environment
        self.data = DataStack(self, environment=environment)
        self.catalog = CatalogStack(
            self,
            environment=environment,
            archive=self.data.archive,
            buckets=self.data.buckets,
            key=self.data.key,
        )
        self.training = TrainingStack(
            self,
            environment=environment,
            archive=self.data.archive,
            buckets=self.data.buckets,
            key=self.data.key,
        )
        self.inference = InferenceStack(
            self,
            environment=environment,
            archive=self.data.archive,
            buckets=self.data.buckets,
            key=self.data.key,
            image=self.training.inference_image,
        )
        # On resources only: a tag of a stack would reach the data store, which a changed tag replaces.
        cdk.Tags.of(self).add(
            "monai:environment", environment.name, exclude_resource_types=[DATASTORE_TYPE, "aws:cdk:stack"]
        )
