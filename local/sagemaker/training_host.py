"""One host of a training job: its folders, what SageMaker writes into them, its container, its results."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.containers.engine import ContainerSpec
from local.containers.image import Image
from local.containers.process import SAGEMAKER_BASE
from local.sagemaker.errors import unsupported
from local.sagemaker.s3 import EmptyPrefixError, download_prefix, join
from local.sagemaker.store import Document

_LARGEST_CLUSTER = 254


@dataclass(frozen=True, kw_only=True)
class TrainingHost:
    """One of a job's machines."""

    job: Document
    number: int
    """From 0."""
    hosts: Sequence[str]
    """The names of all machines of the job."""
    folder: Path

    @property
    def name(self) -> str:
        """Name in `hosts`, by which the others reach it."""
        return self.hosts[self.number]

    @property
    def label(self) -> str:
        """ "algo-1", "algo-2", ...: its name on AWS, and in the names of log streams and folders."""
        return f"algo-{self.number + 1}"

    @property
    def base(self) -> Path:
        """What its container sees as /opt/ml."""
        return self.folder / "ml"

    @property
    def output(self) -> Path:
        """What its container prints."""
        return self.folder / "output.log"

    @property
    def failure_file(self) -> Path:
        """Where its container says why it failed."""
        return self.base / "output" / "failure"

    @property
    def checkpoints(self) -> Path:
        """Where its container finds and leaves checkpoints."""
        local: str = self.job["CheckpointConfig"].get("LocalPath", f"{SAGEMAKER_BASE}/checkpoints")
        return self.base / local.removeprefix(f"{SAGEMAKER_BASE}/")

    def lay_out(self) -> None:
        """Make the folders and the files of /opt/ml/input/config."""
        for folder in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        for name, content in {
            "hyperparameters": self.job.get("HyperParameters", {}),
            "inputdataconfig": self._channels(),
            "resourceconfig": self._resources(),
        }.items():
            (self.base / "input" / "config" / f"{name}.json").write_text(json.dumps(content, indent=1))

    def download(self, client: Any) -> None:
        """Fetch the channels, or this host's share of them, and the checkpoints of an earlier job."""
        for channel in self.job.get("InputDataConfig", []):
            folder = self.base / "input" / "data" / channel["ChannelName"]
            folder.mkdir(parents=True, exist_ok=True)
            source = channel["DataSource"]["S3DataSource"]
            sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
            shard = (self.number, len(self.hosts)) if sharded else (0, 1)
            download_prefix(client, source["S3Uri"], folder, shard=shard)
        if "CheckpointConfig" in self.job:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(EmptyPrefixError):  # a first start has nothing to resume from
                download_prefix(client, join(self.job["CheckpointConfig"]["S3Uri"], ""), self.checkpoints)

    def container(self, image: Image, credentials: Mapping[str, str]) -> ContainerSpec:
        """What to start; `credentials` are the AWS variables of the job's role."""
        algorithm = self.job["AlgorithmSpecification"]
        entrypoint = tuple(algorithm.get("ContainerEntrypoint", ()))
        name = f"training-job/{self.job['TrainingJobName']}"
        return ContainerSpec(
            name=name if len(self.hosts) == 1 else f"{name}/{self.label}",
            image=image,
            base=self.base,
            output=self.output,
            arguments=tuple(algorithm.get("ContainerArguments", ())) or (() if entrypoint else ("train",)),
            entrypoint=entrypoint,
            environment={
                "HOSTNAME": self.name,
                **self.job.get("Environment", {}),
                "TRAINING_JOB_NAME": self.job["TrainingJobName"],
                "TRAINING_JOB_ARN": self.job["TrainingJobArn"],
                **credentials,
            },
        )

    def _channels(self) -> dict[str, Any]:
        return {
            channel["ChannelName"]: {
                "TrainingInputMode": channel.get("InputMode", "File"),
                "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                    "S3DataDistributionType", "FullyReplicated"
                ),
                "RecordWrapperType": "None",
                **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
            }
            for channel in self.job.get("InputDataConfig", [])
        }

    def _resources(self) -> dict[str, Any]:
        instance_type = self.job.get("ResourceConfig", {}).get("InstanceType", "local")
        group = {
            "instance_group_name": "homogeneousCluster",
            "instance_type": instance_type,
            "hosts": list(self.hosts),
        }
        return {
            "current_host": self.name,
            "current_instance_type": instance_type,
            "current_group_name": "homogeneousCluster",
            "hosts": list(self.hosts),
            "instance_groups": [group],
            "network_interface_name": "lo",
        }


def host_names(count: int) -> list[str]:
    """The names that the hosts of a job reach each other by.

    AWS calls them algo-1, algo-2, ...: names that this machine cannot make resolve for processes. Several
    hosts are therefore called by loopback addresses; one alone keeps AWS's name.

    Raises:
        ServiceError: this machine has not so many loopback addresses (macOS has one unless more are added).
    """
    if count == 1:
        return ["algo-1"]
    if count > _LARGEST_CLUSTER:
        raise unsupported(f"ResourceConfig.InstanceCount > {_LARGEST_CLUSTER}")
    names = [f"127.0.0.{number}" for number in range(1, count + 1)]
    for name in names:
        with socket.socket() as probe:
            try:
                probe.bind((name, 0))
            except OSError as error:
                raise unsupported(
                    f"ResourceConfig.InstanceCount {count} on a machine where {name} is no loopback address"
                ) from error
    return names
