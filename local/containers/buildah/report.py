"""What is in a built image: its size, and its Python packages as a bill of materials (CycloneDX 1.6).

The bill lists what is installed in the image, not what a lock file says. The system packages of the base
image are not in it: they are the base's, and its registry scans them.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local.containers.buildah import stand_in, tool
from local.containers.errors import ContainerError, ImageNotFoundError

JsonObject = dict[str, Any]

_SEARCH_PATH = "import json, sys; print(json.dumps([path for path in sys.path if path]))"


def write(images: Sequence[str], *, summary: Path, bills: Path) -> list[str]:
    """Write `summary` and one bill per image (`image-NAME.json` in `bills`); a table for the screen.

    `summary` is `{"images": [{"name", "id", "base", "baseIsStandIn", "bytes", "packages", "sbom"}]}`.

    Raises:
        ImageNotFoundError: an image was not built.
        ContainerError: the image has no Python, or cyclonedx-py refused it.
    """
    bills.mkdir(parents=True, exist_ok=True)
    rows = [_row(name, bills / f"image-{name.rsplit('/', 1)[-1]}.json") for name in images]
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(json.dumps({"images": rows}, indent=1) + "\n")
    lines = [f"{'image':<24}{'MB':>8}{'packages':>10}  base"]
    for row in rows:
        base = "a stand-in" if row["baseIsStandIn"] else "as pulled"
        lines.append(f"{row['name']:<24}{row['bytes'] / 1e6:>8.0f}{row['packages']:>10}  {base}")
    return lines


def _row(name: str, bill: Path) -> JsonObject:
    found = tool.image(name)
    if found is None:
        raise ImageNotFoundError(name)
    with tool.container(name) as identity:
        path = json.loads(
            tool.call("run", *tool.ISOLATION, identity, "--", "python", "-P", "-c", _SEARCH_PATH)
        )
        with tool.root_folder(identity) as root:
            size = size_of(root)
            write_bill([f"{root}{folder}" for folder in path], bill)
    components = json.loads(bill.read_text())["components"]
    return {
        "name": name,
        "id": found["id"],
        "baseIsStandIn": stand_in.LABEL in (found["config"].get("Labels") or {}),
        "bytes": size,
        "packages": len(components),
        "sbom": str(bill),
    }


def size_of(root: Path) -> int:
    """Bytes of all files below a folder; a file with two names counts once."""
    seen: set[int] = set()
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_size
    return total


def write_bill(path: Sequence[str], bill: Path) -> None:
    """Let cyclonedx-py describe the packages on a search path.

    It asks an interpreter for its search path and reads the packages there itself. The image's interpreter
    would answer with the image's folders, so it is asked beforehand and something that gives this answer is
    asked now.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "python")
        answer.write_text(f"#!/bin/sh\nprintf %s {shlex.quote(json.dumps(list(path)))}\n")
        answer.chmod(0o755)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "cyclonedx_py",
                "environment",
                "--output-reproducible",
                "--output-file",
                str(bill),
                str(answer),
            ],
            check=False,
            capture_output=True,
            text=True,
        )
    if done.returncode != 0:
        raise ContainerError(f"cyclonedx-py ended with {done.returncode}: {done.stderr.strip()[-500:]}")
