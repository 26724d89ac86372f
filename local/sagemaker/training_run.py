"""One training job at work: download, train, upload, all as the job's role and in SageMaker's folders."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from local.sagemaker.checkpoints import Checkpoints
from local.sagemaker.container_run import Ended, LoggedContainer, Result, run_together
from local.sagemaker.foundation import Foundation, RoleSession
from local.sagemaker.jobs import RESTARTED, JobFailedError, algorithm_error, guarded
from local.sagemaker.s3 import join, pack, upload_file, upload_folder
from local.sagemaker.store import Document, now
from local.sagemaker.training_host import TrainingHost, host_names
from local.sagemaker.training_metrics import Metrics

logger = logging.getLogger(__name__)

LOG_GROUP = "/aws/sagemaker/TrainingJobs"


class Stopped(enum.Enum):
    """Why a job ended before its container did."""

    BY_USER = "StopTrainingJob"
    BY_TIME = "MaxRuntimeInSeconds"


class Transitions(Protocol):
    """Writes a job's progress down."""

    def transition(
        self, name: str, *, secondary: str, message: str, status: str | None = None, **members: Any
    ) -> None:
        """Go to the next secondary status."""


class TrainingRun:
    """The life of a training job's containers, one a host."""

    def __init__(
        self,
        foundation: Foundation,
        transitions: Transitions,
        *,
        document: Document,
        folder: Path,
        stop: threading.Event,
    ) -> None:
        self._foundation = foundation
        self._transitions = transitions
        self._job = document
        self._name: str = document["TrainingJobName"]
        self._folder = folder
        self._stop = stop
        self._metrics = Metrics(document["AlgorithmSpecification"].get("MetricDefinitions", []))
        names = host_names(document.get("ResourceConfig", {}).get("InstanceCount", 1))
        self._hosts = [
            TrainingHost(job=document, number=number, hosts=names, folder=folder / f"algo-{number + 1}")
            for number in range(len(names))
        ]

    def run(self) -> Stopped | None:
        """Do the job; None when it completed.

        Raises:
            JobFailedError: with the FailureReason.
        """
        self._session = guarded(
            "Assuming the role",
            lambda: RoleSession(
                self._foundation, role_arn=self._job["RoleArn"], name=f"SageMaker-{self._name}"
            ),
        )
        self._step("Downloading", "Downloading input data", TrainingStartTime=now())
        image = guarded("Pulling the image", self._pull)
        for host in self._hosts:
            host.lay_out()
        guarded("Data download", self._download)
        self._step("Training", "Training image download completed. Training in progress.")
        checkpoints = self._checkpoints()
        results = self._train(image, checkpoints)
        ended = {result.ended for result in results}
        if Ended.SHUTDOWN in ended:
            raise JobFailedError(RESTARTED)
        failed = any(result.failed for result in results)
        self._step("Uploading", "Uploading generated training model")
        try:
            for checkpoint in checkpoints:
                guarded("Checkpoint upload", checkpoint.upload)
            guarded("Artifact upload", lambda: self._upload(with_model=not failed))
        except JobFailedError:
            if not failed:
                raise
            logger.exception("training job %s failed, and its output is lost", self._name)
        if failed:
            raise JobFailedError(self._reason(results))
        if Ended.STOPPED in ended:
            return Stopped.BY_USER
        return Stopped.BY_TIME if Ended.TIMEOUT in ended else None

    def closing_members(self) -> dict[str, Any]:
        """What Describe shows of a job that has ended."""
        members: dict[str, Any] = {"TrainingEndTime": now()}
        if final := self._metrics.final():
            members["FinalMetricDataList"] = final
        return members

    def _step(self, secondary: str, message: str, **members: Any) -> None:
        if not self._stop.is_set():
            self._transitions.transition(self._name, secondary=secondary, message=message, **members)

    def _pull(self) -> Any:
        return self._session.image(self._job["AlgorithmSpecification"]["TrainingImage"])

    def _download(self) -> None:
        for host in self._hosts:
            host.download(self._session.client("s3"))

    def _checkpoints(self) -> list[Checkpoints]:
        if "CheckpointConfig" not in self._job:
            return []
        client = self._session.client("s3")
        return [Checkpoints(client, host.checkpoints, self._job) for host in self._hosts]

    def _train(self, image: Any, checkpoints: Sequence[Checkpoints]) -> list[Result]:
        def send_checkpoints() -> None:
            for checkpoint in checkpoints:
                checkpoint.now_and_then()

        moment = int(time.time())
        return run_together(
            self._foundation,
            self._session,
            [
                LoggedContainer(
                    spec=host.container(image, self._session.environment()),
                    log_stream=f"{self._name}/{host.label}-{moment}",
                )
                for host in self._hosts
            ],
            log_group=LOG_GROUP,
            seconds=self._job["StoppingCondition"]["MaxRuntimeInSeconds"],
            stop=self._stop,
            on_line=self._metrics.read,
            meanwhile=send_checkpoints,
        )

    def _reason(self, results: Sequence[Result]) -> str:
        """FailureReason: what the host says that spoke first.

        The others may only have missed it, and may have ended before it: a connection is closed before the
        process that had it is gone.
        """
        by_host = list(zip(self._hosts, results, strict=True))
        first, first_result = next((host, result) for host, result in by_host if result.failed)
        spoke = [
            (host, result)
            for host, result in by_host
            if (result.failed or result.ended is Ended.PEER) and host.failure_file.is_file()
        ]
        host, result = min(
            spoke,
            key=lambda entry: entry[0].failure_file.stat().st_mtime,
            default=(first, first_result),
        )
        return algorithm_error(
            exit_code=(result if result.failed else first_result).exit_code,
            failure_file=host.failure_file,
            output=host.output,
        )

    def _upload(self, *, with_model: bool) -> None:
        client = self._session.client("s3")
        output = self._job["OutputDataConfig"]
        kms_key = output.get("KmsKeyId")
        target = join(output["S3OutputPath"], self._name, "output")
        plain = output.get("CompressionType") == "NONE"
        models = [host.base / "model" for host in self._hosts]
        data = [host.base / "output" / "data" for host in self._hosts]
        for folders, name, wanted in (
            (models, "model", with_model),
            (data, "output", any(any(folder.iterdir()) for folder in data)),
        ):
            if not wanted:
                continue
            self._check_names(folders)
            if plain:
                for folder in folders:
                    upload_folder(client, folder, join(target, name), kms_key=kms_key)
                continue
            archive = self._folder / f"{name}.tar.gz"
            pack(folders, archive)
            upload_file(client, archive, join(target, archive.name), kms_key=kms_key)
            archive.unlink()

    def _check_names(self, folders: Sequence[Path]) -> None:
        """Refuse to merge what two hosts wrote under one name.

        "If multiple containers in a single training job write to this directory they should ensure no
        file/directory names clash" (your-algorithms-training-algo-output); what comes of a clash is not said.
        """
        writers: dict[str, list[str]] = defaultdict(list)
        for host, folder in zip(self._hosts, folders, strict=True):
            for path in folder.iterdir():
                writers[f"{folder.relative_to(host.base)}/{path.name}"].append(host.label)
        if clashes := {path: labels for path, labels in writers.items() if len(labels) > 1}:
            name, labels = min(clashes.items())
            raise JobFailedError(
                f"ClientError: Artifact upload failed: {' and '.join(labels)} both wrote /opt/ml/{name}. "
                "The results of all hosts go into one archive: let one host write them, or name them apart."
            )
