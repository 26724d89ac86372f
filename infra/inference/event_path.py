"""How arriving image sets reach an endpoint by themselves: event, queue, function.

HealthImaging announces what arrives. The rule lets through what can be an input: new images in a primary
image set. Which of them go where, the function decides by the rules of the environment file, because an event
says nothing of an image set's headers. A segmentation that the platform stores is announced like any other
image set; that it never starts a run is the function's task, too (`runtime/functions/dispatch/images.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.data.archive import Archive
from infra.data.buckets import DISPATCHED, Buckets
from infra.environment import Environment, Rule
from infra.event_function import TIMEOUT, Batches, Program, event_function
from infra.event_queue import event_queue
from infra.inference.asynchronous import Asynchronous
from infra.network.placement import Placement
from infra.workload import allow

_BATCH = 10
_CONCURRENT_BATCHES = 2
"""The least that Lambda takes. With a third of a second an image set (two reads, two writes, an invocation)
some six a second: beside the index function, which reads the same metadata, still below the quota of
GetImageSetMetadata (50 a second).
"""

_ENVIRONMENT_BYTES = 3500
"""Lambda allows 4 KB for all variables of a function
(https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html).
"""

_UNRESOLVED_BYTES = 200
"""Of a rule's endpoint and model package, whose names are longer than what stands for them at synthesis."""


class EventPath(Construct):
    """Sends arriving image sets to asynchronous endpoints, by the rules of the environment file."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        archive: Archive,
        buckets: Buckets,
        key: kms.IKey,
        placement: Placement,
        endpoints: Mapping[str, Asynchronous],
    ) -> None:
        """
        Args:
            scope: The stack of the endpoints.
            id: Of this construct.
            environment: Its rules must not be empty.
            archive: Whose events.
            buckets: Requests go to the bucket of results.
            key: For queues, logs and requests.
            placement: Where the function runs.
            endpoints: Those that rules may name, by their names in the environment file.
        """
        super().__init__(scope, id)
        self._endpoints = endpoints
        rules = environment.inference.rules
        # Left alone for so long, an image set is complete enough (runtime/functions/dispatch/dispatcher.py).
        quiet = cdk.Duration.seconds(environment.inference.quiet_seconds)
        events = event_queue(self, key=key, timeout=TIMEOUT, delay=quiet)
        self.queue, self.dead_letters = events.queue, events.dead_letters
        events.receive(
            self,
            "ImagesArrived",
            description="Image sets of the archive that may have to go to an endpoint",
            event_pattern={
                "source": ["aws.medical-imaging"],
                # Updated: more images of a series, or a corrected header. Copied: what a person has moved to
                # a primary image set.
                "detail-type": ["Image Set Created", "Image Set Updated", "Image Set Copied"],
                "detail": {"datastoreId": [archive.datastore_id], "isPrimary": [True]},
            },
        )
        self.may_dispatch = self._may_dispatch(rules=rules, archive=archive, buckets=buckets)
        """What a function needs to send an image set where it belongs."""
        self.variables = {
            "RESULT_BUCKET": buckets.results.bucket_name,
            "REQUEST_PREFIX": DISPATCHED,
            "DISPATCH_ROUTES": self._routes(rules),
            "QUIET_SECONDS": str(environment.inference.quiet_seconds),
        }
        """What tells it where that is."""
        self.function = event_function(
            self,
            program=Program(
                name="dispatch",
                packages=["healthimaging", "runtime/functions/batches", "runtime/functions/image_sets"],
                says="Sends arriving image sets to the endpoints that the rules name",
                # For the largest metadata that it reads (runtime/functions/image_sets/reading.py).
                memory_mib=2048,
                variables=self.variables,
            ),
            may=self.may_dispatch,
            role_says="Dispatch function: read image set metadata, send requests to endpoints",
            batches=Batches(events=events, most=_BATCH, at_a_time=_CONCURRENT_BATCHES),
            environment=environment,
            key=key,
            placement=placement,
        )
        for name, value in {
            "DispatchFunctionName": self.function.function_name,
            "DispatchQueueUrl": self.queue.queue_url,
            "DispatchDeadLetterQueueUrl": self.dead_letters.queue_url,
        }.items():
            cdk.CfnOutput(cdk.Stack.of(self), name, value=value)

    def _may_dispatch(
        self, *, rules: Sequence[Rule], archive: Archive, buckets: Buckets
    ) -> list[iam.PolicyStatement]:
        stack = cdk.Stack.of(self)
        endpoints = sorted({self._endpoints[rule.endpoint].name for rule in rules})
        return [
            allow(
                "medical-imaging:GetImageSet",
                "medical-imaging:GetImageSetMetadata",
                on=[archive.datastore_arn, archive.image_sets_arn],
            ),
            # A request that is there already is looked at: has it been sent?
            allow(
                "s3:GetObject",
                "s3:PutObject",
                on=[buckets.results.arn_for_objects(f"{DISPATCHED}*")],
            ),
            allow(
                "sagemaker:InvokeEndpointAsync",
                on=[
                    stack.format_arn(service="sagemaker", resource="endpoint", resource_name=name)
                    for name in endpoints
                ],
            ),
        ]

    def _routes(self, rules: Sequence[Rule]) -> str:
        """The rules as the function reads them (`runtime/functions/dispatch/rules.py`)."""
        routes = [
            {
                "rule": rule.name,
                "endpoint": self._name_once_in_service(self._endpoints[rule.endpoint]),
                # Empty at deployment where the endpoint is not deployed: the function passes the rule over.
                "model": self._endpoints[rule.endpoint].package_arn,
                "modality": list(rule.modality),
                "bodyPart": list(rule.body_part),
                "seriesDescription": rule.series_description,
                "minimumInstances": rule.minimum_instances,
            }
            for rule in rules
        ]
        size = len(json.dumps(routes)) + _UNRESOLVED_BYTES * len(routes)
        if size > _ENVIRONMENT_BYTES:
            raise ValueError(
                f"inference.rules: {len(routes)} rules need {size} bytes of the dispatch function's "
                f"environment, {_ENVIRONMENT_BYTES} are there: join rules that lead to the same endpoint"
            )
        return cdk.Stack.of(self).to_json_string(routes)

    def _name_once_in_service(self, endpoint: Asynchronous) -> str:
        """The endpoint's name, written so that CloudFormation has the endpoint in service before the function
        hears of it. A plain dependency cannot say that of a resource that may not exist.
        """
        return cdk.Fn.condition_if(
            endpoint.deployed.logical_id, endpoint.served.attr_endpoint_name, endpoint.name
        ).to_string()
