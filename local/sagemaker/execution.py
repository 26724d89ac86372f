"""One execution of a pipeline: steps start when what they need has ended, as the pipeline's role.

Every request goes through the cloud's front door with that role's credentials, so a permission that the role
lacks fails the step as on AWS.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.exceptions

from local.sagemaker.arguments import coerce
from local.sagemaker.conditions import ConditionError, hold
from local.sagemaker.definition import OPERATIONS, Definition, Step
from local.sagemaker.foundation import Foundation, RoleSession
from local.sagemaker.paths import PathError, look_up
from local.sagemaker.references import Resolver
from local.sagemaker.s3 import join, split
from local.sagemaker.step_cache import cache_key, earlier_run, is_cacheable
from local.sagemaker.store import Document, now
from local.service import ServiceError

logger = logging.getLogger(__name__)

KIND = "pipeline-execution"
_POLL_SECONDS = 0.5
_JOBS: Mapping[str, tuple[str, str, str, str]] = {
    "Training": ("training_job", "TrainingJobName", "TrainingJobArn", "TrainingJobStatus"),
    "Processing": ("processing_job", "ProcessingJobName", "ProcessingJobArn", "ProcessingJobStatus"),
}
"""Step type -> boto3's noun, and the members that hold a job's name, ARN and status."""
_METADATA = {"Training": "TrainingJob", "Processing": "ProcessingJob", "RegisterModel": "RegisterModel"}
RESTARTED = "InternalServerError: the local cloud was stopped during the execution. Retry it."
_STEP_FAILED = "Step failure: One or multiple steps failed."


class StepFailedError(Exception):
    """A step cannot go on; the text is its FailureReason."""


class Execution:
    """Drives the steps of one execution in one thread; the jobs run by themselves."""

    def __init__(
        self, foundation: Foundation, *, document: Document, definition: Definition, stop: threading.Event
    ) -> None:
        self._foundation = foundation
        self._document = document
        self._definition = definition
        self._stop = stop
        self._key: str = document["PipelineExecutionArn"]
        self._steps = {step.name: step for step in definition.all_steps()}
        self._done = {
            entry["StepName"]: entry for entry in document["_Steps"] if entry["StepStatus"] == "Succeeded"
        }
        """What an execution that is tried again has behind it."""
        self._results: dict[str, Mapping[str, Any]] = {}
        self._ended: set[str] = set()
        self._jobs: dict[str, str] = {}
        """Running step -> name of its job."""
        self._failure: str | None = None

    def run(self) -> tuple[str, str | None]:
        """Run to the end: PipelineExecutionStatus and FailureReason."""
        try:
            self._session = RoleSession(
                self._foundation, role_arn=self._document["_RoleArn"], name="SageMaker-Pipeline"
            )
        except ServiceError as error:
            return "Failed", f"ClientError: {error.message}"
        try:
            waiting = self._resume(self._definition.steps)
        except botocore.exceptions.ClientError as error:
            return "Failed", f"ClientError: what an earlier step did cannot be looked up: {error}"
        limit = self._document.get("ParallelismConfiguration", {}).get("MaxParallelExecutionSteps", 50)
        while not self._stop.is_set() and not self._foundation.closing.is_set():
            progress = self._collect()
            for step in list(waiting):
                if self._failure is None and step.depends_on <= self._ended and len(self._jobs) < limit:
                    waiting.remove(step)
                    waiting.extend(self._begin(step))
                    progress = True
            if not self._jobs and (self._failure is not None or not progress):
                break
            if not progress:
                self._stop.wait(_POLL_SECONDS)
        if self._stop.is_set() and not self._foundation.closing.is_set():
            self._stop_jobs()
        if self._foundation.closing.is_set():
            return "Failed", RESTARTED
        if self._stop.is_set():
            return "Stopped", None
        return ("Succeeded", None) if self._failure is None else ("Failed", self._failure)

    def _resume(self, steps: Sequence[Step]) -> list[Step]:
        """The steps that are still to be done: all, or those that a retried execution did not end well."""
        waiting = []
        for step in steps:
            entry = self._done.get(step.name)
            if entry is None:
                waiting.append(step)
                continue
            self._ended.add(step.name)
            if step.type == "Condition":
                met = entry["Metadata"]["Condition"]["Outcome"] == "True"
                waiting.extend(self._resume(step.if_steps if met else step.else_steps))
            else:
                self._results[step.name] = self._describe(step, _arn(entry["Metadata"]))
        return waiting

    def _begin(self, step: Step) -> tuple[Step, ...]:
        """Start a step; the steps that a condition adds."""
        self._record_start(step)
        try:
            if step.type == "Condition":
                outcome = hold(self._resolver().resolve(step.arguments["Conditions"]))
                self._succeed(step, {"Condition": {"Outcome": str(outcome)}})
                return step.if_steps if outcome else step.else_steps
            if step.type == "Fail":
                message = str(self._resolver().resolve(step.arguments.get("ErrorMessage", "")))
                self._record(step, Metadata={"Fail": {"ErrorMessage": message}})
                self._fail(step, message, execution_reason=message)
                return ()
            self._request(step)
        except (StepFailedError, PathError, ConditionError) as error:
            self._fail(step, f"ClientError: {error}")
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            self._fail(step, f"ClientError: {error}")
        except Exception as error:
            logger.exception("step %s of %s", step.name, self._key)
            self._fail(step, f"InternalServerError: {error}")
        return ()

    def _request(self, step: Step) -> None:
        operation, filled_in = OPERATIONS[step.type]
        arguments = coerce(self._resolver().resolve(dict(step.arguments)), operation)
        if is_cacheable(step.type):
            key = cache_key(step.type, arguments)
            self._record(step, _CacheKey=key)
            if step.cached is not None and self._take_from_cache(step, key, age=step.cached):
                return
        client = self._session.client("sagemaker")
        job_name = ""
        if filled_in is not None:
            job_name = self._job_name(step)
            arguments[filled_in] = job_name
        method = getattr(client, botocore.xform_name(operation))
        try:
            answer = method(**arguments)
        except (botocore.exceptions.ClientError, botocore.exceptions.ParamValidationError) as error:
            raise StepFailedError(
                f"Failed to invoke sagemaker:{operation}. Error Details: {error}"
            ) from error
        arn = next(value for name, value in answer.items() if name.endswith("Arn"))
        metadata = {_METADATA[step.type]: {"Arn": arn}}
        if step.type == "RegisterModel":
            self._results[step.name] = self._describe(step, arn)
            self._succeed(step, metadata)
        else:
            self._jobs[step.name] = job_name
            self._record(step, Metadata=metadata)

    def _take_from_cache(self, step: Step, key: str, *, age: timedelta) -> bool:
        """Use the results of an earlier run, if there is one."""
        executions = [
            entry
            for entry in self._foundation.store.all(KIND)
            if entry["PipelineArn"] == self._document["PipelineArn"]
        ]
        run = earlier_run(executions, step=step.name, key=key, since=now() - age)
        if run is None:
            return False
        source, entry = run
        self._results[step.name] = self._describe(step, _arn(entry["Metadata"]))
        self._record(step, CacheHitResult={"SourcePipelineExecutionArn": source})
        self._succeed(step, entry["Metadata"])
        return True

    def _describe(self, step: Step, arn: str) -> Mapping[str, Any]:
        """What Describe says of a step's job or model package."""
        client = self._session.client("sagemaker")
        if step.type == "RegisterModel":
            described: dict[str, Any] = client.describe_model_package(ModelPackageName=arn)
        else:
            noun, name_member, _, _ = _JOBS[step.type]
            described = getattr(client, f"describe_{noun}")(**{name_member: arn.rsplit("/", 1)[-1]})
        described.pop("ResponseMetadata", None)
        return described

    def _collect(self) -> bool:
        """Look at the running jobs; whether one has ended."""
        progress = False
        for name, job in list(self._jobs.items()):
            step = self._steps[name]
            status_member = _JOBS[step.type][3]
            try:
                described = self._describe(step, job)
            except botocore.exceptions.ClientError as error:
                del self._jobs[name]
                self._fail(step, f"ClientError: {error}")
                progress = True
                continue
            status = described[status_member]
            if status in ("InProgress", "Stopping"):
                continue
            progress = True
            del self._jobs[name]
            self._results[name] = described
            if status == "Completed":
                self._succeed(step, None)
            else:
                self._fail(step, described.get("FailureReason", f"The job {job} was stopped."))
        return progress

    def _stop_jobs(self) -> None:
        """Stop the running jobs, and wait for their end: what they save then is there for a retry."""
        for name, job in list(self._jobs.items()):
            step = self._steps[name]
            noun, name_member, _, _ = _JOBS[step.type]
            try:
                getattr(self._session.client("sagemaker"), f"stop_{noun}")(**{name_member: job})
                self._record(step, StepStatus="Stopping")
            except botocore.exceptions.ClientError as error:
                del self._jobs[name]
                reason = f"ClientError: the job {job} could not be stopped: {error}"
                self._record(step, StepStatus="Stopped", EndTime=now(), FailureReason=reason)
        while self._jobs and not self._foundation.closing.is_set():
            for name, job in list(self._jobs.items()):
                step = self._steps[name]
                try:
                    status = self._describe(step, job)[_JOBS[step.type][3]]
                except botocore.exceptions.ClientError as error:
                    logger.warning("the end of %s cannot be seen: %s", job, error)
                    status = "unknown"
                if status not in ("InProgress", "Stopping"):
                    del self._jobs[name]
                    self._record(step, StepStatus="Stopped", EndTime=now())
            self._foundation.closing.wait(_POLL_SECONDS)

    def _succeed(self, step: Step, metadata: Mapping[str, Any] | None) -> None:
        self._ended.add(step.name)
        members = {"Metadata": metadata} if metadata else {}
        self._record(step, StepStatus="Succeeded", EndTime=now(), **members)

    def _fail(self, step: Step, reason: str, *, execution_reason: str = _STEP_FAILED) -> None:
        logger.warning("step %s of %s failed: %s", step.name, self._key, reason)
        self._record(step, StepStatus="Failed", EndTime=now(), FailureReason=reason[:3072])
        self._failure = self._failure or execution_reason[:3072]

    def _record_start(self, step: Step) -> None:
        """A step begins, for the first time or again: nothing of the time before is left but its count."""

        def change(document: Document) -> None:
            steps: list[dict[str, Any]] = document["_Steps"]
            before = next((entry for entry in steps if entry["StepName"] == step.name), None)
            if before is not None:
                steps.remove(before)
            entry = {
                "StepName": step.name,
                "StepStatus": "Executing",
                "StartTime": now(),
                "AttemptCount": before["AttemptCount"] + 1 if before is not None else 1,
            }
            if step.display_name:
                entry["StepDisplayName"] = step.display_name
            if step.description:
                entry["StepDescription"] = step.description
            steps.append(entry)
            document["LastModifiedTime"] = now()

        self._foundation.store.change(KIND, self._key, change)

    def _record(self, step: Step, **members: Any) -> None:
        def change(document: Document) -> None:
            entry = next(entry for entry in document["_Steps"] if entry["StepName"] == step.name)
            entry.update(members)
            document["LastModifiedTime"] = now()

        self._foundation.store.change(KIND, self._key, change)

    def _job_name(self, step: Step) -> str:
        """ "pipelines-<execution id>-<step>-<random>", at most 63 characters, as SageMaker names them."""
        identifier = self._key.rsplit("/", 1)[-1]
        suffix = secrets.token_hex(5)
        head = f"pipelines-{identifier}-{step.name}"[: 63 - len(suffix) - 1].rstrip("-")
        return f"{head}-{suffix}"

    def _resolver(self) -> Resolver:
        return Resolver(
            parameters=self._document["_Parameters"],
            execution=self._execution_variable,
            results=self._results,
            read_property_file=self._property_file,
            read_json=self._read_json,
        )

    def _execution_variable(self, name: str) -> Any:
        values: dict[str, Callable[[], str]] = {
            "PipelineArn": lambda: str(self._document["PipelineArn"]),
            "PipelineName": lambda: str(self._document["_PipelineName"]),
            "PipelineExecutionArn": lambda: self._key,
            "PipelineExecutionId": lambda: self._key.rsplit("/", 1)[-1],
            "StartDateTime": lambda: str(self._document["CreationTime"].isoformat()),
            "CurrentDateTime": lambda: datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        return values[name]()

    def _property_file(self, step: str, name: str) -> Any:
        if step not in self._results:
            raise PathError(f"step {step!r} has not run")
        file = next(file for file in self._steps[step].property_files if file.name == name)
        outputs = look_up(self._results[step], "ProcessingOutputConfig.Outputs")
        uri = look_up(outputs, f"['{file.output}'].S3Output.S3Uri")
        return self._read_json(join(uri, file.path))

    def _read_json(self, uri: str) -> Any:
        bucket, key = split(uri)
        body = self._session.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        try:
            return json.loads(body)
        except ValueError as error:
            raise StepFailedError(f"{uri} is not JSON: {error}") from None


def _arn(metadata: Mapping[str, Any]) -> str:
    """The ARN of the job or package that a step's Metadata names."""
    (named,) = metadata.values()
    return str(named["Arn"])
