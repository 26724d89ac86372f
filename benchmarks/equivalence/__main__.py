"""`python -m benchmarks.equivalence ZOO`: every bundle of a model zoo checkout, by this runtime and by MONAI.

Both get random weights and the same volume: this runtime as an image set of a local datastore, MONAI's own
command (`python -m monai.bundle run`) as a NIfTI file. Writes `docs/bundles.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.equivalence.phantom import GRIDS, series
from benchmarks.equivalence.table import Row, write_table
from benchmarks.local_cloud import REPOSITORY, aws_environment, local_cloud
from benchmarks.reading.archive import Archive

MODELS_PYTHON = REPOSITORY / ".venv-models" / "bin" / "python"
PAGE = REPOSITORY / "docs" / "bundles.md"
WORK = REPOSITORY / "build" / "bundles"
OUTCOMES = WORK / "outcomes.json"


def main(arguments: list[str] | None = None) -> int:
    """Compare all bundles; the exit code is 1 when one gives another mask than MONAI."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equivalence", description=__doc__)
    parser.add_argument("zoo", type=Path, help="folder of bundles, for example model-zoo/models")
    parser.add_argument("--only", help="a part of the names of bundles; the others' last outcomes are kept")
    parser.add_argument("--time-limit", type=float, default=1800.0, help="seconds a bundle (%(default)s)")
    parser.add_argument("--reference-path", default="", help="packages that only MONAI's run needs")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folders = [
        folder
        for folder in sorted(options.zoo.iterdir())
        if (folder / "configs" / "metadata.json").is_file() and (options.only or "") in folder.name
    ]
    WORK.mkdir(parents=True, exist_ok=True)
    outcomes = _known()
    with local_cloud(WORK) as cloud:
        archive = Archive.create(cloud)
        places = {
            modality: [archive.datastore_id, archive.import_series(series(modality))] for modality in GRIDS
        }
        environment = aws_environment(cloud.endpoint_url) | {
            "REFERENCE_PYTHONPATH": options.reference_path,
            "PYTHONPATH": str(REPOSITORY),
            "HOLOSCAN_LOG_LEVEL": "OFF",
        }
        for folder in folders:
            start = time.monotonic()
            outcome = _compare(folder, places, environment, options.time_limit)
            seconds = time.monotonic() - start
            print(
                f"{folder.name}: {outcome['verdict']} {outcome.get('detail', '')} ({seconds:.0f} s)",
                flush=True,
            )
            # Read again: another run of other bundles may have ended meanwhile.
            outcomes = _known() | {folder.name: outcome}
            OUTCOMES.write_text(json.dumps(outcomes, indent=2, sort_keys=True))
    known = [options.zoo / name for name in sorted(outcomes) if (options.zoo / name).is_dir()]
    write_table(PAGE, [_row(folder, outcomes[folder.name]) for folder in known])
    print(f"written to {PAGE}")
    return int(any(outcomes[folder.name]["verdict"] in ("different", "failed") for folder in folders))


def _known() -> dict[str, Any]:
    """The last outcome of every bundle that was ever compared."""
    known: dict[str, Any] = json.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else {}
    return known


def _compare(
    folder: Path, places: Mapping[str, list[str]], environment: Mapping[str, str], limit: float
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=WORK, prefix=f"{folder.name}-") as work:
        worker = subprocess.Popen(
            [
                *(str(MODELS_PYTHON), "-m", "benchmarks.equivalence.worker", str(folder), work),
                *("--image-sets", json.dumps(places)),
            ],
            cwd=REPOSITORY,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            said, complaint = worker.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return {"verdict": "not comparable", "detail": f"time limit of {limit:.0f} s on this CPU"}
        finally:
            if worker.poll() is None:
                # With it MONAI's own run, which it may have started.
                os.killpg(worker.pid, signal.SIGKILL)
                worker.communicate()
    lines = [line for line in said.splitlines() if line.startswith("{")]
    if worker.returncode != 0 or not lines:
        last = (complaint.strip().splitlines() or ["no word"])[-1]
        return {"verdict": "failed", "detail": last[:200]}
    outcome: dict[str, Any] = json.loads(lines[-1])
    return outcome


def _row(folder: Path, outcome: Mapping[str, Any]) -> Row:
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return Row(
        folder=folder.name,
        version=str(metadata.get("version", "")),
        task=str(outcome.get("task", "")),
        modality=str(outcome.get("modality", "")),
        network=str(outcome.get("network", "")),
        verdict=str(outcome["verdict"]),
        detail=str(outcome.get("detail", "")),
        labels=outcome.get("labels"),
        segments=outcome.get("segments"),
    )


if __name__ == "__main__":
    sys.exit(main())
