"""One processing job at work: inputs from S3, the container, outputs to S3."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

from local.containers.engine import ContainerSpec
from local.containers.process import SAGEMAKER_BASE
from local.sagemaker.container_run import Ended, run_container
from local.sagemaker.foundation import Foundation, RoleSession, shown
from local.sagemaker.jobs import RESTARTED, JobFailedError, algorithm_error, guarded
from local.sagemaker.s3 import download_prefix, upload_folder
from local.sagemaker.store import Document

logger = logging.getLogger(__name__)

LOG_GROUP = "/aws/sagemaker/ProcessingJobs"
_CONTINUOUS_SECONDS = 5.0


class ProcessingRun:
    """The life of one processing container."""

    def __init__(
        self, foundation: Foundation, *, document: Document, folder: Path, stop: threading.Event
    ) -> None:
        self._foundation = foundation
        self._job = document
        self._name: str = document["ProcessingJobName"]
        self._folder = folder
        self._ml = folder / "ml"
        self._stop = stop
        self._next_upload = time.monotonic() + _CONTINUOUS_SECONDS

    def run(self) -> bool:
        """Do the job; False when it was stopped.

        Raises:
            JobFailedError: with the FailureReason.
        """
        self._session = guarded(
            "Assuming the role",
            lambda: RoleSession(
                self._foundation, role_arn=self._job["RoleArn"], name=f"SageMaker-{self._name}"
            ),
        )
        application = self._job["AppSpecification"]
        image = guarded("Pulling the image", lambda: self._session.image(application["ImageUri"]))
        self._lay_out()
        guarded("Data download", self._download)
        entrypoint = tuple(application.get("ContainerEntrypoint", ()))
        arguments = application.get("ContainerArguments")
        result = run_container(
            self._foundation,
            self._session,
            ContainerSpec(
                name=f"processing-job/{self._name}",
                image=image,
                base=self._ml,
                output=self._folder / "output.log",
                # Unlike training and serving, a processing container gets no argument of SageMaker's own.
                arguments=tuple(arguments) if arguments is not None else None,
                entrypoint=entrypoint,
                environment={
                    **self._job.get("Environment", {}),
                    "PROCESSING_JOB_NAME": self._name,
                    "PROCESSING_JOB_ARN": self._job["ProcessingJobArn"],
                    **self._session.environment(),
                },
            ),
            log_group=LOG_GROUP,
            log_stream=f"{self._name}/algo-1-{int(time.time())}",
            seconds=self._job["StoppingCondition"]["MaxRuntimeInSeconds"],
            stop=self._stop,
            meanwhile=self._upload_continuous,
        )
        if result.ended is Ended.SHUTDOWN:
            raise JobFailedError(RESTARTED)
        if result.ended is Ended.TIMEOUT:
            seconds = self._job["StoppingCondition"]["MaxRuntimeInSeconds"]
            raise JobFailedError(f"ClientError: MaxRuntimeInSeconds ({seconds}) exceeded")
        if result.ended is Ended.EXIT and result.exit_code != 0:
            guarded("Artifact upload", lambda: self._upload("Continuous"))
            raise JobFailedError(
                algorithm_error(
                    exit_code=result.exit_code, failure_file=None, output=self._folder / "output.log"
                )
            )
        if result.ended is Ended.EXIT:
            guarded("Artifact upload", self._upload)
        return result.ended is Ended.EXIT

    def closing_members(self) -> dict[str, Any]:
        """ExitMessage: what the container left at /opt/ml/output/message (at most 1024 characters)."""
        message = self._ml / "output" / "message"
        return {"ExitMessage": message.read_text(errors="replace")[:1024]} if message.is_file() else {}

    def _lay_out(self) -> None:
        config = self._ml / "config"
        for folder in (config, self._ml / "output", self._ml / "processing"):
            folder.mkdir(parents=True, exist_ok=True)
        for output in self._outputs():
            self._place(output["S3Output"]["LocalPath"]).mkdir(parents=True, exist_ok=True)
        cluster = self._job["ProcessingResources"]["ClusterConfig"]
        resources = {
            "current_host": "algo-1",
            "hosts": ["algo-1"],
            "current_instance_type": cluster.get("InstanceType", "local"),
        }
        (config / "resourceconfig.json").write_text(json.dumps(resources, indent=1))
        job = json.dumps(shown(self._job), indent=1, default=lambda value: value.isoformat())
        (config / "processingjobconfig.json").write_text(job)

    def _download(self) -> None:
        client = self._session.client("s3")
        for entry in self._job.get("ProcessingInputs", []):
            source = entry["S3Input"]
            folder = self._place(source["LocalPath"])
            folder.mkdir(parents=True, exist_ok=True)
            download_prefix(client, source["S3Uri"], folder)

    def _outputs(self) -> list[dict[str, Any]]:
        outputs: list[dict[str, Any]] = self._job.get("ProcessingOutputConfig", {}).get("Outputs", [])
        return outputs

    def _upload_continuous(self) -> None:
        if time.monotonic() >= self._next_upload:
            guarded("Artifact upload", lambda: self._upload("Continuous"))
            self._next_upload = time.monotonic() + _CONTINUOUS_SECONDS

    def _upload(self, mode: str | None = None) -> None:
        """Upload every output, or only those of one S3UploadMode."""
        client = self._session.client("s3")
        kms_key = self._job.get("ProcessingOutputConfig", {}).get("KmsKeyId")
        for entry in self._outputs():
            target = entry["S3Output"]
            if mode is None or target["S3UploadMode"] == mode:
                upload_folder(client, self._place(target["LocalPath"]), target["S3Uri"], kms_key=kms_key)

    def _place(self, path: str) -> Path:
        return self._ml / path.removeprefix(f"{SAGEMAKER_BASE}/")
