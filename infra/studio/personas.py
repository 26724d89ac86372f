"""What each persona may do, found from what the commands of `workbench` call on AWS.

Nobody changes or deletes an image set, and nobody deploys. Putting an approved model into service updates the
inference stack, and CloudFormation does that with the role of the last deployment, whatever template it is
given: who may update a stack may do everything that this role may. So the reviewer marks the package as
approved, and somebody who may deploy puts it into service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from infra.data.archive import Archive
from infra.data.buckets import (
    BUNDLES,
    DEIDENTIFICATION_REPORTS,
    DISPATCHED,
    EVALUATION,
    FAILURES,
    INGEST,
    LEDGER,
    MANIFESTS,
    NOT_IMPORTED,
    PROMOTED,
    QUARANTINE,
    QUERY_RESULTS,
    RECEIVED,
    REIDENTIFICATION,
    REQUESTS,
    RESPONSES,
    Buckets,
)
from infra.environment import (
    AsynchronousEndpoint,
    BatchTransform,
    ComponentEndpoint,
    Environment,
    MultiModelEndpoint,
    Persona,
    RealTimeEndpoint,
    ServerlessEndpoint,
)
from infra.permissions import (
    read_image_sets,
    read_objects,
    read_packages,
    search_image_sets,
    write_objects,
)
from infra.studio.repairs import repair
from infra.workload import allow, deny

Permissions = Mapping[str, Sequence[iam.PolicyStatement]]
"""What a persona may do, by topic. Each topic has a managed policy of its own: all of them together are
longer than IAM takes in one, and every environment adds tasks and endpoints.
"""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the permissions refer to."""

    stack: cdk.Stack
    environment: Environment
    archive: Archive
    buckets: Buckets
    import_role_arn: str
    deidentification_secret_arn: str

    def arn(self, service: str, resource: str, name: str) -> str:
        return self.stack.format_arn(service=service, resource=resource, resource_name=name)

    def read_outputs(self, *stacks: str) -> iam.PolicyStatement:
        """Outputs of the environment's stacks: the commands find everything there."""
        names = [f"monai-{self.environment.name}-{stack}" for stack in stacks]
        return allow(
            "cloudformation:DescribeStacks", on=[self.arn("cloudformation", "stack", f"{n}/*") for n in names]
        )

    def read_logs(self, *groups: str) -> iam.PolicyStatement:
        """What the containers of jobs or endpoints print."""
        arns = [
            self.stack.format_arn(
                service="logs",
                resource="log-group",
                resource_name=f"/aws/sagemaker/{group}:*",
                arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
            )
            for group in groups
        ]
        return allow("logs:DescribeLogStreams", "logs:GetLogEvents", on=arns)

    @property
    def tasks(self) -> list[str]:
        """Names of the pipelines and model package groups."""
        return [f"monai-{self.environment.name}-{task.name}" for task in self.environment.training.tasks]

    @property
    def packages(self) -> list[str]:
        """All versions of all models."""
        return [self.arn("sagemaker", "model-package", f"{task}/*") for task in self.tasks]


def data_scientist(around: Surroundings) -> Permissions:
    """Ask the catalog, look at image sets, make datasets, train, watch and compare."""
    return {
        "Catalog": [around.read_outputs("data", "catalog", "training"), *_query_catalog(around)],
        "Images": _look_at_images(around.archive),
        "Training": [
            # Manifest and bundle are evidence of what a model was made of: they are named by their content,
            # the bucket refuses to overwrite them, and nobody may delete them.
            write_objects(around.buckets.models, MANIFESTS, BUNDLES),
            _read_evidence(around.buckets),
            *_train(around),
        ],
    }


def model_reviewer(around: Surroundings) -> Permissions:
    """Read what a model was trained on and how well it did, with pictures of its worst cases, and approve it.

    No image sets. But a score alone does not say where a model fails: a report shows planes of the worst.
    """
    return {
        "Models": [
            around.read_outputs("training"),
            *read_packages(around.stack, groups=around.tasks),
            *_for_tasks(around, "sagemaker:UpdateModelPackage"),
            _read_evidence(around.buckets),
        ]
    }


def clinical_integrator(around: Surroundings) -> Permissions:
    """Import studies, look at them and at results, ask endpoints, and send again what was missed."""
    return {
        "Arrival": [
            # The catalog's outputs name the queue of what could not be indexed.
            around.read_outputs("catalog", "data", "inference"),
            *_bring_in(around),
            allow(
                "medical-imaging:GetDICOMImportJob",
                "medical-imaging:StartDICOMImportJob",
                on=[around.archive.datastore_arn],
            ),
            allow(
                "iam:PassRole",
                on=[around.import_role_arn],
                when={"StringEquals": {"iam:PassedToService": "medical-imaging.amazonaws.com"}},
            ),
        ],
        "Images": _look_at_images(around.archive),
        "Results": _results(around.buckets),
        "Endpoints": [
            *_predict(around),
            *_predict_in_batches(around),
            *repair(around.stack, around.environment.name),
        ],
    }


PERSONAS: Mapping[Persona, Callable[[Surroundings], Permissions]] = {
    "data-scientist": data_scientist,
    "model-reviewer": model_reviewer,
    "clinical-integrator": clinical_integrator,
}


def _look_at_images(archive: Archive) -> list[iam.PolicyStatement]:
    """Read image sets, and search: a viewer that did not find a series' segmentations would show the images
    as if there were none.
    """
    return [read_image_sets(archive), search_image_sets(archive)]


def _results(buckets: Buckets) -> list[iam.PolicyStatement]:
    """Write requests and read what came of them."""
    return [
        write_objects(buckets.results, REQUESTS),
        # Requests of the event path say what has been sent. Whoever could write one could keep a patient's
        # study from ever being sent, or give a request that waits in the queue another patient's images.
        deny("s3:PutObject", on=[buckets.results.arn_for_objects(f"{DISPATCHED}*")]),
        # With the right to list, S3 says of an answer that is not there yet just that, and not that it
        # must not be read. That request has no prefix which a condition could ask for
        # (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html).
        allow(
            "s3:ListBucket",
            on=[bucket.bucket_arn for bucket in (buckets.inbox, buckets.imports, buckets.results)],
        ),
        allow(
            "s3:GetObject",
            on=[buckets.results.arn_for_objects(f"{prefix}*") for prefix in (RESPONSES, FAILURES)],
        ),
    ]


def _bring_in(around: Surroundings) -> list[iam.PolicyStatement]:
    """Bring files, note for the next time which have been brought, and see to what the receiver could not
    have imported.

    Where studies are de-identified, who brings them does it, and so holds the key; what is on record of who
    is who can be opened with it. That is no more than they know: the originals went through their hands.
    Nobody else who works here can read the key.
    """
    imports, secret = around.buckets.imports, around.deidentification_secret_arn
    deidentifies = around.environment.arrival.deidentify
    own = [REIDENTIFICATION] if deidentifies else []
    inbox = around.buckets.inbox
    return [
        write_objects(inbox, INGEST),
        # What the receiver could not have imported waits for a person who looks at it, brings it in by hand
        # or sends it again, and takes it away. Old versions stay for a while.
        allow(
            "s3:DeleteObject",
            "s3:GetObject",
            on=[inbox.arn_for_objects(f"{prefix}*") for prefix in (QUARANTINE, NOT_IMPORTED)],
        ),
        allow(
            "s3:GetObject",
            on=[imports.arn_for_objects(f"{prefix}*") for prefix in (INGEST, LEDGER, RECEIVED, *own)],
        ),
        write_objects(imports, LEDGER, *([DEIDENTIFICATION_REPORTS] if deidentifies else []), *own),
        *([allow("secretsmanager:GetSecretValue", on=[secret])] if deidentifies else []),
    ]


def _query_catalog(around: Surroundings) -> list[iam.PolicyStatement]:
    """Athena reads tables and writes results with the permissions of who asks
    (https://docs.aws.amazon.com/athena/latest/ug/s3-permissions.html).
    """
    catalog = around.buckets.catalog
    database = f"monai_{around.environment.name.replace('-', '_')}"
    return [
        allow(
            "athena:BatchGetNamedQuery",
            "athena:GetQueryExecution",
            "athena:GetQueryResults",
            "athena:ListNamedQueries",
            "athena:StartQueryExecution",
            # Who interrupts the command ends the query: one that reads all of the catalog goes on costing.
            "athena:StopQueryExecution",
            on=[around.arn("athena", "workgroup", f"monai-{around.environment.name}")],
        ),
        allow(
            "glue:GetDatabase",
            "glue:GetTable",
            on=[
                around.stack.format_arn(service="glue", resource="catalog"),
                around.arn("glue", "database", database),
                around.arn("glue", "table", f"{database}/*"),
            ],
        ),
        allow("s3:GetBucketLocation", on=[catalog.bucket_arn]),
        *read_objects(catalog),
        write_objects(catalog, QUERY_RESULTS),
    ]


def _read_evidence(buckets: Buckets) -> iam.PolicyStatement:
    """What models were trained on, and how well they did: here, and in the environment before this one."""
    where = [f"{EVALUATION}*", f"{MANIFESTS}*", f"{PROMOTED}*/evaluation.json"]
    return allow("s3:GetObject", on=[buckets.models.arn_for_objects(pattern) for pattern in where])


def _train(around: Surroundings) -> list[iam.PolicyStatement]:
    if not around.tasks:
        return []
    pipelines = [around.arn("sagemaker", "pipeline", task) for task in around.tasks]
    return [
        # Starting passes no role: each pipeline brings its own.
        allow(
            "sagemaker:DescribePipeline",
            "sagemaker:ListPipelineExecutions",
            "sagemaker:StartPipelineExecution",
            on=pipelines,
        ),
        allow(
            "sagemaker:DescribePipelineExecution",
            "sagemaker:ListPipelineExecutionSteps",
            "sagemaker:ListPipelineParametersForExecution",
            "sagemaker:StopPipelineExecution",
            on=[f"{pipeline}/execution/*" for pipeline in pipelines],
        ),
        *read_packages(around.stack, groups=around.tasks),
        around.read_logs("ProcessingJobs", "TrainingJobs"),
    ]


def _for_tasks(around: Surroundings, *actions: str) -> list[iam.PolicyStatement]:
    return [allow(*actions, on=around.packages)] if around.packages else []


def _predict(around: Surroundings) -> list[iam.PolicyStatement]:
    """Ask the endpoints that answer later, and those that answer at once."""
    environment = around.environment.name
    later, at_once, logs = [], [], []
    for endpoint in around.environment.inference.endpoints:
        match endpoint:
            case AsynchronousEndpoint():
                later.append(endpoint.endpoint_name(environment))
            case RealTimeEndpoint() | MultiModelEndpoint() | ServerlessEndpoint():
                at_once.append(endpoint.endpoint_name(environment))
            case ComponentEndpoint():
                at_once.append(endpoint.endpoint_name(environment))
                logs += [
                    f"InferenceComponents/{endpoint.component_name(environment, model)}"
                    for model in endpoint.models
                ]
            case BatchTransform():
                continue
    calls = {"sagemaker:InvokeEndpointAsync": later, "sagemaker:InvokeEndpoint": at_once}
    statements = [
        allow(action, on=[around.arn("sagemaker", "endpoint", name) for name in names])
        for action, names in calls.items()
        if names
    ]
    if statements:
        statements.append(around.read_logs(*(f"Endpoints/{name}" for name in [*later, *at_once]), *logs))
    return statements


def _predict_in_batches(around: Surroundings) -> list[iam.PolicyStatement]:
    """Start jobs with the models for them, on machines of their kind. Starting passes no role: a job reads
    and writes with that of its model.
    """
    models = [one for one in around.environment.inference.endpoints if isinstance(one, BatchTransform)]
    if not models:
        return []
    # As the workbench names them (workbench/predicting/batch.py).
    jobs = [around.arn("sagemaker", "transform-job", f"{one.name[:40].rstrip('-')}-*") for one in models]
    return [
        allow(
            "sagemaker:CreateTransformJob",
            on=jobs,
            when={
                "ForAnyValue:StringEquals": {
                    "sagemaker:InstanceTypes": sorted({one.instance_type for one in models})
                }
            },
        ),
        allow("sagemaker:DescribeTransformJob", on=jobs),
        around.read_logs("TransformJobs"),
    ]
