"""Stack `inference`: endpoints that segment image sets, and who hears of the results."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.assets.images import Image
from infra.data.archive import Archive
from infra.data.buckets import FAILURES, REQUESTS, RESPONSES, SEGMENTATIONS, TRAINING, Buckets
from infra.environment import Environment
from infra.inference.endpoint import AsynchronousEndpoint
from infra.permissions import (
    lend_key_to_volumes,
    pull_image,
    read_image_sets,
    read_objects,
    use_key,
    write_objects,
    write_sagemaker_logs,
)
from infra.workload import Workload, allow, service


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
    ) -> None:
        super().__init__(
            scope,
            "inference",
            stack_name=f"monai-{environment.name}-inference",
            description="MONAI on AWS: asynchronous endpoints",
        )
        success = sns.Topic(self, "Success", master_key=key, enforce_ssl=True)
        failure = sns.Topic(self, "Failure", master_key=key, enforce_ssl=True)
        workload = Workload(
            self,
            "Endpoints",
            description="Inference containers: read image sets, store segmentations, answer through S3",
            principal=service("sagemaker.amazonaws.com", account=self.account),
            statements=[
                read_image_sets(archive),
                # Stores a segmentation, and looks which image set has become of it.
                allow(
                    "medical-imaging:SearchImageSets",
                    "medical-imaging:StoreDICOM",
                    on=[archive.datastore_arn],
                ),
                *read_objects(buckets.models, TRAINING),
                *read_objects(buckets.results, REQUESTS),
                write_objects(buckets.results, RESPONSES, FAILURES, SEGMENTATIONS),
                allow("sns:Publish", on=[success.topic_arn, failure.topic_arn]),
                use_key(key),
                lend_key_to_volumes(key),
                *pull_image(image.repository),
                *write_sagemaker_logs(self, "Endpoints"),
            ],
        )
        for endpoint in environment.inference.endpoints:
            if endpoint.mode != "asynchronous":
                raise ValueError(f"{environment.name}: endpoints of mode {endpoint.mode} are not built yet")
            AsynchronousEndpoint(
                self,
                endpoint.logical_name,
                endpoint=endpoint,
                workload=workload,
                buckets=buckets,
                key=key,
                success=success,
                failure=failure,
            )
        for name, value in {
            "SuccessTopicArn": success.topic_arn,
            "FailureTopicArn": failure.topic_arn,
            "InferenceRoleArn": workload.role_arn,
        }.items():
            cdk.CfnOutput(self, name, value=value)
