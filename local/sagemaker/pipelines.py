"""Pipelines and their executions."""

from __future__ import annotations

import logging
import secrets
import string
import threading
from collections.abc import Mapping
from typing import Any

import botocore.exceptions

from local.sagemaker.definition import read_definition
from local.sagemaker.errors import validation
from local.sagemaker.execution import KIND as EXECUTION
from local.sagemaker.execution import RESTARTED, Execution
from local.sagemaker.foundation import Foundation, refuse, shown
from local.sagemaker.jobs import Jobs
from local.sagemaker.listing import page, select
from local.sagemaker.names import last
from local.sagemaker.store import Document, now
from local.service import Call, Handler, ServiceError

logger = logging.getLogger(__name__)

KIND = "pipeline"
_SUMMARY = (
    "PipelineArn",
    "PipelineName",
    "PipelineDisplayName",
    "PipelineDescription",
    "RoleArn",
    "CreationTime",
    "LastModifiedTime",
    "LastExecutionTime",
)
_EVENT = "SageMaker Model Building Pipeline Execution Status Change"


class Pipelines:
    """CreatePipeline, StartPipelineExecution and their kin."""

    def __init__(self, foundation: Foundation) -> None:
        self._foundation = foundation
        self._jobs = Jobs(foundation)

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return {
            "CreatePipeline": self.create,
            "UpdatePipeline": self.update,
            "DescribePipeline": self.describe,
            "DeletePipeline": self.delete,
            "ListPipelines": self.list_pipelines,
            "StartPipelineExecution": self.start_execution,
            "StopPipelineExecution": self.stop_execution,
            "RetryPipelineExecution": self.retry_execution,
            "DescribePipelineExecution": self.describe_execution,
            "DescribePipelineDefinitionForExecution": self.describe_definition,
            "ListPipelineExecutions": self.list_executions,
            "ListPipelineExecutionSteps": self.list_steps,
            "ListPipelineParametersForExecution": self.list_parameters,
        }

    def create(self, call: Call) -> Mapping[str, Any]:
        """A definition that was read and understood."""
        params = call.params
        name = params["PipelineName"]
        arn = self._foundation.names.arn(KIND, name)
        self._foundation.may_tag(call, arn)
        text = self._definition(params)
        self._foundation.take_role(call, params["RoleArn"])
        moment = now()
        document: Document = {
            "PipelineArn": arn,
            "PipelineName": name,
            "PipelineDisplayName": params.get("PipelineDisplayName", name),
            "PipelineDefinition": text,
            "RoleArn": params["RoleArn"],
            "PipelineStatus": "Active",
            "CreationTime": moment,
            "LastModifiedTime": moment,
            "CreatedBy": {"IamIdentity": {"Arn": call.caller.arn}},
            "LastModifiedBy": {"IamIdentity": {"Arn": call.caller.arn}},
            "_Token": params["ClientRequestToken"],
        }
        for member in ("PipelineDescription", "ParallelismConfiguration"):
            if member in params:
                document[member] = params[member]
        if not self._foundation.store.add(KIND, name, document):
            existing = self._get(name)
            if existing["_Token"] == params["ClientRequestToken"]:
                return {"PipelineArn": arn}
            raise validation(
                f"Pipeline names must be unique within an AWS account and region; {name!r} exists."
            )
        self._foundation.tag(call, arn)
        return {"PipelineArn": arn}

    def update(self, call: Call) -> Mapping[str, Any]:
        """A new definition, role, description, parallelism; running executions keep theirs."""
        params = call.params
        name = self._get(params["PipelineName"])["PipelineName"]
        changes: Document = {
            "LastModifiedTime": now(),
            "LastModifiedBy": {"IamIdentity": {"Arn": call.caller.arn}},
        }
        if "PipelineDefinition" in params or "PipelineDefinitionS3Location" in params:
            changes["PipelineDefinition"] = self._definition(params)
        if "RoleArn" in params:
            self._foundation.take_role(call, params["RoleArn"])
        for member in ("RoleArn", "PipelineDisplayName", "PipelineDescription", "ParallelismConfiguration"):
            if member in params:
                changes[member] = params[member]
        self._foundation.store.change(KIND, name, lambda document: document.update(changes))
        return {"PipelineArn": self._foundation.names.arn(KIND, name)}

    def describe(self, call: Call) -> Mapping[str, Any]:
        """The pipeline as it stands."""
        refuse(call.params, ("PipelineVersionId",))
        document = shown(self._get(call.params["PipelineName"]))
        if started := document.pop("LastExecutionTime", None):
            document["LastRunTime"] = started
        return document

    def delete(self, call: Call) -> Mapping[str, Any]:
        """Not while it runs."""
        document = self._get(call.params["PipelineName"])
        arn = document["PipelineArn"]
        if any(
            entry["PipelineExecutionStatus"] in ("Executing", "Stopping") for entry in self._executions(arn)
        ):
            raise ServiceError(
                "ConflictException", f"Pipeline {arn} has an execution that runs; stop it first."
            )
        for entry in self._executions(arn):
            self._foundation.store.delete(EXECUTION, entry["PipelineExecutionArn"])
        self._foundation.store.delete(KIND, document["PipelineName"])
        self._foundation.untag(arn)
        return {"PipelineArn": arn}

    def list_pipelines(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        chosen = select(self._foundation.store.all(KIND), call.params, name="PipelineName")
        return page(chosen, call.params, into="PipelineSummaries", members=_SUMMARY)

    def start_execution(self, call: Call) -> Mapping[str, Any]:
        """Start an execution; the same ClientRequestToken gives the same execution."""
        params = call.params
        refuse(params, ("SelectiveExecutionConfig", "PipelineVersionId", "MlflowExperimentName"))
        pipeline = self._get(params["PipelineName"])
        definition = read_definition(pipeline["PipelineDefinition"])
        given = {entry["Name"]: entry["Value"] for entry in params.get("PipelineParameters", [])}
        values = definition.values(given)
        identifier = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))
        arn = self._foundation.names.execution(pipeline["PipelineName"], identifier)
        moment = now()
        document: Document = {
            "PipelineArn": pipeline["PipelineArn"],
            "PipelineExecutionArn": arn,
            "PipelineExecutionDisplayName": params.get(
                "PipelineExecutionDisplayName", f"execution-{round(moment.timestamp() * 1000)}"
            ),
            "PipelineExecutionStatus": "Executing",
            "CreationTime": moment,
            "LastModifiedTime": moment,
            "CreatedBy": {"IamIdentity": {"Arn": call.caller.arn}},
            "LastModifiedBy": {"IamIdentity": {"Arn": call.caller.arn}},
            "_PipelineName": pipeline["PipelineName"],
            "_Definition": pipeline["PipelineDefinition"],
            "_RoleArn": pipeline["RoleArn"],
            "_Parameters": values,
            "_Steps": [],
            "_Token": params["ClientRequestToken"],
            "_RetryTokens": [],
        }
        if "PipelineExecutionDescription" in params:
            document["PipelineExecutionDescription"] = params["PipelineExecutionDescription"]
        parallelism = params.get("ParallelismConfiguration") or pipeline.get("ParallelismConfiguration")
        if parallelism:
            document["ParallelismConfiguration"] = parallelism
        with self._foundation.store.transaction():
            for entry in self._executions(pipeline["PipelineArn"]):
                if entry["_Token"] == params["ClientRequestToken"]:
                    return {"PipelineExecutionArn": entry["PipelineExecutionArn"]}
            self._foundation.store.add(EXECUTION, arn, document)
            self._foundation.store.change(
                KIND, pipeline["PipelineName"], lambda stored: stored.update(LastExecutionTime=moment)
            )
        self._start(arn)
        return {"PipelineExecutionArn": arn}

    def retry_execution(self, call: Call) -> Mapping[str, Any]:
        """Go on with an execution that failed or was stopped: steps that succeeded keep their results.

        It goes on with the definition, the parameters and the role that it began with. The same
        ClientRequestToken does it once.
        """
        params = call.params
        arn = params["PipelineExecutionArn"]

        def go_on(document: Document) -> None:
            document["_RetryTokens"] = [*document.get("_RetryTokens", []), params["ClientRequestToken"]]
            document.pop("FailureReason", None)
            if "ParallelismConfiguration" in params:
                document["ParallelismConfiguration"] = params["ParallelismConfiguration"]

        with self._foundation.store.transaction():
            document = self._execution(arn)
            if params["ClientRequestToken"] in document.get("_RetryTokens", []):
                return {"PipelineExecutionArn": arn}
            if document["PipelineExecutionStatus"] not in ("Failed", "Stopped"):
                raise ServiceError(
                    "ConflictException",
                    f"Pipeline execution {arn} is {document['PipelineExecutionStatus']}. "
                    "Only one that failed or was stopped can be retried.",
                )
            self._foundation.store.change(EXECUTION, arn, go_on)
            self._set(arn, "Executing")
        self._start(arn)
        return {"PipelineExecutionArn": arn}

    def stop_execution(self, call: Call) -> Mapping[str, Any]:
        """Stop the running jobs and start no more."""
        arn = call.params["PipelineExecutionArn"]
        with self._foundation.store.transaction():
            if self._execution(arn)["PipelineExecutionStatus"] not in ("Executing", "Stopping"):
                raise ServiceError("ConflictException", f"Pipeline execution {arn} does not run.")
            self._set(arn, "Stopping")
        self._jobs.stop(arn)
        return {"PipelineExecutionArn": arn}

    def describe_execution(self, call: Call) -> Mapping[str, Any]:
        """The execution as it stands."""
        return shown(self._execution(call.params["PipelineExecutionArn"]))

    def describe_definition(self, call: Call) -> Mapping[str, Any]:
        """The definition that an execution started with."""
        document = self._execution(call.params["PipelineExecutionArn"])
        return {"PipelineDefinition": document["_Definition"], "CreationTime": document["CreationTime"]}

    def list_executions(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        documents = self._executions(self._get(call.params["PipelineName"])["PipelineArn"])
        for document in documents:
            document["StartTime"] = document["CreationTime"]
            document["PipelineExecutionFailureReason"] = document.get("FailureReason")
        chosen = select(documents, call.params, name="PipelineExecutionArn")
        members = (
            "PipelineExecutionArn",
            "StartTime",
            "PipelineExecutionStatus",
            "PipelineExecutionDescription",
            "PipelineExecutionDisplayName",
            "PipelineExecutionFailureReason",
        )
        return page(chosen, call.params, into="PipelineExecutionSummaries", members=members)

    def list_steps(self, call: Call) -> Mapping[str, Any]:
        """The steps that have started, the newest first unless asked otherwise."""
        if "PipelineExecutionArn" not in call.params:
            raise validation("PipelineExecutionArn is required.")
        steps = self._execution(call.params["PipelineExecutionArn"])["_Steps"]
        ordered = steps if call.params.get("SortOrder") == "Ascending" else steps[::-1]
        members = (
            "StepName",
            "StepDisplayName",
            "StepDescription",
            "StartTime",
            "EndTime",
            "StepStatus",
            "CacheHitResult",
            "FailureReason",
            "Metadata",
            "AttemptCount",
        )
        return page(ordered, call.params, into="PipelineExecutionSteps", members=members)

    def list_parameters(self, call: Call) -> Mapping[str, Any]:
        """The values that an execution runs with."""
        values = self._execution(call.params["PipelineExecutionArn"])["_Parameters"]
        listed = [{"Name": name, "Value": str(value)} for name, value in values.items()]
        return page(listed, call.params, into="PipelineParameters", members=("Name", "Value"))

    def fail_interrupted(self) -> None:
        """Executions that ran when the cloud was killed are failed with the reason."""
        for document in self._foundation.store.all(EXECUTION):
            if document["PipelineExecutionStatus"] in ("Executing", "Stopping"):
                self._set(document["PipelineExecutionArn"], "Failed", FailureReason=RESTARTED)

    def join(self, seconds: float) -> None:
        """Wait for the threads at the end of the cloud."""
        self._jobs.join(seconds)

    def _start(self, arn: str) -> None:
        self._jobs.start(
            arn,
            lambda stop: self._run(arn, stop),
            failed=lambda reason: self._set(arn, "Failed", FailureReason=reason),
        )

    def _run(self, arn: str, stop: threading.Event) -> None:
        try:
            document = self._execution(arn)
            definition = read_definition(document["_Definition"])
            execution = Execution(self._foundation, document=document, definition=definition, stop=stop)
            status, reason = execution.run()
        except Exception as error:
            logger.exception("pipeline execution %s", arn)
            closing = self._foundation.closing.is_set()
            status, reason = "Failed", RESTARTED if closing else f"InternalServerError: {error}"
        self._set(arn, status, **({"FailureReason": reason} if reason else {}))

    def _set(self, arn: str, status: str, **members: Any) -> None:
        previous = self._execution(arn)["PipelineExecutionStatus"]

        def change(document: Document) -> None:
            document.update(members, PipelineExecutionStatus=status, LastModifiedTime=now())
            for step in document["_Steps"]:
                if status in ("Failed", "Stopped") and step["StepStatus"] in ("Executing", "Stopping"):
                    step.update(StepStatus=status, EndTime=now())

        document = self._foundation.store.change(EXECUTION, arn, change)
        if document is not None:
            detail = {
                "pipelineArn": document["PipelineArn"],
                "pipelineExecutionArn": arn,
                "pipelineExecutionDisplayName": document["PipelineExecutionDisplayName"],
                "previousPipelineExecutionStatus": previous,
                "currentPipelineExecutionStatus": status,
                "executionStartTime": document["CreationTime"].isoformat(),
            }
            self._foundation.publish(_EVENT, arn, detail)

    def _definition(self, params: Mapping[str, Any]) -> str:
        if ("PipelineDefinition" in params) == ("PipelineDefinitionS3Location" in params):
            raise validation(
                "Exactly one of PipelineDefinition and PipelineDefinitionS3Location must be given."
            )
        text: str
        if "PipelineDefinition" in params:
            text = params["PipelineDefinition"]
        else:
            place = params["PipelineDefinitionS3Location"]
            version = {"VersionId": place["VersionId"]} if "VersionId" in place else {}
            try:
                answer = self._foundation.cloud.client("s3").get_object(
                    Bucket=place["Bucket"], Key=place["ObjectKey"], **version
                )
            except botocore.exceptions.ClientError as error:
                raise validation(f"The pipeline definition cannot be read from S3: {error}") from error
            text = answer["Body"].read().decode()
        read_definition(text)
        return text

    def _get(self, name_or_arn: str) -> Document:
        document = self._foundation.store.get(KIND, last(name_or_arn))
        if document is None:
            arn = self._foundation.names.arn(KIND, last(name_or_arn))
            raise ServiceError("ResourceNotFound", f"Pipeline '{arn}' does not exist.")
        return document

    def _execution(self, arn: str) -> Document:
        document = self._foundation.store.get(EXECUTION, arn)
        if document is None:
            raise ServiceError("ResourceNotFound", f"Pipeline execution '{arn}' does not exist.")
        return document

    def _executions(self, pipeline_arn: str) -> list[Document]:
        return [
            entry for entry in self._foundation.store.all(EXECUTION) if entry["PipelineArn"] == pipeline_arn
        ]
