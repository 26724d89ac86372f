"""The deployed platform as the tests of roles use it: its roles by their place in the stacks, and what
workloads need before they can work.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from arrivals import Arrival, arrival
from cheap_container import cheap_image
from cloudformation_listener import listening
from role_training import ROLE_TASK, StepFailed, train_model

from workbench.approve import approve, mark_approved
from workbench.datasets.make import Division, make_dataset
from workbench.datasets.selection import default_sql
from workbench.demo.label import SERIES_DESCRIPTION
from workbench.deployment import Deployment
from workbench.ingest import ingest
from workbench.session import Session

STACKS = ("data", "network", "arrival", "catalog", "training", "inference", "studio", "observability")
_HASH = re.compile(r"[0-9A-F]{8}$")


@dataclass(frozen=True)
class RoleWorld:
    """All stacks of `local`, with one small patient in the archive and in the catalog."""

    deployment: Deployment
    study: Arrival

    def client(self, service: str) -> Any:
        """A client as root."""
        return self.deployment.session.client(service)

    def as_persona(self, role: str) -> Deployment:
        """The workbench in the hands of a person in Studio: with the credentials of the persona's role.

        SageMaker hands them out on AWS; here root takes them, for which it has to be trusted first.
        """
        arn, iam = self.roles[role], self.client("iam")
        name = arn.rpartition("/")[2]
        trust = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        if isinstance(trust, str):
            trust = json.loads(trust)
        root = {"AWS": f"arn:aws:iam::{self.deployment.session.environment.account}:root"}
        if not any(statement["Principal"] == root for statement in trust["Statement"]):
            trust["Statement"].append({"Effect": "Allow", "Principal": root, "Action": "sts:AssumeRole"})
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))
        given = self.client("sts").assume_role(RoleArn=arn, RoleSessionName="person")["Credentials"]
        session = Session(self.deployment.session.environment)
        # In place of the environment's own key pair, which the session would make at its first client.
        session.__dict__["boto"] = boto3.Session(
            aws_access_key_id=given["AccessKeyId"],
            aws_secret_access_key=given["SecretAccessKey"],
            aws_session_token=given["SessionToken"],
            region_name=session.environment.region,
        )
        return Deployment(session)

    @cached_property
    def roles(self) -> Mapping[str, str]:
        """ARN of each role, by `<stack>/<logical id without Role and hash>`: "training/Trainer"."""
        iam, found = self.client("iam"), {}
        for stack in STACKS:
            name = self.deployment.session.environment.stack_name(stack)
            for resource in self._resources(name):
                if resource["ResourceType"] == "AWS::IAM::Role":
                    logical = _HASH.sub("", resource["LogicalResourceId"]).removesuffix("Role")
                    role = iam.get_role(RoleName=resource["PhysicalResourceId"])["Role"]
                    found[f"{stack}/{logical}"] = str(role["Arn"])
        return found

    def _resources(self, stack: str) -> Iterator[dict[str, Any]]:
        pages = self.client("cloudformation").get_paginator("list_stack_resources")
        for page in pages.paginate(StackName=stack):
            yield from page["StackResourceSummaries"]

    def granted(self, role: str) -> set[str]:
        """Every action that the role's policies allow."""
        iam = self.client("iam")
        actions: set[str] = set()
        name = self.roles[role].rpartition("/")[2]
        for attached in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            version = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]["DefaultVersionId"]
            document = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId=version)[
                "PolicyVersion"
            ]["Document"]
            if isinstance(document, str):
                document = json.loads(document)
            for statement in document["Statement"]:
                if statement["Effect"] == "Allow":
                    listed = statement["Action"]
                    actions |= set(listed if isinstance(listed, list) else [listed])
        return actions

    @cached_property
    def image_set(self) -> tuple[str, str]:
        """(data store id, image set id) of the patient's images."""
        datastore = self.deployment.stack("data")["DatastoreId"]
        found = self.client("medical-imaging").search_image_sets(
            datastoreId=datastore,
            searchCriteria={
                "filters": [
                    {
                        "operator": "EQUAL",
                        "values": [{"DICOMPatientId": self.study.patient.patient_id}],
                    }
                ]
            },
        )["imageSetsMetadataSummaries"]
        (images,) = [one for one in found if one["DICOMTags"]["DICOMSeriesModality"] == "CT"]
        return datastore, str(images["imageSetId"])

    @cached_property
    def manifest_uri(self) -> str:
        """A dataset of the one patient."""
        sql = default_sql(patients=[self.study.patient.patient_id], label_description=SERIES_DESCRIPTION)
        return make_dataset(self.deployment, sql, name="roles", division=Division(validation=0.0)).uri

    @cached_property
    def pipeline(self) -> dict[str, Any]:
        """The definition of the deployed training pipeline."""
        name = self.deployment.task(ROLE_TASK).pipeline
        definition: dict[str, Any] = json.loads(
            self.client("sagemaker").describe_pipeline(PipelineName=name)["PipelineDefinition"]
        )
        return definition

    @cached_property
    def cheap_image(self) -> str:
        """URI of a small container that trains and evaluates nothing, in the repository of the real ones."""
        real = self.pipeline["Steps"][0]["Arguments"]["AlgorithmSpecification"]["TrainingImage"]
        return cheap_image(self.deployment.session, repository=real.rpartition(":")[0])

    @cached_property
    def cheap_pipeline(self) -> str:
        """Name of a pipeline like the deployed one (its role, its arguments, its conditions) with the small
        container, so that it ends in seconds.
        """
        sagemaker = self.client("sagemaker")
        deployed = sagemaker.describe_pipeline(PipelineName=self.deployment.task(ROLE_TASK).pipeline)
        real = self.pipeline["Steps"][0]["Arguments"]["AlgorithmSpecification"]["TrainingImage"]
        name = "roles-" + uuid.uuid4().hex[:8]
        sagemaker.create_pipeline(
            PipelineName=name,
            PipelineDefinition=deployed["PipelineDefinition"].replace(real, self.cheap_image),
            RoleArn=deployed["RoleArn"],
            ClientRequestToken=uuid.uuid4().hex,
        )
        return name

    @cached_property
    def inference_image(self) -> str:
        """The image that registered packages name."""
        containers = self._registration["InferenceSpecification"]["Containers"]
        return str(containers[0]["Image"])

    @cached_property
    def model_uri(self) -> str:
        """A model that the real container has trained for one step."""
        return train_model(self)

    def register(self) -> str:
        """A package with that model, which waits for approval; its ARN."""
        # What an execution would fill in of itself.
        of_execution = dict.fromkeys(("ModelMetrics", "ModelCard", "CustomerMetadataProperties"))
        arguments = {**self._registration, **of_execution}
        arguments["InferenceSpecification"]["Containers"][0]["ModelDataUrl"] = self.model_uri
        answer = self.client("sagemaker").create_model_package(
            **{key: value for key, value in arguments.items() if value is not None}
        )
        return str(answer["ModelPackageArn"])

    @cached_property
    def package(self) -> str:
        """The package that the endpoint serves."""
        return self.register()

    @cached_property
    def approved(self) -> str:
        """A package that is approved, whatever is served; its ARN."""
        return mark_approved(self.deployment, model_package_arn=self.register())

    @cached_property
    def endpoint(self) -> str:
        """Name of the stack's endpoint, which serves the package."""
        name = approve(self.deployment, model_package_arn=self.package).endpoint_name
        assert name is not None
        return name

    @property
    def _registration(self) -> dict[str, Any]:
        check = self.pipeline["Steps"][-1]["Arguments"]
        arguments: dict[str, Any] = json.loads(json.dumps(check["IfSteps"][0]["Arguments"]))
        return arguments

    @cached_property
    def _mailbox(self) -> str:
        """A queue that gets what the endpoint announces."""
        sqs, sns = self.client("sqs"), self.client("sns")
        url: str = sqs.create_queue(QueueName=f"roles-{uuid.uuid4().hex[:8]}")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        topic = self.deployment.stack("inference")["SuccessTopicArn"]
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": arn,
                    "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
                }
            ],
        }
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        return url

    def announcements(self) -> int:
        """How many results have been announced since this was first asked."""
        attributes = self.client("sqs").get_queue_attributes(
            QueueUrl=self._mailbox, AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(attributes["Attributes"]["ApproximateNumberOfMessages"])

    def execute(self, parameters: Mapping[str, str]) -> str:
        """Start the small pipeline; the ARN of the execution. Each is a run of its own: a training that was
        done before would not be done again, and show nothing of what its role may do.
        """
        values = {"ManifestUri": self.manifest_uri, "Run": uuid.uuid4().hex[:12], **parameters}
        arn: str = self.client("sagemaker").start_pipeline_execution(
            PipelineName=self.cheap_pipeline,
            PipelineParameters=[{"Name": name, "Value": value} for name, value in values.items()],
            ClientRequestToken=uuid.uuid4().hex,
        )["PipelineExecutionArn"]
        return arn

    def ended(self, execution: str) -> None:
        """Wait for the end of an execution and fail unless it is the one that was wanted."""
        sagemaker = self.client("sagemaker")

        def status() -> Any:
            found = sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
            return found if found["PipelineExecutionStatus"] not in ("Executing", "Stopping") else None

        found = self.wait(status)
        if found["PipelineExecutionStatus"] == "Failed":
            steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)
            reasons = [step.get("FailureReason", "") for step in steps["PipelineExecutionSteps"]]
            raise StepFailed(f"{found.get('FailureReason')} {reasons}")

    def over(self, execution: str) -> None:
        """Wait until nothing of an execution runs, however it ended."""
        sagemaker = self.client("sagemaker")
        self.wait(
            lambda: (
                sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)[
                    "PipelineExecutionStatus"
                ]
                not in ("Executing", "Stopping")
            )
        )

    def without_quiet_period(self) -> None:
        """Events reach the dispatch function at once: what its role allows does not depend on when."""
        self.client("sqs").set_queue_attributes(
            QueueUrl=self.deployment.stack("inference")["DispatchQueueUrl"],
            Attributes={"DelaySeconds": "0"},
        )

    def arrive_unseen(self) -> str:
        """Import a series that nobody has seen before; its image set."""
        self.without_quiet_period()
        self.endpoint  # noqa: B018 - in service before the images arrive
        name = f"unseen-{uuid.uuid4().hex[:8]}"
        with tempfile.TemporaryDirectory() as folder:
            report = ingest(self.deployment, arrival(name, Path(folder), thick=24).images)
        (image_set,) = report.image_sets
        return str(image_set.image_set_id)

    @cached_property
    def dispatched(self) -> str:
        """An image set that has been sent to the endpoint."""
        image_set = self.arrive_unseen()
        function = ("inference", "DispatchFunctionName")
        self.wait(lambda: f"dispatched: image set {image_set}" in self.function_log(*function))
        return image_set

    def function_log(self, stack: str, output: str) -> str:
        """All that a function has printed."""
        function = self.deployment.stack(stack)[output]
        configuration = self.client("lambda").get_function_configuration(FunctionName=function)
        group = configuration["LoggingConfig"]["LogGroup"]
        pages = self.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
        return "\n".join(event["message"] for page in pages for event in page["events"])

    def answer_of_custom_resource(self, stack: str, function: str, **properties: str) -> dict[str, Any]:
        """What the function of a custom resource answers CloudFormation."""
        name = self.deployment.session.environment.stack_name(stack)
        (physical,) = [
            resource["PhysicalResourceId"]
            for resource in self._resources(name)
            if resource["ResourceType"] == "AWS::Lambda::Function"
            and resource["LogicalResourceId"].startswith(function)
        ]
        with listening() as listener:
            self.client("lambda").invoke(
                FunctionName=physical,
                Payload=json.dumps(
                    {
                        "RequestType": "Update",
                        "ResponseURL": listener.url,
                        "StackId": "roles",
                        "RequestId": "roles",
                        "LogicalResourceId": "roles",
                        "PhysicalResourceId": "roles",
                        "ResourceType": "AWS::CloudFormation::CustomResource",
                        "ResourceProperties": properties,
                    }
                ).encode(),
            )
        (answer,) = listener.answers
        return answer

    def invoke_function(self, output: tuple[str, str], event: Mapping[str, Any]) -> dict[str, Any]:
        """Run a function now and fail with its log lines unless it is content.

        Args:
            output: Stack, and name of the output that names the function.
            event: What the function gets.
        """
        stack, key = output
        answer = self.client("lambda").invoke(
            FunctionName=self.deployment.stack(stack)[key],
            Payload=json.dumps(event).encode(),
            LogType="Tail",
        )
        payload = json.loads(answer["Payload"].read() or b"null")
        log = base64.b64decode(answer.get("LogResult", "")).decode(errors="replace")
        if "FunctionError" in answer or (payload or {}).get("batchItemFailures"):
            raise StepFailed(f"{payload} {log}")
        return dict(payload or {})

    def message(self, detail_type: str, image_set_id: str) -> dict[str, Any]:
        """An event of the archive, as a queue hands it to a function."""
        body = {
            "source": "aws.medical-imaging",
            "detail-type": detail_type,
            "detail": {
                "datastoreId": self.image_set[0],
                "imagesetId": image_set_id,
                "imageSetVersion": "1",
                "isPrimary": True,
                "imageSetState": "ACTIVE",
                "imageSetWorkflowStatus": "CREATED",
            },
        }
        return {"Records": [{"messageId": uuid.uuid4().hex, "body": json.dumps(body)}]}

    def wait(self, check: Callable[[], Any], *, seconds: float = 90.0) -> Any:
        """The first true value of `check`."""
        deadline = time.monotonic() + seconds
        while not (value := check()):
            if time.monotonic() > deadline:
                raise StepFailed("waited too long")
            time.sleep(0.2)
        return value
