"""Batch transform jobs: every object of an S3 prefix through a model container, answers beside it as `.out`.

Source: docs.aws.amazon.com/sagemaker/latest/dg/batch-transform.html
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from local.sagemaker.errors import in_use, job_not_found, unsupported, validation
from local.sagemaker.foundation import Foundation, refuse, shown, without_tags
from local.sagemaker.jobs import RESTARTED, JobFailedError, Jobs, clean, clean_all, fresh_folder, reason_of
from local.sagemaker.listing import page, select
from local.sagemaker.models import Models
from local.sagemaker.s3 import split
from local.sagemaker.store import Document, now
from local.sagemaker.transform_run import TransformRun
from local.service import Call, Handler

logger = logging.getLogger(__name__)

KIND = "transform-job"
_REFUSED = ("DataCaptureConfig", "DataProcessing", "ExperimentConfig")
_SUMMARY = (
    "TransformJobName",
    "TransformJobArn",
    "CreationTime",
    "TransformEndTime",
    "LastModifiedTime",
    "TransformJobStatus",
    "FailureReason",
)


class TransformJobs:
    """CreateTransformJob and its kin."""

    def __init__(self, foundation: Foundation, models: Models) -> None:
        self._foundation = foundation
        self._models = models
        self._jobs = Jobs(foundation)

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return {
            "CreateTransformJob": self.create,
            "DescribeTransformJob": self.describe,
            "ListTransformJobs": self.list_jobs,
            "StopTransformJob": self.stop,
        }

    def create(self, call: Call) -> Mapping[str, Any]:
        """Check the request and start the job's thread."""
        params = call.params
        _check(params)
        name = params["TransformJobName"]
        arn = self._foundation.names.arn(KIND, name)
        self._foundation.may_tag(call, arn)
        moment = now()
        document: Document = {
            **without_tags(params),
            "TransformJobArn": arn,
            "TransformJobStatus": "InProgress",
            "CreationTime": moment,
            "_LastModifiedTime": moment,
            "_Model": self._models.model(params["ModelName"]),
        }
        if not self._foundation.store.add(KIND, name, document):
            raise in_use(
                f"Transform job names must be unique within an AWS account and region; {name!r} exists."
            )
        self._foundation.tag(call, arn)
        self._jobs.start(
            name,
            lambda stop: self._run(name, stop),
            failed=lambda reason: self._end(name, "Failed", FailureReason=reason),
        )
        return {"TransformJobArn": arn}

    def describe(self, call: Call) -> Mapping[str, Any]:
        """The job as it stands."""
        return shown(self._get(call.params["TransformJobName"]))

    def list_jobs(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        documents = [
            {**document, "LastModifiedTime": document["_LastModifiedTime"]}
            for document in self._foundation.store.all(KIND)
        ]
        chosen = select(documents, call.params, name="TransformJobName", status="TransformJobStatus")
        return page(chosen, call.params, into="TransformJobSummaries", members=_SUMMARY)

    def stop(self, call: Call) -> Mapping[str, Any]:
        """Stop the container; what was answered so far stays in S3."""
        name = call.params["TransformJobName"]
        with self._foundation.store.transaction():
            if self._get(name)["TransformJobStatus"] != "InProgress":
                raise validation(
                    f"The request was rejected because the transform job {name} is not in progress."
                )
            self._update(name, TransformJobStatus="Stopping")
        self._jobs.stop(name)
        return {}

    def fail_interrupted(self) -> None:
        """Jobs that ran when the cloud was killed are failed with the reason."""
        clean_all(self._foundation, KIND)
        for document in self._foundation.store.all(KIND):
            if document["TransformJobStatus"] in ("InProgress", "Stopping"):
                self._end(document["TransformJobName"], "Failed", FailureReason=RESTARTED)

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
            document.update(members, _LastModifiedTime=now())

        return self._foundation.store.change(KIND, name, change)

    def _end(self, name: str, status: str, **members: Any) -> None:
        document = self._update(name, TransformJobStatus=status, TransformEndTime=now(), **members)
        if document is not None:
            detail = {
                member: document[member]
                for member in ("TransformJobName", "TransformJobArn", "TransformJobStatus")
            }
            self._foundation.publish(
                "SageMaker Transform Job State Change", document["TransformJobArn"], detail
            )

    def _run(self, name: str, stop: threading.Event) -> None:
        folder = fresh_folder(self._foundation, KIND, name)
        document = self._update(name, TransformStartTime=now()) or self._get(name)
        try:
            completed = TransformRun(self._foundation, document=document, folder=folder, stop=stop).run()
            self._end(name, "Completed" if completed else "Stopped")
        except JobFailedError as error:
            self._end(name, "Failed", FailureReason=reason_of(self._foundation, error))
        except Exception as error:
            logger.exception("transform job %s", name)
            self._end(name, "Failed", FailureReason=reason_of(self._foundation, error))
        finally:
            clean(folder)


def _check(params: Mapping[str, Any]) -> None:
    refuse(params, _REFUSED)
    if params["TransformResources"]["InstanceCount"] != 1:
        raise unsupported("TransformResources.InstanceCount > 1 (several hosts)")
    given = params["TransformInput"]
    source = given["DataSource"]["S3DataSource"]
    if source["S3DataType"] != "S3Prefix":
        raise unsupported(f"S3DataType {source['S3DataType']}")
    split(source["S3Uri"])
    if given.get("CompressionType", "None") != "None":
        raise unsupported(f"CompressionType {given['CompressionType']}")
    if given.get("SplitType", "None") not in ("None", "Line"):
        raise unsupported(f"SplitType {given['SplitType']}")
    split(params["TransformOutput"]["S3OutputPath"])
