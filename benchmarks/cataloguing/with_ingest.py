"""Brings files in as `monai-aws ingest` does.

`python -m benchmarks.cataloguing.with_ingest FOLDER JOURNAL (as-is | deidentify | plan)`, with the endpoint
in AWS_ENDPOINT_URL; prints what happened as JSON. `plan` is `--dry-run`: it reads every file, and changes
nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from benchmarks.cataloguing.peak_memory import peak_bytes
from benchmarks.cataloguing.platform import deployment_at
from benchmarks.cataloguing.with_plain_import import EVERY_SECONDS
from workbench.ingest import Options, ingest
from workbench.ingesting.dry_run import plan
from workbench.ingesting.watching import Lines
from workbench.progress import silent


def main() -> None:
    """Do it once."""
    folder, journal, how = sys.argv[1:]
    deployment = deployment_at(os.environ["AWS_ENDPOINT_URL"])
    options = Options(journal=Path(journal), deidentify=how == "deidentify", every_seconds=EVERY_SECONDS)
    before = peak_bytes()
    begin = time.perf_counter()
    if how == "plan":
        planned = plan(deployment, [folder], options=options, watcher=Lines(silent))
        ok, files = planned.ok, planned.to_import
    else:
        report = ingest(deployment, [folder], options=options)
        ok, files = report.ok, len(report.imported)
    print(
        json.dumps(
            {
                "ok": ok,
                "files": files,
                "seconds": time.perf_counter() - begin,
                "peak_bytes": peak_bytes(),
                "peak_before_bytes": before,
            }
        )
    )


if __name__ == "__main__":
    main()
