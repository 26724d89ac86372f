"""One training job at work: download, train, upload, all as the job's role and in SageMaker's folders."""

from __future__ import annotations

import contextlib
import enum
import json
import re
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from local.containers.engine import ContainerSpec
from local.containers.process import SAGEMAKER_BASE
from local.sagemaker.foundation import Foundation, RoleSession
from local.sagemaker.jobs import (
    RESTARTED,
    Ended,
    JobFailedError,
    Result,
    algorithm_error,
    guarded,
    run_container,
)
from local.sagemaker.s3 import EmptyPrefixError, download_prefix, join, pack, upload_file, upload_folder
from local.sagemaker.store import Document, now

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_CHECKPOINT_SECONDS = 10.0


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
    """The life of one training container."""

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
        self._ml = folder / "ml"
        self._stop = stop
        self._metrics = Metrics(document["AlgorithmSpecification"].get("MetricDefinitions", []))

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
        self._lay_out()
        guarded("Data download", self._download)
        self._step("Training", "Training image download completed. Training in progress.")
        result = self._train(image)
        if result.ended is Ended.SHUTDOWN:
            raise JobFailedError(RESTARTED)
        self._step("Uploading", "Uploading generated training model")
        failed = result.ended is Ended.EXIT and result.exit_code != 0
        guarded("Artifact upload", lambda: self._upload(with_model=not failed))
        if failed:
            raise JobFailedError(
                algorithm_error(
                    exit_code=result.exit_code,
                    failure_file=self._ml / "output" / "failure",
                    output=self._folder / "output.log",
                )
            )
        return {Ended.STOPPED: Stopped.BY_USER, Ended.TIMEOUT: Stopped.BY_TIME}.get(result.ended)

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

    def _lay_out(self) -> None:
        for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (self._ml / folder).mkdir(parents=True, exist_ok=True)
        resources = self._job.get("ResourceConfig", {})
        instance_type = resources.get("InstanceType", "local")
        channels = {
            channel["ChannelName"]: {
                "TrainingInputMode": channel.get("InputMode", "File"),
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": "None",
                **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
            }
            for channel in self._job.get("InputDataConfig", [])
        }
        group = {
            "instance_group_name": "homogeneousCluster",
            "instance_type": instance_type,
            "hosts": ["algo-1"],
        }
        files = {
            "hyperparameters": self._job.get("HyperParameters", {}),
            "inputdataconfig": channels,
            "resourceconfig": {
                "current_host": "algo-1",
                "current_instance_type": instance_type,
                "current_group_name": "homogeneousCluster",
                "hosts": ["algo-1"],
                "instance_groups": [group],
                "network_interface_name": "lo",
            },
        }
        for name, content in files.items():
            (self._ml / "input" / "config" / f"{name}.json").write_text(json.dumps(content, indent=1))

    def _download(self) -> None:
        client = self._session.client("s3")
        for channel in self._job.get("InputDataConfig", []):
            folder = self._ml / "input" / "data" / channel["ChannelName"]
            folder.mkdir(parents=True, exist_ok=True)
            download_prefix(client, channel["DataSource"]["S3DataSource"]["S3Uri"], folder)
        if "CheckpointConfig" in self._job:
            folder = self._checkpoints()
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(EmptyPrefixError):  # a first start has nothing to resume from
                download_prefix(client, join(self._job["CheckpointConfig"]["S3Uri"], ""), folder)

    def _checkpoints(self) -> Path:
        local: str = self._job["CheckpointConfig"].get("LocalPath", f"{SAGEMAKER_BASE}/checkpoints")
        return self._ml / local.removeprefix(f"{SAGEMAKER_BASE}/")

    def _train(self, image: Any) -> Result:
        algorithm = self._job["AlgorithmSpecification"]
        arguments = tuple(algorithm.get("ContainerArguments", ()))
        entrypoint = tuple(algorithm.get("ContainerEntrypoint", ()))
        sync = (
            Checkpoints(self._session.client("s3"), self._checkpoints(), self._job)
            if self._has_checkpoints
            else None
        )
        result = run_container(
            self._foundation,
            self._session,
            ContainerSpec(
                name=f"training-job/{self._name}",
                image=image,
                base=self._ml,
                output=self._folder / "output.log",
                arguments=arguments or (() if entrypoint else ("train",)),
                entrypoint=entrypoint,
                environment={
                    **self._job.get("Environment", {}),
                    "TRAINING_JOB_NAME": self._name,
                    "TRAINING_JOB_ARN": self._job["TrainingJobArn"],
                    **self._session.environment(),
                },
            ),
            log_group=LOG_GROUP,
            log_stream=f"{self._name}/algo-1-{int(time.time())}",
            seconds=self._job["StoppingCondition"]["MaxRuntimeInSeconds"],
            stop=self._stop,
            on_line=self._metrics.read,
            meanwhile=sync.now_and_then if sync else None,
        )
        if sync:
            guarded("Checkpoint upload", sync.upload)
        return result

    @property
    def _has_checkpoints(self) -> bool:
        return "CheckpointConfig" in self._job

    def _upload(self, *, with_model: bool) -> None:
        client = self._session.client("s3")
        output = self._job["OutputDataConfig"]
        kms_key = output.get("KmsKeyId")
        target = join(output["S3OutputPath"], self._name, "output")
        data = self._ml / "output" / "data"
        plain = output.get("CompressionType") == "NONE"
        for folder, name, wanted in (
            (self._ml / "model", "model", with_model),
            (data, "output", any(data.iterdir())),
        ):
            if not wanted:
                continue
            if plain:
                upload_folder(client, folder, join(target, name), kms_key=kms_key)
                continue
            archive = self._folder / f"{name}.tar.gz"
            pack(folder, archive)
            upload_file(client, archive, join(target, archive.name), kms_key=kms_key)
            archive.unlink()


class Metrics:
    """The last value of every MetricDefinition's expression in the output."""

    def __init__(self, definitions: list[dict[str, str]]) -> None:
        self._definitions = [(entry["Name"], re.compile(entry["Regex"])) for entry in definitions]
        self._values: dict[str, dict[str, Any]] = {}

    def read(self, line: str) -> None:
        """Look for every metric in a line."""
        for name, expression in self._definitions:
            for match in expression.finditer(line):
                try:
                    value = float(match[1])
                except (TypeError, ValueError):
                    continue  # as SageMaker: what is no number is no metric
                self._values[name] = {"MetricName": name, "Value": value, "Timestamp": now()}

    def final(self) -> list[dict[str, Any]]:
        """FinalMetricDataList."""
        return list(self._values.values())


class Checkpoints:
    """Copies new and changed files of the checkpoint folder to S3 while the job runs."""

    def __init__(self, client: Any, folder: Path, job: Document) -> None:
        self._client = client
        self._folder = folder
        self._uri: str = job["CheckpointConfig"]["S3Uri"]
        self._sent: dict[Path, tuple[int, int]] = {
            path: _state(path) for path in folder.rglob("*") if path.is_file()
        }
        self._next = time.monotonic() + _CHECKPOINT_SECONDS

    def now_and_then(self) -> None:
        """Upload if it is time to."""
        if time.monotonic() >= self._next:
            guarded("Checkpoint upload", self.upload)
            self._next = time.monotonic() + _CHECKPOINT_SECONDS

    def upload(self) -> None:
        """Upload what changed since the last time."""
        for path in sorted(self._folder.rglob("*")):
            if not path.is_file():
                continue
            # Training replaces and rotates its files: one that has just gone is not a checkpoint any more.
            with contextlib.suppress(FileNotFoundError):
                state = _state(path)
                if self._sent.get(path) != state:
                    upload_file(
                        self._client, path, join(self._uri, path.relative_to(self._folder).as_posix())
                    )
                    self._sent[path] = state


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
