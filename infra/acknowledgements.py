"""Every finding of the rule packs that is accepted, with the reason. There is no other place where one is.

A finding is acknowledged on one resource and by its full id, which for wildcards names the resource of the
statement. A new wildcard, bucket or function is therefore a new finding, and synthesis fails until it is gone
or stands here. A test fails when an entry no longer corresponds to a finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import aws_cdk as cdk
from constructs import IConstruct

from infra.environment import Task
from infra.platform import Platform

_IMAGE_SETS = (
    "Image sets get their ids when they are imported, so they cannot be listed. The wildcard covers the "
    "image sets of this environment's one data store, and reading them is the workload's purpose; actions "
    "that change or delete image sets are not granted."
)
_OBJECTS = (
    "Object keys are not known when the role is made. The wildcard is limited to the one bucket and the "
    "prefixes that the workload reads or writes, and the statement has no action on the bucket's "
    "configuration or on object versions."
)
_LOG_STREAMS = (
    "The service makes the log group, and its streams get random names. The wildcard is limited to the "
    "groups of this kind of job, and the statement allows writing to them, not reading or deleting what "
    "they hold."
)
_NO_RESOURCES = (
    "Covers ecr:GetAuthorizationToken and cloudwatch:PutMetricData, for which IAM knows no resources. The "
    "first gives only a login, what can be pulled is limited to one repository by the statement beside "
    "it; the second is limited to SageMaker's namespaces by a condition."
)
_PIPELINE_JOBS = (
    "SageMaker makes the name of each job of a pipeline from the execution's id. The wildcard is limited "
    "to names that start with 'pipelines-', and starting such a job also needs iam:PassRole, which is "
    "granted for one role."
)
_PACKAGE_VERSIONS = (
    "Versions of a model package are numbered as they are registered. The wildcard is limited to the one "
    "model package group of the task."
)
_NO_REPLICA = (
    "Versioned, encrypted and in at least three zones. A copy in another region would leave the region "
    "that the environment was approved for. "
)


@dataclass(frozen=True, kw_only=True)
class Acknowledgement:
    """A finding that is accepted: on which resource (path below the Stage), its id, and why."""

    path: str
    finding: str
    reason: str


def acknowledge(platform: Platform) -> None:
    """Tell the rule packs what is accepted."""
    for entry in acknowledgements(platform):
        construct: IConstruct = platform
        for id in entry.path.split("/"):
            construct = construct.node.find_child(id)
        cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=entry.finding, reason=entry.reason))


def acknowledgements(platform: Platform) -> Iterator[Acknowledgement]:
    """All of them."""
    yield from _roles(platform)
    yield from _index_function()
    yield from _buckets()


def _roles(platform: Platform) -> Iterator[Acknowledgement]:
    data, buckets = platform.data, platform.data.buckets
    image_sets = f"{_exported(data, data.archive.datastore_arn)}/imageset/*"
    catalog, models, results = (
        _exported(data, bucket.bucket_arn) for bucket in (buckets.catalog, buckets.models, buckets.results)
    )

    importer = "data/Importer/Policy/Resource"
    for bucket in (buckets.inbox, buckets.imports):
        yield _wildcard(importer, f"{_own(data, bucket.bucket_arn)}/*", _OBJECTS)

    indexer = "catalog/Index/Workload/Policy/Resource"
    crawler = "catalog/Consistency/Workload/Policy/Resource"
    yield _wildcard(indexer, image_sets, _IMAGE_SETS)
    for role in (indexer, crawler):
        for table in ("series", "instances"):
            yield _wildcard(role, f"{catalog}/{table}/*", _OBJECTS)
    yield _wildcard(crawler, _log_groups(platform, "/aws-glue/crawlers"), _LOG_STREAMS)

    trainer = "training/Trainer/Policy/Resource"
    yield _wildcard(trainer, image_sets, _IMAGE_SETS)
    for prefix in ("manifests", "training", "evaluation"):
        yield _wildcard(trainer, f"{models}/{prefix}/*", _OBJECTS)
    for kind in ("TrainingJobs", "ProcessingJobs"):
        yield _wildcard(trainer, _log_groups(platform, f"/aws/sagemaker/{kind}"), _LOG_STREAMS)
    yield _wildcard(trainer, "*", _NO_RESOURCES)
    for task in platform.environment.training.tasks:
        yield from _pipeline_runner(platform, task=task, models=models)

    endpoints = "inference/Endpoints/Policy/Resource"
    yield _wildcard(endpoints, image_sets, _IMAGE_SETS)
    yield _wildcard(endpoints, f"{models}/training/*", _OBJECTS)
    for prefix in ("requests", "responses", "failures", "segmentations"):
        yield _wildcard(endpoints, f"{results}/{prefix}/*", _OBJECTS)
    yield _wildcard(endpoints, _log_groups(platform, "/aws/sagemaker/Endpoints"), _LOG_STREAMS)
    yield _wildcard(endpoints, "*", _NO_RESOURCES)


def _pipeline_runner(platform: Platform, *, task: Task, models: str) -> Iterator[Acknowledgement]:
    runner = f"training/{task.logical_name}/Runner/Policy/Resource"
    for prefix in ("training", "evaluation"):
        yield _wildcard(runner, f"{models}/{prefix}/*", _OBJECTS)
    aws = platform.environment.aws
    sagemaker = f"arn:aws:sagemaker:{aws.region}:{aws.account}"
    for kind in ("training-job", "processing-job"):
        yield _wildcard(runner, f"{sagemaker}:{kind}/pipelines-*", _PIPELINE_JOBS)
    group = f"monai-{platform.environment.name}-{task.name}"
    yield _wildcard(runner, f"{sagemaker}:model-package/{group}/*", _PACKAGE_VERSIONS)


def _index_function() -> Iterator[Acknowledgement]:
    function = "catalog/Index/Function/Resource"
    for finding, reason in {
        "AwsSolutions-L1": (
            "Python 3.11 is a runtime that AWS patches until June 2027. It is the version that this "
            "repository's environments and tests have, so the package that is tested, with its compiled "
            "wheels, is the one that runs."
        ),
        "HIPAA.Security-LambdaConcurrency": (
            "The function is started by its queue alone, and the event source mapping limits it to four "
            "at a time. A reservation would be a second limit of the same kind: below the mapping's it "
            "throttles what was already taken from the queue, above it it has no effect."
        ),
        "HIPAA.Security-LambdaDLQ": (
            "A function's own dead-letter queue is for asynchronous invocations; this one reads a queue. "
            "What fails five times goes to the dead-letter queue of that queue, and so do events that the "
            "rule cannot deliver."
        ),
        "HIPAA.Security-LambdaInsideVPC": (
            "Nothing can connect to the function, and no resource that it uses is in a VPC. What is left "
            "is that its code could send headers to hosts outside AWS. That code is this repository's and "
            "one pinned library, and reads what arrives as data. Once the platform has a network of its "
            "own, with endpoints of the services and no way out, the function belongs into it."
        ),
    }.items():
        yield Acknowledgement(path=function, finding=finding, reason=reason)


def _buckets() -> Iterator[Acknowledgement]:
    for bucket, reason in {
        "AccessLogs": "They say who used the other buckets, which are in this region alone as well.",
        "Inbox": "Files are on their way to the data store, and the sending archive keeps its own.",
        "Imports": "Reports of import jobs; what was imported is in the data store.",
        "Catalog": "Everything in it is made from the data store and can be made again.",
        "Models": "No record of a patient is only here: a lost model is trained again and approved again.",
        "Results": "Requests and answers in transit; segmentations are in the data store, these are copies.",
    }.items():
        yield Acknowledgement(
            path=f"data/Buckets/{bucket}/Resource",
            finding="HIPAA.Security-S3BucketReplicationEnabled",
            reason=_NO_REPLICA + reason,
        )
    yield Acknowledgement(
        path="data/Buckets/AccessLogs/Resource",
        finding="HIPAA.Security-S3DefaultEncryptionKMS",
        reason=(
            "S3 delivers server access logs only to buckets encrypted with S3-managed keys. The logs hold "
            "names of objects and who asked for them, never what is in an object."
        ),
    )


def _wildcard(path: str, resource: str, reason: str) -> Acknowledgement:
    return Acknowledgement(path=path, finding=f"AwsSolutions-IAM5[Resource::{resource}]", reason=reason)


def _own(stack: cdk.Stack, arn: str) -> str:
    """How a finding names the ARN of a resource of the same stack."""
    logical_id, attribute = stack.resolve(arn)["Fn::GetAtt"]
    return f"<{logical_id}.{attribute}>"


def _exported(stack: cdk.Stack, arn: str) -> str:
    """How a finding names the ARN of a resource of another stack: by the export through which it comes."""
    return str(stack.resolve(stack.export_value(arn))["Fn::ImportValue"])


def _log_groups(platform: Platform, prefix: str) -> str:
    aws = platform.environment.aws
    return f"arn:aws:logs:{aws.region}:{aws.account}:log-group:{prefix}*"
