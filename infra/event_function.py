"""A function that works off events: its log, its role, its place in the network, and what starts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.assets.function_code import ARCHITECTURE, RUNTIME, function_code
from infra.environment import Environment
from infra.event_queue import EventQueue
from infra.function_log import function_log
from infra.network.placement import Placement
from infra.permissions import place_in_network, use_key
from infra.workload import Workload, allow

TIMEOUT = cdk.Duration.minutes(2)
"""A batch of ten image sets, each with up to 50 MB of metadata. Less than the age at which the dispatch
function takes over what another invocation left (`CLAIM_SECONDS`).
"""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a function runs."""

    name: str
    """Its folder below `runtime/functions`."""
    packages: Sequence[str]
    """What of this repository it imports beside it."""
    says: str
    """What it does, as the console shows it."""
    memory_mib: int
    variables: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How messages come from a queue."""

    events: EventQueue
    most: int
    """In one batch."""
    at_a_time: int
    """Batches. Lambda takes no less than two."""


def event_function(
    scope: Construct,
    *,
    program: Program,
    may: Sequence[iam.PolicyStatement],
    role_says: str,
    batches: Batches | None,
    environment: Environment,
    key: kms.IKey,
    placement: Placement,
    timeout: cdk.Duration = TIMEOUT,
) -> lambda_.Function:
    """Make `Log`, `Workload`, `Function` and, for a queue, `FromQueue` in `scope`; the stack's output
    `<Program>LogGroupName` names its log.

    Args:
        scope: The path that the function belongs to.
        program: What it runs.
        may: What it may do, beside what every function needs: its queue, its log, the key, the network.
        role_says: Description of its role.
        batches: Its queue; None for a function that something else starts.
        environment: How long logs are kept.
        key: For its log and all that it reads.
        placement: Where it runs.
        timeout: Of an invocation. Lambda ends the longest after 15 minutes.
    """
    log = function_log(scope, environment=environment, key=key)
    workload = Workload(
        scope,
        "Workload",
        description=role_says,
        principal=iam.ServicePrincipal("lambda.amazonaws.com"),
        statements=[
            *may,
            *([batches.events.may_be_read] if batches else []),
            use_key(key),
            allow("logs:CreateLogStream", "logs:PutLogEvents", on=[log.attr_arn]),
            *place_in_network(cdk.Stack.of(scope), placement),
        ],
    )
    function = lambda_.Function(
        scope,
        "Function",
        description=program.says,
        runtime=RUNTIME,
        architecture=ARCHITECTURE,
        code=function_code(folder=f"runtime/functions/{program.name}", packages=program.packages),
        handler=f"runtime.functions.{program.name}.handler.handle",
        role=workload.role,
        log_group=logs.LogGroup.from_log_group_arn(scope, "FunctionLog", log.attr_arn),
        memory_size=program.memory_mib,
        timeout=timeout,
        environment=dict(program.variables),
    )
    placement.put(function)
    function.node.add_dependency(workload.policy)
    if batches:
        lambda_.EventSourceMapping(
            scope,
            "FromQueue",
            target=function,
            event_source_arn=batches.events.queue.queue_arn,
            batch_size=batches.most,
            max_concurrency=batches.at_a_time,
            report_batch_item_failures=True,
        ).node.add_dependency(workload.policy)
    # Who looks for why something failed has the logs at hand, and not always Lambda: there is no way to it
    # from within the network.
    title = "".join(word.capitalize() for word in program.name.split("_"))
    cdk.CfnOutput(cdk.Stack.of(scope), f"{title}LogGroupName", value=log.ref)
    return function
