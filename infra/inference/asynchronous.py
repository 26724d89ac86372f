"""Mode `asynchronous`: requests wait in a queue, answers go to S3 and topics, machines sleep at zero."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.data.buckets import FAILURES, NOTED, PROMOTED, REQUESTS, RESPONSES, TRAINING
from infra.environment import AsynchronousEndpoint
from infra.inference.alarms import ASYNCHRONOUS, METRICS, guard, of_variant
from infra.inference.approved_model import ApprovedModel
from infra.inference.container_role import ContainerRole
from infra.inference.endpoint_logs import container_logs
from infra.inference.machines import configuration, endpoint_on, variant
from infra.inference.safe_updates import blue_green
from infra.inference.scaling import follow, instances_of, only_if, wake
from infra.inference.surroundings import Surroundings
from infra.permissions import read_objects, write_objects
from infra.workload import allow, deny


class Asynchronous(Construct):
    """The endpoint `endpoint` of the environment file, for the model package given at deployment.

    An update begins with the initial number of machines and not with the current one, which may be zero: a
    model that does not start is then found out by the update and not by the first patient. The queue is the
    endpoint's and outlives the update.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        endpoint: AsynchronousEndpoint,
        surroundings: Surroundings,
        success: sns.ITopic,
        failure: sns.ITopic,
    ) -> None:
        super().__init__(scope, id)
        environment, buckets = surroundings.environment.name, surroundings.buckets
        self.name = name = endpoint.endpoint_name(environment)
        logs = container_logs(self, "Logs", name=f"Endpoints/{name}", surroundings=surroundings)
        alarms = guard(
            self,
            named=endpoint.name,
            dimensions=of_variant(name),
            watches=ASYNCHRONOUS,
            topic=surroundings.alarm_topic,
        )
        container = ContainerRole(
            self,
            "Container",
            surroundings=surroundings,
            serves=endpoint.name,
            models=(TRAINING, PROMOTED),
            logs=(logs,),
            metrics=("/aws/sagemaker/Endpoints",),
            guards=alarms,
            also=(
                *read_objects(buckets.results, REQUESTS),
                write_objects(buckets.results, RESPONSES, FAILURES),
                # What is noted there is asked for again by whoever replays it, and the container holds code
                # that came with a model.
                deny("s3:PutObject", on=[buckets.results.arn_for_objects(f"{NOTED}*")]),
                allow("sns:Publish", on=[success.topic_arn, failure.topic_arn]),
            ),
        )
        model = ApprovedModel(
            self,
            "Approved",
            name=endpoint.logical_name,
            endpoint=endpoint.name,
            serves=endpoint.name,
            container=container,
            surroundings=surroundings,
            # What SageMaker sends at the same time may wait in the container, and no more.
            environment={"RUNTIME_QUEUE_LENGTH": str(endpoint.concurrent_invocations)},
        )
        self.package_arn = model.package_arn
        """The package that it runs, at deployment an empty string where it runs none."""
        self.deployed = model.deployed
        """Holds while a model is deployed."""
        settings = configuration(
            self,
            variant=variant(endpoint, model_name=model.model_name),
            surroundings=surroundings,
            asynchronous=_through_s3(endpoint, surroundings, success=success, failure=failure),
        )
        self.served = served = endpoint_on(
            self,
            endpoint=endpoint,
            environment=environment,
            configuration=settings,
            deployment=blue_green(alarms, canary=False),
        )
        served.node.add_dependency(logs.resource)
        target = instances_of(
            self,
            endpoint_name=name,
            minimum=endpoint.minimum_instances,
            maximum=endpoint.maximum_instances,
        )
        target.node.add_dependency(served)
        only_if(self.deployed, settings, served, target, *_scale(self, endpoint, target=target, name=name))
        cdk.CfnOutput(
            cdk.Stack.of(self),
            f"{endpoint.logical_name}EndpointName",
            value=served.attr_endpoint_name,
            condition=self.deployed,
        )


def _through_s3(
    endpoint: AsynchronousEndpoint, surroundings: Surroundings, *, success: sns.ITopic, failure: sns.ITopic
) -> sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty:
    results = surroundings.buckets.results
    config = sagemaker.CfnEndpointConfig
    return config.AsyncInferenceConfigProperty(
        client_config=config.AsyncInferenceClientConfigProperty(
            max_concurrent_invocations_per_instance=endpoint.concurrent_invocations
        ),
        output_config=config.AsyncInferenceOutputConfigProperty(
            kms_key_id=surroundings.key.key_arn,
            s3_output_path=results.s3_url_for_object(RESPONSES),
            s3_failure_path=results.s3_url_for_object(FAILURES),
            notification_config=config.AsyncInferenceNotificationConfigProperty(
                success_topic=success.topic_arn, error_topic=failure.topic_arn
            ),
        ),
    )


def _scale(
    scope: Construct, endpoint: AsynchronousEndpoint, *, target: scaling.CfnScalableTarget, name: str
) -> list[cdk.CfnResource]:
    """Machines by the length of the queue, down to none
    (https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-autoscale.html). The metrics of the queue
    have the one dimension EndpointName.
    """
    policy = scaling.CfnScalingPolicy
    by_backlog = follow(
        scope,
        "ByBacklog",
        target=target,
        name="backlog-per-instance",
        value=endpoint.backlog_per_instance,
        customized=policy.CustomizedMetricSpecificationProperty(
            namespace=METRICS,
            metric_name="ApproximateBacklogSizePerInstance",
            statistic="Average",
            dimensions=[policy.MetricDimensionProperty(name="EndpointName", value=name)],
        ),
    )
    return [
        by_backlog,
        *wake(
            scope,
            target=target,
            named=endpoint.name,
            metric="HasBacklogWithoutCapacity",
            statistic="Average",
            dimensions={"EndpointName": name},
        ),
    ]
