"""`python -m training train` and `python -m training evaluate`: the image's two jobs.

Exit code 0: done, or stopped by SIGTERM with everything saved. 1: failed, and the failure file says why.
2: called in a way that SageMaker does not.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from training.errors import TrainingError
from training.job.cluster import launched_already
from training.job.contract import EvaluationJob, TrainingJob, base_directory
from training.job.failure import describe_failure, write_failure
from training.job.gpu import adopt_compatibility, require_usable_gpu
from training.job.launch import RANK_PROGRAM, die_with_parent, launch
from training.stopping import STOP_FILE, StoppedError, StopRequest

if TYPE_CHECKING:
    from training.data.cases import CaseReader
    from training.loop.train import OpenReader

_LOG = logging.getLogger("training")

USAGE = "usage: python -m training train|evaluate"

FAILURE_FILES = {"train": "failure", "evaluate": "message"}
"""Below `output/`: where training jobs and processing jobs look for a failure text."""


def main(
    arguments: Sequence[str],
    *,
    open_reader: OpenReader | None = None,
    program: Sequence[str] = RANK_PROGRAM,
) -> int:
    """Runs one job.

    Args:
        arguments: `["train"]` or `["evaluate"]`.
        open_reader: Where cases come from; the HealthImaging data store of the environment when None.
        program: What Python runs for each of several ranks.

    Returns:
        The exit code.
    """
    if len(arguments) != 1 or arguments[0] not in FAILURE_FILES:
        print(USAGE, file=sys.stderr)
        return 2
    # Before the libraries are imported, which takes seconds: a job may be stopped in them.
    stop = StopRequest.of_process()
    if STOP_FILE in os.environ:
        # One of the ranks that `launch` started: torchrun does not see to it that they end with it.
        die_with_parent()
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
    # Both describe every epoch and run at level INFO.
    logging.getLogger("ignite").setLevel(logging.WARNING)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    command = arguments[0]
    try:
        _run(command, open_reader=open_reader or _datastore, stop=stop, program=program)
    except StoppedError:
        _LOG.info("stopped on request")
        return 0
    except Exception as error:  # noqa: BLE001 - the edge of the process: whatever went wrong is the job's failure
        text = describe_failure(error)
        # What we raise on purpose is told by its text; of anything else the log keeps where it came from.
        _LOG.error("%s failed: %s", command, text, exc_info=not isinstance(error, TrainingError))
        write_failure(text, file=base_directory() / "output" / FAILURE_FILES[command])
        return 1
    return 0


def _run(command: str, *, open_reader: OpenReader, stop: StopRequest, program: Sequence[str]) -> None:
    from healthimaging.region import adopt_region

    adopt_region(os.environ)
    if command == "train":
        training_job = TrainingJob.from_environment()
        if training_job.cluster.world_size > 1 and not launched_already():
            launch(training_job.cluster, job_name=training_job.name, stop=stop, program=program)
            stop.check()
            return
        require_usable_gpu()
        from training.loop.train import train

        train(training_job, open_reader=open_reader, stop=stop)
    else:
        evaluation_job = EvaluationJob.from_environment()
        require_usable_gpu()
        from training.evaluation.evaluate import evaluate

        evaluate(evaluation_job, open_reader=open_reader, stop=stop)


def _datastore(channels: Mapping[str, int]) -> CaseReader:
    from training.data.cases import DatastoreReader

    return DatastoreReader.connected(channels)


if __name__ == "__main__":
    adopt_compatibility(sys.argv[1:])
    sys.exit(main(sys.argv[1:]))
