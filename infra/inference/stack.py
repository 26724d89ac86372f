"""Stack `inference`: endpoints that segment image sets, and who hears of the results."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.assets.images import Image
from infra.data.archive import Archive
from infra.data.buckets import Buckets
from infra.environment import (
    AsynchronousEndpoint,
    BatchTransform,
    ComponentEndpoint,
    Environment,
    MultiModelEndpoint,
    RealTimeEndpoint,
    ServerlessEndpoint,
)
from infra.inference.announcements import Announcements
from infra.inference.asynchronous import Asynchronous
from infra.inference.batch import Batch
from infra.inference.components import Components
from infra.inference.endpoint_logs import container_logs
from infra.inference.event_path import EventPath
from infra.inference.multi_model import MultiModel
from infra.inference.real_time import RealTime
from infra.inference.reconciliation import Reconciliation
from infra.inference.serverless import Serverless
from infra.inference.surroundings import Surroundings
from infra.network.placement import Placement
from infra.service_logs import ServiceLogGroup


class InferenceStack(cdk.Stack):
    """Endpoints for approved model packages."""

    def __init__(
        self,
        scope: Construct,
        *,
        environment: Environment,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        image: Image,
        placement: Placement,
        alarm_topic: sns.ITopic,
    ) -> None:
        super().__init__(
            scope,
            "inference",
            stack_name=f"monai-{environment.name}-inference",
            description="MONAI on AWS: endpoints",
        )
        self._surroundings = Surroundings(
            environment=environment,
            archive=archive,
            buckets=buckets,
            key=key,
            image=image,
            placement=placement,
            alarm_topic=alarm_topic,
        )
        success = sns.Topic(self, "Success", master_key=key, enforce_ssl=True)
        failure = sns.Topic(self, "Failure", master_key=key, enforce_ssl=True)
        self.asynchronous: dict[str, Asynchronous] = {}
        """The asynchronous endpoints by their names in the environment file."""
        for endpoint in environment.inference.endpoints:
            id, surroundings = endpoint.logical_name, self._surroundings
            match endpoint:
                case AsynchronousEndpoint():
                    self.asynchronous[endpoint.name] = Asynchronous(
                        self,
                        id,
                        endpoint=endpoint,
                        surroundings=surroundings,
                        success=success,
                        failure=failure,
                    )
                case RealTimeEndpoint():
                    RealTime(self, id, endpoint=endpoint, surroundings=surroundings)
                case MultiModelEndpoint():
                    MultiModel(self, id, endpoint=endpoint, surroundings=surroundings)
                case ComponentEndpoint():
                    Components(self, id, endpoint=endpoint, surroundings=surroundings)
                case ServerlessEndpoint():
                    Serverless(self, id, endpoint=endpoint, surroundings=surroundings)
                case BatchTransform():
                    Batch(
                        self, id, transform=endpoint, surroundings=surroundings, logs=self._transform_logs()
                    )
        for name, value in {
            "SuccessTopicArn": success.topic_arn,
            "FailureTopicArn": failure.topic_arn,
        }.items():
            cdk.CfnOutput(self, name, value=value)
        self.announcements: Announcements | None = None
        """Where there are asynchronous endpoints."""
        if self.asynchronous:
            self.announcements = Announcements(
                self,
                "Announce",
                environment=environment,
                archive=archive,
                buckets=buckets,
                key=key,
                placement=placement,
                success=success,
                failure=failure,
            )
        self.event_path: EventPath | None = None
        self.reconciliation: Reconciliation | None = None
        """Both where there are rules."""
        if environment.inference.rules:
            self.event_path = EventPath(
                self,
                "Events",
                environment=environment,
                archive=archive,
                buckets=buckets,
                key=key,
                placement=placement,
                endpoints=self.asynchronous,
            )
            self.reconciliation = Reconciliation(
                self,
                "Reconcile",
                environment=environment,
                path=self.event_path,
                archive=archive,
                buckets=buckets,
                key=key,
                placement=placement,
            )

    def _transform_logs(self) -> ServiceLogGroup:
        """The one log group of all transform jobs in the account, made with the first model for them."""
        found = self.node.try_find_child("TransformLogs")
        if isinstance(found, ServiceLogGroup):
            return found
        return container_logs(self, "TransformLogs", name="TransformJobs", surroundings=self._surroundings)
