"""Processing jobs.

Source: docs.aws.amazon.com/sagemaker/latest/dg/build-your-own-processing-container.html
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from local.containers.process import SAGEMAKER_BASE
from local.sagemaker.errors import in_use, job_not_found, unsupported, validation
from local.sagemaker.foundation import Foundation, refuse, shown, without_tags
from local.sagemaker.jobs import RESTARTED, JobFailedError, Jobs, clean, clean_all, fresh_folder, reason_of
from local.sagemaker.listing import page, select
from local.sagemaker.processing_run import ProcessingRun
from local.sagemaker.s3 import split
from local.sagemaker.store import Document, now
from local.service import Call, Handler

logger = logging.getLogger(__name__)

KIND = "processing-job"
_REFUSED = ("NetworkConfig.EnableNetworkIsolation", "ExperimentConfig")
_SUMMARY = (
    "ProcessingJobName",
    "ProcessingJobArn",
    "CreationTime",
    "ProcessingEndTime",
    "LastModifiedTime",
    "ProcessingJobStatus",
    "FailureReason",
    "ExitMessage",
)
_DEFAULT_MAX_RUNTIME = 86_400


class ProcessingJobs:
    """CreateProcessingJob and its kin."""

    def __init__(self, foundation: Foundation) -> None:
        self._foundation = foundation
        self._jobs = Jobs(foundation)

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return {
            "CreateProcessingJob": self.create,
            "DescribeProcessingJob": self.describe,
            "ListProcessingJobs": self.list_jobs,
            "StopProcessingJob": self.stop,
        }

    def create(self, call: Call) -> Mapping[str, Any]:
        """Check the request and start the job's thread."""
        params = call.params
        _check(params)
        self._foundation.take_role(call, params["RoleArn"])
        name = params["ProcessingJobName"]
        arn = self._foundation.names.arn(KIND, name)
        self._foundation.may_tag(call, arn)
        moment = now()
        document: Document = {
            **without_tags(params),
            "ProcessingJobArn": arn,
            "StoppingCondition": params.get(
                "StoppingCondition", {"MaxRuntimeInSeconds": _DEFAULT_MAX_RUNTIME}
            ),
            "ProcessingJobStatus": "InProgress",
            "CreationTime": moment,
            "LastModifiedTime": moment,
        }
        if not self._foundation.store.add(KIND, name, document):
            raise in_use(
                f"Processing job names must be unique within an AWS account and region; {name!r} exists."
            )
        self._foundation.tag(call, arn)
        self._jobs.start(
            name,
            lambda stop: self._run(name, stop),
            failed=lambda reason: self._end(name, "Failed", FailureReason=reason),
        )
        return {"ProcessingJobArn": arn}

    def describe(self, call: Call) -> Mapping[str, Any]:
        """The job as it stands."""
        return shown(self._get(call.params["ProcessingJobName"]))

    def list_jobs(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        chosen = select(
            self._foundation.store.all(KIND),
            call.params,
            name="ProcessingJobName",
            status="ProcessingJobStatus",
        )
        return page(chosen, call.params, into="ProcessingJobSummaries", members=_SUMMARY)

    def stop(self, call: Call) -> Mapping[str, Any]:
        """SIGTERM, 120 s, SIGKILL."""
        name = call.params["ProcessingJobName"]
        with self._foundation.store.transaction():
            if self._get(name)["ProcessingJobStatus"] != "InProgress":
                raise validation(
                    f"The request was rejected because the processing job {name} is not in progress."
                )
            self._update(name, ProcessingJobStatus="Stopping")
        self._jobs.stop(name)
        return {}

    def fail_interrupted(self) -> None:
        """Jobs that ran when the cloud was killed are failed with the reason."""
        clean_all(self._foundation, KIND)
        for document in self._foundation.store.all(KIND):
            if document["ProcessingJobStatus"] in ("InProgress", "Stopping"):
                self._end(document["ProcessingJobName"], "Failed", FailureReason=RESTARTED)

    def join(self, seconds: float) -> None:
        """Wait for the threads at the end of the cloud."""
        self._jobs.join(seconds)

    def _get(self, name: str) -> Document:
        document = self._foundation.store.get(KIND, name)
        if document is None:
            raise job_not_found()
        return document

    def _update(self, name: str, **members: Any) -> Document | None:
        def change(document: Document) -> None:
            document.update(members, LastModifiedTime=now())

        return self._foundation.store.change(KIND, name, change)

    def _end(self, name: str, status: str, **members: Any) -> None:
        document = self._update(name, ProcessingJobStatus=status, ProcessingEndTime=now(), **members)
        if document is not None:
            detail = {
                member: document[member]
                for member in ("ProcessingJobName", "ProcessingJobArn", "ProcessingJobStatus")
            }
            self._foundation.publish(
                "SageMaker Processing Job State Change", document["ProcessingJobArn"], detail
            )

    def _run(self, name: str, stop: threading.Event) -> None:
        folder = fresh_folder(self._foundation, KIND, name)
        document = self._update(name, ProcessingStartTime=now()) or self._get(name)
        run = ProcessingRun(self._foundation, document=document, folder=folder, stop=stop)
        try:
            completed = run.run()
            self._end(name, "Completed" if completed else "Stopped", **run.closing_members())
        except JobFailedError as error:
            reason = reason_of(self._foundation, error)
            self._end(name, "Failed", FailureReason=reason, **run.closing_members())
        except Exception as error:
            logger.exception("processing job %s", name)
            self._end(name, "Failed", FailureReason=reason_of(self._foundation, error))
        finally:
            clean(folder)


def _check(params: Mapping[str, Any]) -> None:
    refuse(params, _REFUSED)
    if params["ProcessingResources"]["ClusterConfig"].get("InstanceCount", 1) != 1:
        raise unsupported("ProcessingResources.ClusterConfig.InstanceCount > 1 (several hosts)")
    for entry in params.get("ProcessingInputs", []):
        label = f"(input {entry['InputName']!r})"
        refuse(entry, ("AppManaged",))
        source = entry.get("S3Input")
        if source is None:
            raise unsupported(f"an input other than S3Input {label}")
        if source.get("S3DataType", "S3Prefix") != "S3Prefix" or source.get("S3InputMode", "File") != "File":
            raise unsupported(f"S3DataType or S3InputMode other than S3Prefix and File {label}")
        if source.get("S3CompressionType", "None") != "None":
            raise unsupported(f"S3CompressionType {label}")
        split(source["S3Uri"])
        _check_path(source.get("LocalPath"), label)
    for entry in params.get("ProcessingOutputConfig", {}).get("Outputs", []):
        label = f"(output {entry['OutputName']!r})"
        refuse(entry, ("AppManaged", "FeatureStoreOutput"))
        target = entry.get("S3Output")
        if target is None:
            raise unsupported(f"an output other than S3Output {label}")
        split(target["S3Uri"])
        _check_path(target.get("LocalPath"), label)


def _check_path(path: str | None, label: str) -> None:
    if path is None or not path.startswith(f"{SAGEMAKER_BASE}/processing/") or ".." in path.split("/"):
        raise validation(f"LocalPath must be below {SAGEMAKER_BASE}/processing/, got {path!r} {label}.")
