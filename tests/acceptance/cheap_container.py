"""A container that keeps the contract of the training image and ends at once."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from workbench.environment import REPOSITORY
from workbench.provision import program_environment
from workbench.session import Session

_DOCKERFILE = """\
FROM python:3.11-slim
WORKDIR /opt/program
COPY program.py ./
ENTRYPOINT ["python", "-u", "-m", "program"]
"""

_PROGRAM = """
import json, os, pathlib, sys, tarfile, time
base = pathlib.Path(os.environ["SAGEMAKER_BASE_DIR"])
if sys.argv[1] == "train":
    parameters = json.loads((base / "input/config/hyperparameters.json").read_text())
    if parameters["max_steps"] == "999":
        time.sleep(60)
    (base / "model/weights.json").write_text(json.dumps({"slow": parameters["max_steps"] == "998"}))
elif sys.argv[1] == "evaluate":
    with tarfile.open(base / "processing/input/model/model.tar.gz") as archive:
        if json.loads(archive.extractfile("weights.json").read())["slow"]:
            time.sleep(60)
    out = base / "processing/output/evaluation/evaluation.json"
    gate = {"heldOut": 1, "improvement": 0.0}
    out.write_text(json.dumps({"metrics": {"mean_dice": 1.0}, "gate": gate}))
else:
    sys.exit(f"unknown {sys.argv}")
"""


def cheap_image(session: Session, *, repository: str) -> str:
    """Build the container and push it; its URI."""
    docker = REPOSITORY / "local" / "containers" / "docker"
    uri = f"{repository}:roles"
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        (context / "Dockerfile").write_text(_DOCKERFILE)
        (context / "program.py").write_text(_PROGRAM)
        for command in (
            ["build", "--tag", "monai-on-aws/roles", "."],
            ["tag", "monai-on-aws/roles", uri],
            ["push", uri],
        ):
            environment = program_environment(session.environment, base=dict(os.environ))
            done = subprocess.run(
                [docker, *command], cwd=context, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    return uri
