"""Scaling that several modes have in common.

Application Auto Scaling acts through its service-linked role, which it makes itself when the first target is
registered: no role here (https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling.html).
"""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infra.inference.alarms import METRICS, VARIANT

SCALE_IN_SECONDS = 600
SCALE_OUT_SECONDS = 300
"""Waiting after one step before the next: a machine needs minutes to pull its image and to load its model."""


def instances_of(
    scope: Construct, *, endpoint_name: str, minimum: int, maximum: int
) -> scaling.CfnScalableTarget:
    """The number of machines of an endpoint, as something that scales."""
    return scaling.CfnScalableTarget(
        scope,
        "Instances",
        service_namespace="sagemaker",
        resource_id=f"endpoint/{endpoint_name}/variant/{VARIANT}",
        scalable_dimension="sagemaker:variant:DesiredInstanceCount",
        min_capacity=minimum,
        max_capacity=maximum,
    )


def follow(
    scope: Construct,
    id: str,
    *,
    target: scaling.CfnScalableTarget,
    name: str,
    value: float,
    predefined: str | None = None,
    customized: scaling.CfnScalingPolicy.CustomizedMetricSpecificationProperty | None = None,
) -> scaling.CfnScalingPolicy:
    """Keep a metric at a value: one of the predefined ones, or a customized one."""
    policy = scaling.CfnScalingPolicy
    return policy(
        scope,
        id,
        policy_name=name,
        policy_type="TargetTrackingScaling",
        scaling_target_id=target.ref,
        target_tracking_scaling_policy_configuration=policy.TargetTrackingScalingPolicyConfigurationProperty(
            target_value=value,
            scale_in_cooldown=SCALE_IN_SECONDS,
            scale_out_cooldown=SCALE_OUT_SECONDS,
            predefined_metric_specification=(
                policy.PredefinedMetricSpecificationProperty(predefined_metric_type=predefined)
                if predefined
                else None
            ),
            customized_metric_specification=customized,
        ),
    )


def wake(
    scope: Construct,
    *,
    target: scaling.CfnScalableTarget,
    named: str,
    metric: str,
    statistic: str,
    dimensions: Mapping[str, str],
) -> tuple[scaling.CfnScalingPolicy, cloudwatch.CfnAlarm]:
    """Add the first one when requests come and there is none.

    Target tracking divides by the number of instances or copies, so it cannot leave zero.
    """
    policy = scaling.CfnScalingPolicy(
        scope,
        "FromZero",
        policy_name="wake-from-zero",
        policy_type="StepScaling",
        scaling_target_id=target.ref,
        step_scaling_policy_configuration=scaling.CfnScalingPolicy.StepScalingPolicyConfigurationProperty(
            adjustment_type="ChangeInCapacity",
            metric_aggregation_type="Maximum",
            cooldown=SCALE_OUT_SECONDS,
            step_adjustments=[
                scaling.CfnScalingPolicy.StepAdjustmentProperty(
                    metric_interval_lower_bound=0, scaling_adjustment=1
                )
            ],
        ),
    )
    alarm = cloudwatch.CfnAlarm(
        scope,
        "Waiting",
        alarm_description=f"Requests wait and {named} has no capacity: adds the first by itself",
        namespace=METRICS,
        metric_name=metric,
        dimensions=[
            cloudwatch.CfnAlarm.DimensionProperty(name=name, value=value)
            for name, value in dimensions.items()
        ],
        statistic=statistic,
        period=60,
        evaluation_periods=1,
        datapoints_to_alarm=1,
        threshold=1,
        comparison_operator="GreaterThanOrEqualToThreshold",
        treat_missing_data="missing",
        alarm_actions=[policy.ref],
    )
    return policy, alarm


def only_if(condition: cdk.CfnCondition, *resources: cdk.CfnResource) -> None:
    """Make resources only while the condition holds."""
    for resource in resources:
        resource.cfn_options.condition = condition
