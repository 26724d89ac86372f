"""Training jobs.

Source: docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

from local.sagemaker.errors import in_use, job_not_found, unsupported, validation
from local.sagemaker.foundation import Foundation, refuse, shown, without_tags
from local.sagemaker.jobs import RESTARTED, JobFailedError, Jobs, clean, clean_all, reason_of
from local.sagemaker.listing import page, select
from local.sagemaker.s3 import join, split
from local.sagemaker.store import Document, now
from local.sagemaker.training_host import host_names
from local.sagemaker.training_run import Stopped, TrainingRun
from local.service import Call, Handler

logger = logging.getLogger(__name__)

KIND = "training-job"
_REFUSED = (
    "AlgorithmSpecification.AlgorithmName",
    "AlgorithmSpecification.TrainingImageConfig",
    "DebugHookConfig",
    "DebugRuleConfigurations",
    "EnableNetworkIsolation",
    "ExperimentConfig",
    "InfraCheckConfig.EnableInfraCheck",
    "MlflowConfig",
    "ModelPackageConfig",
    "ProfilerRuleConfigurations",
    "RemoteDebugConfig.EnableRemoteDebug",
    "ResourceConfig.InstanceGroups",
    "ResourceConfig.TrainingPlanArn",
    "RetryStrategy",
    "ServerlessJobConfig",
    "SessionChainingConfig.EnableSessionTagChaining",
    "TensorBoardOutputConfig",
)
_SUMMARY = (
    "TrainingJobName",
    "TrainingJobArn",
    "CreationTime",
    "TrainingEndTime",
    "LastModifiedTime",
    "TrainingJobStatus",
    "SecondaryStatus",
)
_DEFAULT_MAX_RUNTIME = 86_400
"""API_StoppingCondition: "the default value is 1 day"."""


class TrainingJobs:
    """CreateTrainingJob and its kin."""

    def __init__(self, foundation: Foundation) -> None:
        self._foundation = foundation
        self._jobs = Jobs(foundation)

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return {
            "CreateTrainingJob": self.create,
            "DescribeTrainingJob": self.describe,
            "ListTrainingJobs": self.list_jobs,
            "StopTrainingJob": self.stop,
        }

    def create(self, call: Call) -> Mapping[str, Any]:
        """Check the request and start the job's thread."""
        params = call.params
        _check(params)
        self._foundation.take_role(call, params["RoleArn"])
        name = params["TrainingJobName"]
        arn = self._foundation.names.arn(KIND, name)
        self._foundation.may_tag(call, arn)
        moment = now()
        stopping = {"MaxRuntimeInSeconds": _DEFAULT_MAX_RUNTIME, **params.get("StoppingCondition", {})}
        document: Document = {
            **without_tags(params),
            "TrainingJobArn": arn,
            "StoppingCondition": stopping,
            "ModelArtifacts": {
                "S3ModelArtifacts": join(
                    params["OutputDataConfig"]["S3OutputPath"], name, "output", _artifact(params)
                )
            },
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "SecondaryStatusTransitions": [
                {"Status": "Starting", "StartTime": moment, "StatusMessage": "Starting the training job"}
            ],
            "CreationTime": moment,
            "LastModifiedTime": moment,
        }
        if not self._foundation.store.add(KIND, name, document):
            raise in_use(
                f"Training job names must be unique within an AWS account and region; {name!r} exists."
            )
        self._foundation.tag(call, arn)
        self._jobs.start(
            name, lambda stop: self._run(name, stop), failed=lambda reason: self._failed(name, reason)
        )
        return {"TrainingJobArn": arn}

    def describe(self, call: Call) -> Mapping[str, Any]:
        """The job as it stands."""
        return shown(self._get(call.params["TrainingJobName"]))

    def list_jobs(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        refuse(call.params, ("WarmPoolStatusEquals", "TrainingPlanArnEquals"))
        chosen = select(
            self._foundation.store.all(KIND), call.params, name="TrainingJobName", status="TrainingJobStatus"
        )
        return page(chosen, call.params, into="TrainingJobSummaries", members=_SUMMARY)

    def stop(self, call: Call) -> Mapping[str, Any]:
        """SIGTERM, 120 s, SIGKILL."""
        name = call.params["TrainingJobName"]
        with self._foundation.store.transaction():
            if self._get(name)["TrainingJobStatus"] != "InProgress":
                raise validation(
                    f"The request was rejected because the training job {name} is not in progress."
                )
            self.transition(
                name, secondary="Stopping", message="Stopping the training job", status="Stopping"
            )
        self._jobs.stop(name)
        return {}

    def fail_interrupted(self) -> None:
        """Jobs that ran when the cloud was killed are failed with the reason."""
        clean_all(self._foundation, KIND)
        for document in self._foundation.store.all(KIND):
            if document["TrainingJobStatus"] in ("InProgress", "Stopping"):
                self.transition(
                    document["TrainingJobName"],
                    secondary="Failed",
                    message=RESTARTED,
                    status="Failed",
                    FailureReason=RESTARTED,
                    TrainingEndTime=now(),
                )

    def join(self, seconds: float) -> None:
        """Wait for the threads at the end of the cloud."""
        self._jobs.join(seconds)

    def transition(
        self, name: str, *, secondary: str, message: str, status: str | None = None, **members: Any
    ) -> None:
        """Go to the next secondary status (and status), with other members that become known."""
        moment = now()

        def change(document: Document) -> None:
            transitions = document["SecondaryStatusTransitions"]
            if "EndTime" not in transitions[-1]:
                transitions[-1]["EndTime"] = moment
            entry = {"Status": secondary, "StartTime": moment, "StatusMessage": message[:1024]}
            if secondary in ("Completed", "Failed", "Stopped", "MaxRuntimeExceeded"):
                entry["EndTime"] = moment
            transitions.append(entry)
            document.update(members)
            document["SecondaryStatus"] = secondary
            document["LastModifiedTime"] = moment
            if status is not None:
                document["TrainingJobStatus"] = status
            if "TrainingEndTime" in members and "TrainingStartTime" in document:
                took = (members["TrainingEndTime"] - document["TrainingStartTime"]).total_seconds()
                document["TrainingTimeInSeconds"] = document["BillableTimeInSeconds"] = max(1, round(took))

        document = self._foundation.store.change(KIND, name, change)
        if document is not None and status is not None:
            detail = {
                member: document[member]
                for member in ("TrainingJobName", "TrainingJobArn", "TrainingJobStatus", "SecondaryStatus")
            }
            self._foundation.publish(
                "SageMaker Training Job State Change", document["TrainingJobArn"], detail
            )

    def _get(self, name: str) -> Document:
        document = self._foundation.store.get(KIND, name)
        if document is None:
            raise job_not_found()
        return document

    def _run(self, name: str, stop: threading.Event) -> None:
        started = time.monotonic()
        folder = self._foundation.root / KIND / name
        folder.mkdir(parents=True, exist_ok=True)
        run = TrainingRun(self._foundation, self, document=self._get(name), folder=folder, stop=stop)
        try:
            ended = run.run()
            secondary = {
                None: "Completed",
                Stopped.BY_USER: "Stopped",
                Stopped.BY_TIME: "MaxRuntimeExceeded",
            }[ended]
            message = {
                None: "Training job completed",
                Stopped.BY_USER: "Training job stopped",
                Stopped.BY_TIME: "Training job runtime exceeded MaxRuntimeInSeconds",
            }[ended]
            status = "Completed" if ended is None else "Stopped"
            self.transition(
                name, secondary=secondary, message=message, status=status, **run.closing_members()
            )
        except JobFailedError as error:
            self._failed(name, reason_of(self._foundation, error), **run.closing_members())
        except Exception as error:
            logger.exception("training job %s", name)
            self._failed(name, reason_of(self._foundation, error), **run.closing_members())
        finally:
            # The model is in S3; what training read and wrote here is not kept twice.
            clean(folder)
            logger.info("training job %s ended after %.1f s", name, time.monotonic() - started)

    def _failed(self, name: str, reason: str, **members: Any) -> None:
        self.transition(
            name,
            secondary="Failed",
            message="Training job failed",
            status="Failed",
            **{"FailureReason": reason, "TrainingEndTime": now(), **members},
        )


def _artifact(params: Mapping[str, Any]) -> str:
    return "model/" if params["OutputDataConfig"].get("CompressionType") == "NONE" else "model.tar.gz"


def _check_spot(params: Mapping[str, Any]) -> None:
    """API_StoppingCondition, MaxWaitTimeInSeconds: only with spot, and at least MaxRuntimeInSeconds.

    Nothing here takes a machine away: a spot job runs as any other, and is billed for all of its time.
    """
    stopping = params.get("StoppingCondition", {})
    runtime = stopping.get("MaxRuntimeInSeconds", _DEFAULT_MAX_RUNTIME)
    wait = stopping.get("MaxWaitTimeInSeconds")
    if params.get("EnableManagedSpotTraining"):
        if wait is None or wait < runtime:
            raise validation(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to "
                f"MaxRuntimeInSeconds ({runtime}) when EnableManagedSpotTraining is set."
            )
    elif wait is not None:
        raise validation("MaxWaitTimeInSeconds must be absent unless EnableManagedSpotTraining is set.")


def _check(params: Mapping[str, Any]) -> None:
    refuse(params, _REFUSED)
    algorithm = params["AlgorithmSpecification"]
    if "TrainingImage" not in algorithm:
        raise validation("AlgorithmSpecification.TrainingImage is required.")
    resources = params.get("ResourceConfig", {})
    host_names(resources.get("InstanceCount", 1))
    _check_spot(params)
    if "ProfilerConfig" in params and not params["ProfilerConfig"].get("DisableProfiler"):
        raise unsupported("ProfilerConfig (set DisableProfiler)")
    modes = {algorithm["TrainingInputMode"]}
    for channel in params.get("InputDataConfig", []):
        label = f"channel {channel['ChannelName']!r}"
        source = channel["DataSource"].get("S3DataSource")
        if source is None:
            raise unsupported(f"a data source other than S3DataSource ({label})")
        if source["S3DataType"] != "S3Prefix":
            raise unsupported(f"S3DataType {source['S3DataType']} ({label})")
        if (
            channel.get("CompressionType", "None") != "None"
            or channel.get("RecordWrapperType", "None") != "None"
        ):
            raise unsupported(f"CompressionType or RecordWrapperType ({label})")
        refuse(channel, ("ShuffleConfig",))
        split(source["S3Uri"])
        modes.add(channel.get("InputMode", "File"))
    if "Pipe" in modes:
        raise unsupported("the input mode Pipe")
    split(params["OutputDataConfig"]["S3OutputPath"])
    if "CheckpointConfig" in params:
        split(params["CheckpointConfig"]["S3Uri"])
        path = params["CheckpointConfig"].get("LocalPath", "/opt/ml/checkpoints")
        if not path.startswith("/opt/ml/") or ".." in path.split("/"):
            raise unsupported("a CheckpointConfig.LocalPath outside /opt/ml")
    for definition in algorithm.get("MetricDefinitions", []):
        try:
            groups = re.compile(definition["Regex"]).groups
        except re.error as error:
            raise validation(f"The regex of metric {definition['Name']!r} is invalid: {error}") from None
        if groups < 1:
            raise validation(
                f"The regex of metric {definition['Name']!r} has no group to take the value from."
            )
