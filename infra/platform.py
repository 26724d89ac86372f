"""The Stage: all stacks of one environment, and what each takes from the others."""

from __future__ import annotations

import aws_cdk as cdk
from constructs import Construct

from infra.arrival.stack import ArrivalStack
from infra.catalog.stack import CatalogStack
from infra.data.archive import DATASTORE_TYPE
from infra.data.stack import DataStack
from infra.environment import Environment
from infra.inference.stack import InferenceStack
from infra.network.stack import NetworkStack
from infra.observability.catalog_upkeep import WatchedUpkeep
from infra.observability.receiver import WatchedReceiver
from infra.observability.reconciliation import WatchedReconciliation
from infra.observability.stack import ObservabilityStack
from infra.observability.watched_paths import watched_paths
from infra.promotion.neighbours import neighbours_of
from infra.promotion.stack import PromotionStack
from infra.studio.stack import StudioStack
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
        neighbours = neighbours_of(environment)
        model_reader = neighbours.model_reader if neighbours else None
        self.data = DataStack(self, environment=environment, model_reader=model_reader)
        self.network = NetworkStack(
            self,
            environment=environment,
            key=self.data.key,
            lender=neighbours.lender if neighbours else None,
        )
        receiver = environment.arrival.receiver
        self.arrival: ArrivalStack | None = None
        if receiver is not None:
            self.arrival = ArrivalStack(
                self,
                environment=environment,
                receiver=receiver,
                archive=self.data.archive,
                buckets=self.data.buckets,
                key=self.data.key,
                import_role_arn=self.data.importer.role_arn,
                deidentification_secret_arn=self.data.deidentification_key.secret_arn,
                placement=self.network.placement,
            )
        self.catalog = CatalogStack(
            self,
            environment=environment,
            archive=self.data.archive,
            buckets=self.data.buckets,
            key=self.data.key,
            placement=self.network.placement,
        )
        self.training = TrainingStack(
            self,
            environment=environment,
            archive=self.data.archive,
            buckets=self.data.buckets,
            key=self.data.key,
            placement=self.network.placement,
            model_readers=neighbours.model_readers if neighbours else {},
        )
        self.inference = InferenceStack(
            self,
            environment=environment,
            archive=self.data.archive,
            buckets=self.data.buckets,
            key=self.data.key,
            image=self.training.inference_image,
            placement=self.network.placement,
            alarm_topic=self.data.alarm_topic,
        )
        self.studio = StudioStack(
            self,
            environment=environment,
            archive=self.data.archive,
            buckets=self.data.buckets,
            key=self.data.key,
            import_role_arn=self.data.importer.role_arn,
            deidentification_secret_arn=self.data.deidentification_key.secret_arn,
            placement=self.network.placement,
        )
        self.promotion: PromotionStack | None = None
        if neighbours is not None:
            self.promotion = PromotionStack(
                self,
                neighbours=neighbours,
                stacks=[stack.stack_name for stack in self.node.children if isinstance(stack, cdk.Stack)],
                archive=self.data.archive,
                buckets=self.data.buckets,
                key=self.data.key,
                placement=self.network.placement,
                image=self.training.inference_image,
            )
        self.observability = ObservabilityStack(
            self,
            environment=environment,
            archive=self.data.archive,
            key=self.data.key,
            topic=self.data.alarm_topic,
            audit_log_group_name=self.data.audit.log_group_name,
            queues=watched_paths(
                index=self.catalog.index,
                dispatch=self.inference.event_path,
                quiet_seconds=environment.inference.quiet_seconds,
                announcements=self.inference.announcements,
                candidates=self.promotion.intake if self.promotion else None,
            ),
            upkeep=WatchedUpkeep(
                compact=self.catalog.upkeep.compact, reconcile=self.catalog.upkeep.reconcile
            ),
            reconciliation=(
                WatchedReconciliation(function=self.inference.reconciliation.function)
                if self.inference.reconciliation
                else None
            ),
            receiver=(
                WatchedReceiver(
                    receiver=receiver,
                    balancer=self.arrival.address.balancer,
                    targets=self.arrival.address.targets,
                )
                if receiver and self.arrival
                else None
            ),
        )
        # On resources only: a tag of a stack would reach the data store, which a changed tag replaces.
        cdk.Tags.of(self).add(
            "monai:environment", environment.name, exclude_resource_types=[DATASTORE_TYPE, "aws:cdk:stack"]
        )
