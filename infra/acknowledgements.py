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

from infra.environment import AsynchronousEndpoint, BatchTransform, ComponentEndpoint, Task, pascal_case
from infra.platform import Platform
from infra.promotion.intake import lent_objects
from infra.studio.repairs import queue_arns
from infra.toolchain.stack import ToolchainStack

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
    "The service makes the log group, under the platform's key, and its streams get random names. The "
    "wildcard is limited to the groups of this kind of job, and the statement allows making them and writing "
    "to them, not reading or deleting what they hold."
)
_NO_RESOURCES = (
    "Covers ecr:GetAuthorizationToken and cloudwatch:PutMetricData, for which IAM knows no resources. The "
    "first gives only a login, what can be pulled is limited to one repository by the statement beside "
    "it; the second is limited to SageMaker's namespaces by a condition."
)
_SAGEMAKER_INTERFACES = (
    "SageMaker makes the container's network interfaces with the container's role, and their ids are not "
    "known before. They can be made only in the platform's subnets and security group, and of those that "
    "exist the role reaches the ones in these subnets."
)
_NO_RESOURCES_IN_NETWORK = (
    f"{_NO_RESOURCES} Also covers what describes interfaces, subnets, groups, networks and their DHCP "
    "options to SageMaker when it connects the container: IAM knows no resources for that, and it changes "
    "nothing."
)
_PACKAGE_LIST = (
    "Also covers sagemaker:ListModelPackages, with which an evaluation finds the approved model; a list has "
    "no resource that IAM could compare. The answer holds ARNs and states, and looking at a package is "
    "limited to the groups of the environment's tasks."
)
_PIPELINE_JOBS = (
    "SageMaker makes the name of each job of a pipeline from the execution's id. The wildcard is limited "
    "to names that start with 'pipelines-', and starting such a job also needs iam:PassRole, which is "
    "granted for two roles, those of training and evaluation."
)
_QUEUES = (
    "CloudFormation ends a queue's name with random characters. Each wildcard is limited to one queue of one "
    "stack; exports in its place would keep the other stacks from replacing their queues. Messages can be "
    "read and deleted in dead-letter queues only."
)
_BATCHES = (
    "Each batch job gets a name of its own when a person starts it. The wildcard is limited to jobs that are "
    "named after the model for batch jobs, on its kind of machine; a job reads and writes with the model's "
    "role, and the statement has no action that stops or lists jobs."
)
_PACKAGE_VERSIONS = (
    "Versions of a model package are numbered as they are registered. The wildcard is limited to the one "
    "model package group of the task."
)
_PYTHON_VERSION = (
    "Python 3.11 is a runtime that AWS patches until June 2027. It is the version that this repository's "
    "environments and tests have, so the package that is tested, with its compiled wheels, is the one that "
    "runs."
)
_LAMBDA_INTERFACES = (
    "Lambda makes the function's network interfaces with the function's role, in the platform's subnets and "
    "security group only, and demands the other actions on all ids. Another statement takes every one of "
    "these actions away from the function's own code: only Lambda itself can use them."
)
_STACK_IDS = (
    "The ARN of a stack ends in an id that it gets when it is made. The wildcard is limited to the one "
    "stack name, and the statement allows looking at its state and outputs only."
)
_QUERY_RESULTS = (
    "Athena names the object of a result by the query's id. The role may write there, which Athena does in "
    "its name, and can neither read nor list nor decrypt what others have queried."
)
_LENT = (
    "Bucket and key of the other account have names that CloudFormation makes there. A condition limits "
    "the statement to that account, or to use through S3; what it really opens is written in the other "
    "account's bucket policy and key policy, which name this role, three prefixes and reading."
)
_SPACES = (
    "People name their spaces, and Studio fills in domain and profile when the role is used. Making, "
    "changing and deleting is limited by conditions to private spaces that the profile itself owns."
)
_STUDIO_LISTS = (
    "Studio's start page lists domains, profiles, spaces and applications; a list has no resource that IAM "
    "could compare. The answers hold names and states, nothing of what is in a space."
)
_PACKAGE_LISTS = (
    "Who trains or reviews lists model packages; a list has no resource that IAM could compare. The answer "
    "holds names and states, nothing of what is in a model."
)
_TABLES = (
    "The persona may ask all tables of the catalog; the wildcard is limited to the environment's database, "
    "and the statement reads descriptions of tables only."
)
_EXECUTIONS = "SageMaker makes the ids of executions. The wildcard is limited to those of the one pipeline."
_READ_STREAMS = (
    "SageMaker makes the names of log streams from those of jobs and machines. The wildcard is limited to "
    "the streams of the one log group, and the statement reads."
)
_PIPELINE_GRANTS = (
    "CDK Pipelines writes these policies: one inline policy a role, with the same grant on the artifacts to "
    "each. They reach this pipeline's own bucket and key, which hold sources and assemblies and nothing of "
    "patients, in an account that has nothing else."
)
_PIPELINE_INPUT = (
    "CodePipeline makes the names of artifacts. The wildcard is limited to the pipeline's own bucket, which "
    "holds sources and assemblies, and the statement allows reading them only."
)
_BUILD_LOGS = (
    "CDK Pipelines adds these to every project. The log group and reports that they name are CodeBuild's "
    "default ones, of this pipeline's builds; what the builds print goes to an encrypted group instead."
)
_LOGS_WITHOUT_KMS = (
    "S3 delivers server access logs only to buckets encrypted with S3-managed keys. The logs hold names of "
    "objects and who asked for them, never what is in an object."
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


def acknowledge_toolchain(toolchain: ToolchainStack) -> None:
    """The same for the delivery pipeline, which is beside the environments that it deploys."""
    for entry in toolchain_acknowledgements(toolchain):
        construct: IConstruct = toolchain
        for id in entry.path.split("/"):
            construct = construct.node.find_child(id)
        cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=entry.finding, reason=entry.reason))


def toolchain_acknowledgements(toolchain: ToolchainStack) -> Iterator[Acknowledgement]:
    """All of the delivery pipeline. Paths are below its stack; what is accepted of `Pipeline` is so of each
    role and project that CDK Pipelines makes.
    """
    for bucket, reason in {
        "AccessLogs": "They say who used the artifacts.",
        "Bucket": "Sources are in the repository, and an assembly is made from them again.",
    }.items():
        yield Acknowledgement(
            path=f"Artifacts/{bucket}/Resource",
            finding="HIPAA.Security-S3BucketReplicationEnabled",
            reason=_NO_REPLICA + reason,
        )
    yield Acknowledgement(
        path="Artifacts/AccessLogs/Resource",
        finding="HIPAA.Security-S3DefaultEncryptionKMS",
        reason=_LOGS_WITHOUT_KMS,
    )
    for finding, reason in {
        "HIPAA.Security-IAMNoInlinePolicy": _PIPELINE_GRANTS,
        "HIPAA.Security-CodeBuildProjectSourceRepoUrl": (
            "The rule looks for a repository with a token in its address. These projects have no repository: "
            "their source is what the pipeline hands them, and it comes through a CodeConnections "
            "connection, without a token."
        ),
    }.items():
        yield Acknowledgement(path="Pipeline", finding=finding, reason=reason)
    for action in (
        "kms:GenerateDataKey", "kms:ReEncrypt",
        "s3:Abort", "s3:DeleteObject", "s3:GetBucket", "s3:GetObject", "s3:List",
    ):  # fmt: skip
        yield Acknowledgement(
            path="Pipeline", finding=f"AwsSolutions-IAM5[Action::{action}*]", reason=_PIPELINE_GRANTS
        )
    artifacts = f"{_own(toolchain, toolchain.artifacts.bucket.bucket_arn)}/*"
    yield _wildcard("Pipeline", artifacts, _PIPELINE_GRANTS)
    yield _wildcard("Checks/Policy/Resource", artifacts, _PIPELINE_INPUT)
    for objects in toolchain.kept_parameters:
        yield _wildcard(
            "Checks/Policy/Resource",
            f"{_own(toolchain, toolchain.artifacts.bucket.bucket_arn)}/{objects}",
            "CodePipeline makes the last part of an artifact's key. The wildcards are limited to the "
            "artifacts of the step that keeps an environment's parameters; sources and assembly have other "
            "names.",
        )
    account, region = toolchain.account, toolchain.region
    for role in ("Pipeline/Build/Synth/CdkBuildProject", "UpdatePipeline/SelfMutation"):
        project = cdk.Stack.of(toolchain).get_logical_id(_resource(toolchain, f"Pipeline/{role}/Resource"))
        policy = f"Pipeline/{role}/Role/DefaultPolicy/Resource"
        for resource in (
            f"arn:aws:logs:{region}:{account}:log-group:/aws/codebuild/<{project}>:*",
            f"arn:aws:codebuild:{region}:{account}:report-group/<{project}>-*",
        ):
            yield _wildcard(policy, resource, _BUILD_LOGS)
    for kind in ("Docker", "File"):
        policy = f"Pipeline/Assets/{kind}Role/DefaultPolicy/Resource"
        for resource in (
            f"arn:aws:logs:{region}:{account}:log-group:/aws/codebuild/*",
            f"arn:aws:codebuild:{region}:{account}:report-group/*",
        ):
            yield _wildcard(policy, resource, _BUILD_LOGS)
        yield _wildcard(
            policy,
            "*",
            "CDK Pipelines lets what publishes assets start and stop builds. In this account there are the "
            "builds of this pipeline and nothing else, and they run with roles of their own.",
        )
    mutation = "Pipeline/UpdatePipeline/SelfMutation/Role/DefaultPolicy/Resource"
    yield _wildcard(
        mutation,
        f"arn:*:iam::{account}:role/*",
        "Updating the pipeline itself goes through the roles of the bootstrap stack of this account, which "
        "has no patient data. A condition on their tag limits the statement to the three that deploy and "
        "publish, and each of them trusts the account explicitly.",
    )
    yield _wildcard(
        mutation,
        "*",
        "Covers cloudformation:DescribeStacks and s3:ListBucket, with which the command line looks for the "
        "bootstrap stack and its bucket. Both only look, in an account that has the pipeline and nothing "
        "else.",
    )


def acknowledgements(platform: Platform) -> Iterator[Acknowledgement]:
    """All of them."""
    yield from _roles(platform)
    yield from _network(platform)
    yield from _studio(platform)
    yield from _index_function()
    yield from _catalog_upkeep(platform)
    yield from _dispatch_function(platform)
    yield from _reconcile_function(platform)
    yield from _announce_function(platform)
    yield from _buckets()
    yield from _deidentification_key()
    yield from _receiver(platform)
    yield from _audit_and_alarms()
    yield from _promotion(platform)


def _roles(platform: Platform) -> Iterator[Acknowledgement]:
    data, buckets = platform.data, platform.data.buckets
    image_sets = f"{_exported(data, data.archive.datastore_arn)}/imageset/*"
    catalog, models, results = (
        _exported(data, bucket.bucket_arn) for bucket in (buckets.catalog, buckets.models, buckets.results)
    )

    importer = "data/Importer/Policy/Resource"
    for bucket in (buckets.inbox, buckets.imports):
        for prefix in ("ingest", "received"):
            yield _wildcard(importer, f"{_own(data, bucket.bucket_arn)}/{prefix}/*", _OBJECTS)

    indexer = "catalog/Index/Workload/Policy/Resource"
    crawler = "catalog/Consistency/Workload/Policy/Resource"
    yield _wildcard(indexer, image_sets, _IMAGE_SETS)
    for role in (indexer, crawler):
        yield _wildcard(role, f"{catalog}/changes/*", _OBJECTS)
    yield _wildcard(crawler, _log_groups(platform, "/aws-glue/crawlers"), _LOG_STREAMS)
    yield from _in_network(platform, indexer)

    for job, prefixes in {
        "Trainer": ("manifests", "bundles", "checkpoints", "training"),
        "Evaluator": ("manifests", "training", "promoted", "evaluation"),
    }.items():
        role = f"training/{job}/Policy/Resource"
        yield _wildcard(role, image_sets, _IMAGE_SETS)
        for prefix in prefixes:
            yield _wildcard(role, f"{models}/{prefix}/*", _OBJECTS)
        yield from _connected_by_sagemaker(platform, role, also=_PACKAGE_LIST if job == "Evaluator" else "")
    for task in platform.environment.training.tasks:
        yield from _pipeline_runner(platform, task=task, models=models)
        packages = f"{_sagemaker(platform)}:model-package/monai-{platform.environment.name}-{task.name}/*"
        yield _wildcard("training/Evaluator/Policy/Resource", packages, _PACKAGE_VERSIONS)

    yield from _containers(platform, image_sets=image_sets, models=models, results=results)


def _containers(
    platform: Platform, *, image_sets: str, models: str, results: str
) -> Iterator[Acknowledgement]:
    """Of the role of each way of serving (infra/inference/container_role.py)."""
    for endpoint in platform.environment.inference.endpoints:
        role = f"inference/{endpoint.logical_name}/Container/Policy/Resource"
        yield _wildcard(role, image_sets, _IMAGE_SETS)
        loaded = (
            [f"multi-model/{endpoint.name}"] if endpoint.mode == "multi-model" else ["training", "promoted"]
        )
        for prefix in loaded:
            yield _wildcard(role, f"{models}/{prefix}/*", _OBJECTS)
        exchanged = {
            "asynchronous": ["requests", "responses", "failures"],
            "batch": [f"requests/batch/{endpoint.name}", f"responses/batch/{endpoint.name}"],
        }.get(endpoint.mode, [])
        for prefix in ("segmentations", *exchanged):
            yield _wildcard(role, f"{results}/{prefix}/*", _OBJECTS)
        if endpoint.mode == "serverless":
            yield _wildcard(role, "*", _NO_RESOURCES)
            yield Acknowledgement(
                path=f"inference/{endpoint.logical_name}/Approved/Model",
                finding="CloudFormation-Validate::MODEL_INSIDE_VPC",
                reason=(
                    "SageMaker does not connect a serverless endpoint to a VPC. The environment file may "
                    "name one only where it says that there is no patient data (protection.patient_data)."
                ),
            )
        else:
            yield from _connected_by_sagemaker(platform, role)


def _connected_by_sagemaker(platform: Platform, policy: str, *, also: str = "") -> Iterator[Acknowledgement]:
    """Of a container's role in the network (`permissions.join_network`).

    Args:
        also: Why the role may do something else that has no resource.
    """
    aws = platform.environment.aws
    interfaces = f"arn:aws:ec2:{aws.region}:{aws.account}:network-interface/*"
    yield _wildcard(policy, interfaces, _SAGEMAKER_INTERFACES)
    yield _wildcard(policy, "*", " ".join(filter(None, [_NO_RESOURCES_IN_NETWORK, also])))


def _in_network(platform: Platform, policy: str) -> Iterator[Acknowledgement]:
    """Of a function in the network (`permissions.place_in_network`)."""
    aws = platform.environment.aws
    for resource in ("*/*", "network-interface/*"):
        yield _wildcard(policy, f"arn:aws:ec2:{aws.region}:{aws.account}:{resource}", _LAMBDA_INTERFACES)
    yield _wildcard(policy, "*", _LAMBDA_INTERFACES)


def _pipeline_runner(platform: Platform, *, task: Task, models: str) -> Iterator[Acknowledgement]:
    runner = f"training/{task.logical_name}/Runner/Policy/Resource"
    for prefix in ("training", "evaluation"):
        yield _wildcard(runner, f"{models}/{prefix}/*", _OBJECTS)
    sagemaker = _sagemaker(platform)
    for kind in ("training-job", "processing-job"):
        yield _wildcard(runner, f"{sagemaker}:{kind}/pipelines-*", _PIPELINE_JOBS)
    group = f"monai-{platform.environment.name}-{task.name}"
    yield _wildcard(runner, f"{sagemaker}:model-package/{group}/*", _PACKAGE_VERSIONS)


def _network(platform: Platform) -> Iterator[Acknowledgement]:
    yield Acknowledgement(
        path="network/Workloads/FromEachOther",
        finding="HIPAA.Security-EC2RestrictedCommonPorts",
        reason=(
            "The rule pack does not look at where the traffic comes from: this rule admits members of the "
            "same group only, which are the platform's own containers and functions and nothing that a "
            "person works on: notebook servers have another group. Machines of one training job talk on "
            "ports that they choose, and SageMaker encrypts that with IPsec, which has no ports."
        ),
    )
    if platform.environment.network.existing:
        return
    for index, _ in enumerate(platform.environment.network.availability_zones, start=1):
        yield Acknowledgement(
            path=f"network/Vpc/IsolatedSubnet{index}/Subnet",
            finding="CloudFormation-Validate::W3010",
            reason=(
                "The zones are in the environment file. A template that asked the account for its zones "
                "could not be made without credentials, and could move subnets when AWS adds a zone."
            ),
        )
    yield Acknowledgement(
        path="network/Vpc/Resource",
        finding="HIPAA.Security-VPCDefaultSecurityGroupClosed",
        reason=(
            "CloudFormation cannot close the group, so this is reported of every VPC, however it is. A "
            "custom resource of this stack removes all rules of the group (network/DefaultGroup), and a "
            "test sees them gone."
        ),
    )
    yield _wildcard(
        "network/DefaultGroup/Workload/Policy/Resource",
        "*",
        "For ec2:DescribeSecurityGroups IAM knows no resources, and it shows names and rules of security "
        "groups only. Rules can be removed from one group: the ARN is in the statement beside it.",
    )
    function = "network/DefaultGroup/Function/Resource"
    for finding, reason in {
        "AwsSolutions-L1": _PYTHON_VERSION,
        "HIPAA.Security-LambdaConcurrency": (
            "Only CloudFormation calls the function, once when a network is made. A reservation would take "
            "from the account's concurrency for good what is needed for seconds."
        ),
        "HIPAA.Security-LambdaDLQ": (
            "CloudFormation waits for the function's answer and fails the deployment when there is none. A "
            "queue of requests whose deployment has ended would have no reader."
        ),
        "HIPAA.Security-LambdaInsideVPC": (
            "The function makes the network safe before anything is in it, and calls EC2, for which nothing "
            "in the network needs an endpoint. It is given the id of a security group and an address to "
            "answer to; it can read no patient data, and its package has no library beside Lambda's own."
        ),
    }.items():
        yield Acknowledgement(path=function, finding=finding, reason=reason)


def _studio(platform: Platform) -> Iterator[Acknowledgement]:
    """Of the personas that the environment has, each with what it shares with all, and its own."""
    data, buckets, environment = platform.data, platform.data.buckets, platform.environment
    region_account = f"{environment.aws.region}:{environment.aws.account}"
    sagemaker = f"arn:aws:sagemaker:{region_account}"
    models, results = (_exported(data, bucket.bucket_arn) for bucket in (buckets.models, buckets.results))
    catalog = _exported(data, buckets.catalog.bucket_arn)
    inbox, imports = (_exported(data, bucket.bucket_arn) for bucket in (buckets.inbox, buckets.imports))
    brought = ["ingest", "ledger", "received"]
    if environment.arrival.deidentify:
        brought += ["reidentification", "reports/deidentification"]
    image_sets = {f"{_exported(data, data.archive.datastore_arn)}/imageset/*": _IMAGE_SETS}
    reviewed = {f"{models}/{prefix}/*": _OBJECTS for prefix in ("evaluation", "manifests")}
    reviewed |= {f"{models}/promoted/*/evaluation.json": _OBJECTS}
    tasks = [f"monai-{environment.name}-{task.name}" for task in environment.training.tasks]
    packages = {f"{sagemaker}:model-package/{task}/*": _PACKAGE_VERSIONS for task in tasks}
    endpoints = [
        f"Endpoints/{endpoint.endpoint_name(environment.name)}"
        for endpoint in environment.inference.endpoints
        if not isinstance(endpoint, BatchTransform)
    ] + [
        f"InferenceComponents/{endpoint.component_name(environment.name, model)}"
        for endpoint in environment.inference.endpoints
        if isinstance(endpoint, ComponentEndpoint)
        for model in endpoint.models
    ]
    batches = [one.name for one in environment.inference.endpoints if isinstance(one, BatchTransform)]

    def stacks(*parts: str) -> dict[str, str]:
        prefix = f"arn:aws:cloudformation:{region_account}:stack/monai-{environment.name}"
        return {f"{prefix}-{part}/*": _STACK_IDS for part in parts}

    def streams(*groups: str) -> dict[str, str]:
        prefix = f"arn:aws:logs:{region_account}:log-group:/aws/sagemaker"
        return {f"{prefix}/{group}:*": _READ_STREAMS for group in groups}

    everyone = {
        f"{sagemaker}:space/<sagemaker:DomainId>/*": _SPACES,
        **{
            f"{sagemaker}:app/<sagemaker:DomainId>/*/{type}/*": _SPACES
            for type in ("JupyterLab", "jupyterlab")
        },
        "*": _STUDIO_LISTS,
    }
    lists_packages = {"*": _PACKAGE_LISTS} if tasks else {}
    own: dict[str, dict[str, dict[str, str]]] = {
        "data-scientist": {
            "Catalog": {
                **stacks("data", "catalog", "training"),
                f"arn:aws:glue:{region_account}:table/monai_{environment.name.replace('-', '_')}/*": _TABLES,
                f"{catalog}/*": _OBJECTS,
                f"{catalog}/query-results/*": _OBJECTS,
            },
            "Images": image_sets,
            "Training": {
                **reviewed,
                **packages,
                **lists_packages,
                f"{models}/bundles/*": _OBJECTS,
                **{f"{sagemaker}:pipeline/{task}/execution/*": _EXECUTIONS for task in tasks},
                **(streams("ProcessingJobs", "TrainingJobs") if tasks else {}),
            },
        },
        "model-reviewer": {"Models": {**stacks("training"), **reviewed, **packages, **lists_packages}},
        "clinical-integrator": {
            "Arrival": {
                **stacks("catalog", "data", "inference"),
                **{f"{inbox}/{prefix}/*": _OBJECTS for prefix in ("ingest", "quarantine", "failed")},
                **{f"{imports}/{prefix}/*": _OBJECTS for prefix in brought},
            },
            "Images": image_sets,
            "Results": {
                f"{results}/{prefix}/*": _OBJECTS for prefix in ("requests", "responses", "failures")
            },
            "Endpoints": {
                **{
                    arn: _QUEUES
                    for kind in ("DeadLetters", "Queue")
                    for arn in queue_arns(platform.studio, environment.name, kind)
                },
                **{f"{sagemaker}:transform-job/{name[:40].rstrip('-')}-*": _BATCHES for name in batches},
                **streams(*endpoints, *(["TransformJobs"] if batches else [])),
            },
        },
    }
    roles: dict[str, dict[str, dict[str, str]]] = {"Newcomer": {}}
    roles |= {pascal_case(user.persona): own[user.persona] for user in environment.studio.users}
    for role, topics in roles.items():
        of_policies = {"Policy": everyone, **{f"PolicyOn{topic}": found for topic, found in topics.items()}}
        for policy, resources in of_policies.items():
            for resource, reason in resources.items():
                yield _wildcard(f"studio/{role}/{policy}/Resource", resource, reason)


def _started_by_its_queue(
    function: str, *, at_a_time: str = "two", lost: str = "events that the rule cannot deliver"
) -> Iterator[Acknowledgement]:
    for finding, reason in {
        "AwsSolutions-L1": _PYTHON_VERSION,
        "HIPAA.Security-LambdaConcurrency": (
            "The function is started by its queue alone, and the event source mapping limits it to "
            f"{at_a_time} at a time. A reservation would be a second limit of the same kind: below the "
            "mapping's it throttles what was already taken from the queue, above it it has no effect."
        ),
        "HIPAA.Security-LambdaDLQ": (
            "A function's own dead-letter queue is for asynchronous invocations; this one reads a queue. "
            f"What fails five times goes to the dead-letter queue of that queue, and so do {lost}."
        ),
    }.items():
        yield Acknowledgement(path=function, finding=finding, reason=reason)


def _index_function() -> Iterator[Acknowledgement]:
    yield from _started_by_its_queue("catalog/Index/Function/Resource", at_a_time="four")


def _catalog_upkeep(platform: Platform) -> Iterator[Acknowledgement]:
    """The functions that keep the catalog in order."""
    catalog = _exported(platform.data, platform.data.buckets.catalog.bucket_arn)
    reasons = {
        "Compaction": (
            (
                "A schedule starts the function once in its period, which is not shorter than its time "
                "limit. Of two at once, the second finds the first one's note, written under a condition of "
                "S3, and ends. A reservation would not fit into a new account, whose concurrency is small."
            ),
            (
                "What waits to be compacted stays where it is, and people see it: a run that failed is made "
                "up for by the next."
            ),
        ),
        "Comparison": (
            (
                "A schedule starts the function once in its period, which is longer than its time limit. Two "
                "at once would have some image sets indexed twice, which changes nothing."
            ),
            (
                "What the function looks for is in the archive and stays there: a run that failed is made up "
                "for by the next."
            ),
        ),
    }
    for function, (concurrency, dead_letters) in reasons.items():
        role = f"catalog/Upkeep/{function}/Workload/Policy/Resource"
        for prefix in ("changes", "compacted", function.lower(), "query-results"):
            yield _wildcard(role, f"{catalog}/{prefix}/*", _OBJECTS)
        yield from _in_network(platform, role)
        for finding, reason in {
            "AwsSolutions-L1": _PYTHON_VERSION,
            "HIPAA.Security-LambdaConcurrency": concurrency,
            "HIPAA.Security-LambdaDLQ": dead_letters,
        }.items():
            path = f"catalog/Upkeep/{function}/Function/Resource"
            yield Acknowledgement(path=path, finding=finding, reason=reason)


def _dispatch_function(platform: Platform) -> Iterator[Acknowledgement]:
    """Of the event path, which environments without rules do not have."""
    if not platform.environment.inference.rules:
        return
    data, role = platform.data, "inference/Events/Workload/Policy/Resource"
    yield _wildcard(role, f"{_exported(data, data.archive.datastore_arn)}/imageset/*", _IMAGE_SETS)
    results = _exported(data, data.buckets.results.bucket_arn)
    yield _wildcard(role, f"{results}/requests/dispatch/*", _OBJECTS)
    yield from _in_network(platform, role)
    yield from _started_by_its_queue("inference/Events/Function/Resource")


def _reconcile_function(platform: Platform) -> Iterator[Acknowledgement]:
    """The net under the event path."""
    if not platform.environment.inference.rules:
        return
    data, role = platform.data, "inference/Reconcile/Workload/Policy/Resource"
    yield _wildcard(role, f"{_exported(data, data.archive.datastore_arn)}/imageset/*", _IMAGE_SETS)
    results = _exported(data, data.buckets.results.bucket_arn)
    yield _wildcard(role, f"{results}/requests/dispatch/*", _OBJECTS)
    yield from _in_network(platform, role)
    for finding, reason in {
        "AwsSolutions-L1": _PYTHON_VERSION,
        "HIPAA.Security-LambdaConcurrency": (
            "A schedule starts the function once in its period, which is longer than its time limit. Two at "
            "once would send nothing twice."
        ),
        "HIPAA.Security-LambdaDLQ": (
            "What the function looks for is in the archive and stays there: a run that failed is made up for "
            "by the next. A queue of failed starts would hold nothing but times. An alarm says that it fails."
        ),
    }.items():
        yield Acknowledgement(path="inference/Reconcile/Function/Resource", finding=finding, reason=reason)


def _announce_function(platform: Platform) -> Iterator[Acknowledgement]:
    """Where there are asynchronous endpoints."""
    endpoints = platform.environment.inference.endpoints
    if not any(isinstance(endpoint, AsynchronousEndpoint) for endpoint in endpoints):
        return
    data, role = platform.data, "inference/Announce/Workload/Policy/Resource"
    results = _exported(data, data.buckets.results.bucket_arn)
    for prefix in ("requests", "responses", "failures", "failures/noted"):
        yield _wildcard(role, f"{results}/{prefix}/*", _OBJECTS)
    yield from _in_network(platform, role)
    yield from _started_by_its_queue(
        "inference/Announce/Function/Resource", lost="notifications that the topics cannot deliver"
    )


def _promotion(platform: Platform) -> Iterator[Acknowledgement]:
    """Of the stack `promotion`, which environments outside the delivery do not have."""
    if platform.promotion is None:
        return
    aws, data = platform.environment.aws, platform.data
    verifier = "promotion/Verification/Workload/Policy/Resource"
    for name in platform.promotion.verified_stacks:
        stack = f"arn:aws:cloudformation:{aws.region}:{aws.account}:stack/{name}/*"
        yield _wildcard(verifier, stack, _STACK_IDS)
    catalog = _exported(data, data.buckets.catalog.bucket_arn)
    yield _wildcard(verifier, f"{catalog}/query-results/*", _QUERY_RESULTS)
    intake = platform.promotion.intake
    if intake is None:
        return
    promoter = "promotion/Candidates/Workload/Policy/Resource"
    there = intake.before.aws
    for pattern in ("training/*", "evaluation/*/evaluation.json", "promoted/*"):
        yield _wildcard(promoter, lent_objects(intake.before, pattern), _LENT)
    yield _wildcard(promoter, f"arn:aws:kms:{there.region}:{there.account}:key/*", _LENT)
    for group_there, group_here in intake.groups.items():
        for account, group in ((there.account, group_there), (aws.account, group_here)):
            packages = f"arn:aws:sagemaker:{aws.region}:{account}:model-package/{group}/*"
            yield _wildcard(promoter, packages, _PACKAGE_VERSIONS)
    models = _exported(data, data.buckets.models.bucket_arn)
    yield _wildcard(promoter, f"{models}/promoted/*", _OBJECTS)
    yield from _in_network(platform, promoter)
    yield from _started_by_its_queue("promotion/Candidates/Function/Resource")


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


def _deidentification_key() -> Iterator[Acknowledgement]:
    for finding in ("AwsSolutions-SMG4", "HIPAA.Security-SecretsManagerRotationEnabled"):
        yield Acknowledgement(
            path="data/Deidentification/Secret",
            finding=finding,
            reason=(
                "The text is no credential: nobody signs in with it. Pseudonyms, new UIDs and shifts of "
                "dates are derived of it, and sealed records are opened with it. With another text the next "
                "study of a patient would be another patient's, and what is sealed could never be opened. "
                "Reading it is granted to two roles at most, and CloudTrail records each reading."
            ),
        )


def _receiver(platform: Platform) -> Iterator[Acknowledgement]:
    """Of the stack `arrival`, which environments without a receiver do not have."""
    if platform.arrival is None:
        return
    data, buckets, environment = platform.data, platform.data.buckets, platform.environment
    inbox, imports = (_exported(data, bucket.bucket_arn) for bucket in (buckets.inbox, buckets.imports))
    role = "arrival/Receiver/Policy/Resource"
    for prefix in ("received", "quarantine", "failed"):
        yield _wildcard(role, f"{inbox}/{prefix}/*", _OBJECTS)
    sealed = ["reidentification"] if environment.arrival.deidentify else []
    for prefix in ("received", "reports/deidentification", *sealed):
        yield _wildcard(role, f"{imports}/{prefix}/*", _OBJECTS)
    yield _wildcard(
        "arrival/Service/Starter/Policy/Resource",
        "*",
        "Covers ecr:GetAuthorizationToken, for which IAM knows no resources. It gives only a login; what "
        "can be pulled is limited to one repository by the statement beside it.",
    )
    yield Acknowledgement(
        path="arrival/Service/Task",
        finding="AwsSolutions-ECS2",
        reason=(
            "The variables are names: of the data store, of buckets, of a role, of secrets, and which "
            "devices may call. No value of a secret is among them; the process reads those with its own "
            "role, and CloudTrail records it."
        ),
    )
    no_access_log = (
        "Elastic Load Balancing writes access logs of a network load balancer for its TLS listeners only, "
        "and this one passes TCP on. The VPC's flow log has every connection that was accepted or rejected, "
        "and the receiver logs every association with its address and its title."
    )
    for finding in ("AwsSolutions-ELB2", "HIPAA.Security-ELBLoggingEnabled"):
        yield Acknowledgement(path="arrival/Address/Balancer", finding=finding, reason=no_access_log)
    yield Acknowledgement(
        path="arrival/Address/Listener",
        finding="HIPAA.Security-ELBv2ACMCertificateRequired",
        reason=(
            "TLS of DICOM (PS3.15 annex B) ends in the receiver and not in the load balancer: only so does "
            "the receiver see the device's certificate, and nothing is in the clear on the way between the "
            "two. Whether devices speak TLS is said in the environment file "
            "(arrival.receiver.tls_secret_arn); many cannot, and then the line between hospital and VPC has "
            "to be encrypted (docs/security.md, Network)."
        ),
    )
    if not environment.protection.termination_protection:
        yield Acknowledgement(
            path="arrival/Address/Balancer",
            finding="HIPAA.Security-ELBDeletionProtectionEnabled",
            reason=(
                "This environment is made to be thrown away (protection.termination_protection is false), "
                "its stacks included. Where it is true, the load balancer is protected from deletion."
            ),
        )


def _audit_and_alarms() -> Iterator[Acknowledgement]:
    yield Acknowledgement(
        path="data/Audit/Bucket/Resource",
        finding="HIPAA.Security-S3BucketReplicationEnabled",
        reason=(
            _NO_REPLICA + "Where data are retained, the records are under Object Lock until they may go, and "
            "the log group has every record a second time."
        ),
    )
    yield Acknowledgement(
        path="observability/Failures/Queue/Resource",
        finding="AwsSolutions-SQS3",
        reason=(
            "Nothing works this queue off, so nothing can fail to: it keeps the events of failed jobs for "
            "the person who repairs them, as a dead-letter queue does, and each event has an alarm."
        ),
    )


def _wildcard(path: str, resource: str, reason: str) -> Acknowledgement:
    return Acknowledgement(path=path, finding=f"AwsSolutions-IAM5[Resource::{resource}]", reason=reason)


def _resource(scope: IConstruct, path: str) -> cdk.CfnElement:
    """The resource at a path below `scope`."""
    for id in path.split("/"):
        scope = scope.node.find_child(id)
    if not isinstance(scope, cdk.CfnElement):
        raise TypeError(f"{path} is not a resource")
    return scope


def _own(stack: cdk.Stack, arn: str) -> str:
    """How a finding names the ARN of a resource of the same stack."""
    logical_id, attribute = stack.resolve(arn)["Fn::GetAtt"]
    return f"<{logical_id}.{attribute}>"


def _exported(stack: cdk.Stack, arn: str) -> str:
    """How a finding names the ARN of a resource of another stack: by the export through which it comes."""
    return str(stack.resolve(stack.export_value(arn))["Fn::ImportValue"])


def _sagemaker(platform: Platform) -> str:
    """How every ARN of SageMaker's in the environment begins."""
    aws = platform.environment.aws
    return f"arn:aws:sagemaker:{aws.region}:{aws.account}"


def _log_groups(platform: Platform, prefix: str) -> str:
    aws = platform.environment.aws
    return f"arn:aws:logs:{aws.region}:{aws.account}:log-group:{prefix}*"
