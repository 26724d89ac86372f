"""An asynchronous SageMaker endpoint that sleeps at zero instances.

It exists only while a model package is deployed: the package is a parameter of the stack, so that approving a
model changes a parameter and not a template. Nothing that may be replaced has a name.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.data.buckets import FAILURES, RESPONSES, SEGMENTATIONS, Buckets
from infra.environment import AsynchronousEndpoint as Endpoint
from infra.instances import CUDA_13_AMI, has_nvidia_gpu
from infra.workload import Workload

_VARIANT = "main"

_STARTUP_SECONDS = 600
"""A container loads its model, a network of up to a gigabyte, before it answers /ping."""

_METRICS = "AWS/SageMaker"


class AsynchronousEndpoint(Construct):
    """The endpoint `endpoint` of the environment file, for the model package given at deployment."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        endpoint: Endpoint,
        workload: Workload,
        buckets: Buckets,
        key: kms.IKey,
        success: sns.ITopic,
        failure: sns.ITopic,
    ) -> None:
        super().__init__(scope, id)
        stack = cdk.Stack.of(self)
        package = cdk.CfnParameter(
            stack,
            f"{endpoint.logical_name}ModelPackageArn",
            type="String",
            default="",
            allowed_pattern=r"^$|^arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:model-package/.+$",
            description=f"Approved model package that {endpoint.name} serves; empty: no endpoint",
        )
        self._deployed = cdk.CfnCondition(
            stack,
            f"{endpoint.logical_name}Deployed",
            expression=cdk.Fn.condition_not(cdk.Fn.condition_equals(package.value_as_string, "")),
        )
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=workload.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                model_package_name=package.value_as_string,
                environment={
                    "RUNTIME_QUEUE_LENGTH": str(endpoint.concurrent_invocations),
                    "RUNTIME_SEGMENTATION_S3_URI": buckets.results.s3_url_for_object(SEGMENTATIONS),
                },
            ),
        )
        model.node.add_dependency(workload.policy)
        configuration = sagemaker.CfnEndpointConfig(
            self,
            "Configuration",
            # On machines with local disks this covers the storage volume only; their hardware encrypts the
            # disks.
            kms_key_id=key.key_arn,
            production_variants=[
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    variant_name=_VARIANT,
                    model_name=model.attr_model_name,
                    instance_type=endpoint.instance_type,
                    # An endpoint is created with an instance; scaling takes it to its minimum.
                    initial_instance_count=max(1, endpoint.minimum_instances),
                    initial_variant_weight=1,
                    container_startup_health_check_timeout_in_seconds=_STARTUP_SECONDS,
                    model_data_download_timeout_in_seconds=_STARTUP_SECONDS,
                    inference_ami_version=CUDA_13_AMI if has_nvidia_gpu(endpoint.instance_type) else None,
                )
            ],
            async_inference_config=sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty(
                client_config=sagemaker.CfnEndpointConfig.AsyncInferenceClientConfigProperty(
                    max_concurrent_invocations_per_instance=endpoint.concurrent_invocations
                ),
                output_config=sagemaker.CfnEndpointConfig.AsyncInferenceOutputConfigProperty(
                    kms_key_id=key.key_arn,
                    s3_output_path=buckets.results.s3_url_for_object(RESPONSES),
                    s3_failure_path=buckets.results.s3_url_for_object(FAILURES),
                    notification_config=sagemaker.CfnEndpointConfig.AsyncInferenceNotificationConfigProperty(
                        success_topic=success.topic_arn, error_topic=failure.topic_arn
                    ),
                ),
            ),
        )
        served = sagemaker.CfnEndpoint(
            self,
            # UpdateEndpoint fails if it changes the instance type of an endpoint that scales
            # (https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html). With the type in
            # the id, a new endpoint takes the old one's place. A new model is an update in place.
            f"Endpoint-{endpoint.instance_type}",
            endpoint_config_name=configuration.attr_endpoint_config_name,
        )
        self._scale(endpoint=endpoint, endpoint_name=served.attr_endpoint_name)
        for child in self.node.find_all():
            if isinstance(child, cdk.CfnResource):
                child.cfn_options.condition = self._deployed
        cdk.CfnOutput(
            stack,
            f"{endpoint.logical_name}EndpointName",
            value=served.attr_endpoint_name,
            condition=self._deployed,
        )

    def _scale(self, *, endpoint: Endpoint, endpoint_name: str) -> None:
        """Instances by the length of the queue, down to none.

        Target tracking divides by the number of instances, so it cannot wake an endpoint that has none: a
        second policy adds the first instance when requests wait
        (https://docs.aws.amazon.com/sagemaker/latest/dg/async-inference-autoscale.html). Both metrics have
        the one dimension EndpointName.
        """
        target = scaling.CfnScalableTarget(
            self,
            "Instances",
            service_namespace="sagemaker",
            resource_id=f"endpoint/{endpoint_name}/variant/{_VARIANT}",
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            min_capacity=endpoint.minimum_instances,
            max_capacity=endpoint.maximum_instances,
        )
        scaling.CfnScalingPolicy(
            self,
            "ByBacklog",
            policy_name="backlog-per-instance",
            policy_type="TargetTrackingScaling",
            scaling_target_id=target.ref,
            target_tracking_scaling_policy_configuration=scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty(
                target_value=endpoint.backlog_per_instance,
                scale_in_cooldown=600,
                scale_out_cooldown=300,
                customized_metric_specification=scaling.CfnScalingPolicy.CustomizedMetricSpecificationProperty(
                    namespace=_METRICS,
                    metric_name="ApproximateBacklogSizePerInstance",
                    statistic="Average",
                    dimensions=[
                        scaling.CfnScalingPolicy.MetricDimensionProperty(
                            name="EndpointName", value=endpoint_name
                        )
                    ],
                ),
            ),
        )
        wake = scaling.CfnScalingPolicy(
            self,
            "FromZero",
            policy_name="wake-from-zero",
            policy_type="StepScaling",
            scaling_target_id=target.ref,
            step_scaling_policy_configuration=scaling.CfnScalingPolicy.StepScalingPolicyConfigurationProperty(
                adjustment_type="ChangeInCapacity",
                metric_aggregation_type="Average",
                cooldown=300,
                step_adjustments=[
                    scaling.CfnScalingPolicy.StepAdjustmentProperty(
                        metric_interval_lower_bound=0, scaling_adjustment=1
                    )
                ],
            ),
        )
        cloudwatch.CfnAlarm(
            self,
            "Waiting",
            alarm_description=f"Requests wait and {endpoint.name} has no instance",
            namespace=_METRICS,
            metric_name="HasBacklogWithoutCapacity",
            dimensions=[cloudwatch.CfnAlarm.DimensionProperty(name="EndpointName", value=endpoint_name)],
            statistic="Average",
            period=60,
            evaluation_periods=1,
            datapoints_to_alarm=1,
            threshold=1,
            comparison_operator="GreaterThanOrEqualToThreshold",
            treat_missing_data="missing",
            alarm_actions=[wake.ref],
        )
