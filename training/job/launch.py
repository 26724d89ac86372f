"""Starts the ranks of a host with torchrun, and stays with them.

SageMaker signals the first process of a container only; a machine without containers signals all of a group.
Neither may reach torchrun's agent, which would give the ranks half a minute and then kill them. So the agent
has a session of its own and is never signalled: a wish to stop is a file that every rank looks for after each
step (`training.stopping`). Should this process be killed, the kernel kills the agent, and then the ranks.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from training.errors import RankError
from training.job.cluster import Cluster
from training.stopping import STOP_FILE, StopRequest

_LOOK_EVERY_SECONDS = 0.1

_GRACE_SECONDS = 10
"""How long the other ranks may take to end when one has failed; they may hang in waiting for it."""

_PR_SET_PDEATHSIG = 1

RANK_PROGRAM = ("-m", "training")
"""What Python runs for each rank; it finds by torchrun's variables that it is one."""


def launch(
    cluster: Cluster, *, job_name: str, stop: StopRequest, program: Sequence[str] = RANK_PROGRAM
) -> None:
    """Runs this host's ranks until they have all ended.

    Args:
        cluster: Hosts and ranks.
        job_name: The job's, by which hosts agree on a port.
        stop: Passed on to the ranks, which then save their state and end.
        program: Arguments of Python that run one rank.

    Raises:
        RankError: A rank failed. One that could has written why into the failure file.
    """
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        stop_file = Path(folder) / "stop"
        agent = subprocess.Popen(
            [*_torchrun(cluster, job_name=job_name), *program, "train"],
            env=_environment(cluster, stop_file=stop_file),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        try:
            while (code := agent.poll()) is None:
                if stop.requested and not stop_file.exists():
                    stop_file.touch()
                time.sleep(_LOOK_EVERY_SECONDS)
        finally:
            if agent.poll() is None:
                agent.kill()
                agent.wait()
    if code != 0:
        msg = (
            f"The ranks of {cluster.current_host} ended with exit code {code} before the training was done. "
            "If the log does not say why, the machine may have run out of memory: take fewer workers, a "
            "smaller batch_size, or a larger instance type"
        )
        raise RankError(msg)


def die_with_parent() -> None:
    """Has the kernel kill this process when the one that started it is gone (Linux, prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _torchrun(cluster: Cluster, *, job_name: str) -> list[str]:
    several = len(cluster.hosts) > 1
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes", str(len(cluster.hosts)), "--node-rank", str(cluster.node_rank)),
        *("--nproc-per-node", str(cluster.processes_per_host), "--max-restarts", "0"),
        *("--master-addr", cluster.hosts[0] if several else "127.0.0.1"),
        *("--master-port", str(cluster.master_port(job_name) if several else _free_port())),
        *("--local-addr", cluster.current_host if several else "127.0.0.1"),
        *("--shutdown-timeout", str(_GRACE_SECONDS)),
    ]


def _environment(cluster: Cluster, *, stop_file: Path) -> dict[str, str]:
    environment = {**os.environ, STOP_FILE: str(stop_file)}
    cores = os.cpu_count() or 1
    # torchrun would take one thread each, however many cores there are.
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // cluster.processes_per_host)))
    interface = cluster.network_interface or "lo"
    environment.setdefault("GLOO_SOCKET_IFNAME", interface)
    if cluster.network_interface:
        environment.setdefault("NCCL_SOCKET_IFNAME", interface)
    return environment


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
