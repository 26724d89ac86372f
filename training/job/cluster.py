"""The hosts of a training job, and the ranks on them."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import JobConfigurationError

_FIRST_PORT, _PORTS = 20_000, 10_000
"""Below the ports that the kernel gives to connections that leave it to it."""

GPU_DEVICE = Path("/dev/nvidiactl")
"""Present in containers that were given an NVIDIA GPU."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Hosts of a job and this one among them.

    Attributes:
        hosts: All, in the order of their ranks.
        current_host: This one.
        processes_per_host: Ranks on each host.
        network_interface: By which hosts reach each other; None where there is one host.
    """

    hosts: tuple[str, ...]
    current_host: str
    processes_per_host: int
    network_interface: str | None

    @property
    def world_size(self) -> int:
        """Ranks of the job."""
        return len(self.hosts) * self.processes_per_host

    @property
    def node_rank(self) -> int:
        return self.hosts.index(self.current_host)

    def master_port(self, job_name: str) -> int:
        """Where ranks of several hosts meet. Of the job's name, since hosts must agree without talking, and
        jobs of one machine must not meet each other's.
        """
        return _FIRST_PORT + zlib.crc32(job_name.encode()) % _PORTS

    @classmethod
    def from_resources(
        cls,
        resources: Mapping[str, Any],
        *,
        processes_per_host: int | None,
        environ: Mapping[str, str] = os.environ,
    ) -> Cluster:
        """Reads `resourceconfig.json`; an SM_* variable that is set wins over it.

        Raises:
            JobConfigurationError: They contradict themselves.
        """
        hosts = _hosts(environ["SM_HOSTS"]) if environ.get("SM_HOSTS") else resources.get("hosts")
        hosts = sorted(str(host) for host in hosts or ["algo-1"])
        current = environ.get("SM_CURRENT_HOST") or resources.get("current_host") or hosts[0]
        if current not in hosts or len(set(hosts)) < len(hosts):
            msg = f"The job's hosts are {', '.join(hosts)}, and this one is {current}: that cannot be"
            raise JobConfigurationError(msg)
        interface = environ.get("SM_NETWORK_INTERFACE_NAME") or resources.get("network_interface_name")
        return cls(
            hosts=tuple(hosts),
            current_host=str(current),
            processes_per_host=processes_per_host or max(_gpus(environ), 1),
            network_interface=str(interface) if interface and len(hosts) > 1 else None,
        )


def launched_already(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is one of several ranks: torchrun started it, ours or the SDK's."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environ.keys()


def _hosts(text: str) -> list[Any]:
    try:
        hosts = json.loads(text)
    except ValueError:
        hosts = None
    if not isinstance(hosts, list):
        msg = "SM_HOSTS is no JSON list"
        raise JobConfigurationError(msg)
    return hosts


def _gpus(environ: Mapping[str, str]) -> int:
    told = environ.get("SM_NUM_GPUS", "")
    if told.isdecimal():
        return int(told)
    if not GPU_DEVICE.exists():
        return 0
    # Takes seconds, which machines without a GPU need not wait for.
    import torch

    return torch.cuda.device_count()
