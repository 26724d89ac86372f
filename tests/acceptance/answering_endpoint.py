"""A model package whose server answers at once, in the promised form and with the request that it was sent;
what is no image set it refuses, as the runtime does.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

from workbench.deployment import Deployment
from workbench.environment import REPOSITORY
from workbench.provision import program_environment

_DOCKERFILE = """\
FROM python:3.11-slim
WORKDIR /opt/program
COPY program.py ./
ENTRYPOINT ["python", "-u", "-m", "program"]
"""

_PROGRAM = """
import http.server, json, os, signal

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if set(asked["imageSetId"]) == {"0"}:
            error = {"type": "ImageSetNotFoundError", "message": "there is none"}
            self.answer(json.dumps({"error": error}).encode(), status=404)
            return
        stored = {"seriesInstanceUid": "1.2.3", "sopInstanceUid": "1.2.3.4", "imageSetId": "5" * 32,
                  "isPrimary": True, "s3Uri": None}
        result = {"imageSetId": asked["imageSetId"], "versionId": asked["versionId"], "segmentation": stored,
                  "segments": [{"label": "lung", "volumeMl": 2.5}], "classes": [], "reports": [],
                  "model": {"name": "answering", "version": "1", "sha256": "ab"}, "seconds": {}}
        self.answer(json.dumps({"asked": asked, "results": [result]}).encode())

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
port = int(os.environ["SAGEMAKER_BIND_TO_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def register(deployment: Deployment) -> str:
    """Register the package in the group of the task that is served; its ARN. It waits for approval."""
    client = deployment.session.client
    task = deployment.task("lung-segmentation")
    sagemaker = client("sagemaker")
    definition = sagemaker.describe_pipeline(PipelineName=task.pipeline)["PipelineDefinition"]
    # The repository of the platform's own images: the endpoint's role may pull from no other.
    registry = f"{deployment.session.environment.account}.dkr.ecr"
    repository = registry + definition.partition(registry)[2].partition(":")[0]
    bucket, key = deployment.stack("data")["ModelBucketName"], "training/answering/output/model.tar.gz"
    client("s3").put_object(Bucket=bucket, Key=key, Body=_empty_archive())
    answer = sagemaker.create_model_package(
        ModelPackageGroupName=task.model_package_group,
        ModelApprovalStatus="PendingManualApproval",
        InferenceSpecification={
            "Containers": [
                {"Image": _image(deployment, repository=repository), "ModelDataUrl": f"s3://{bucket}/{key}"}
            ],
            "SupportedContentTypes": ["application/json"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )
    return str(answer["ModelPackageArn"])


def _image(deployment: Deployment, *, repository: str) -> str:
    uri = f"{repository}:answering"
    docker = REPOSITORY / "local" / "containers" / "docker"
    environment = program_environment(deployment.session.environment, base=dict(os.environ))
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        (context / "Dockerfile").write_text(_DOCKERFILE)
        (context / "program.py").write_text(_PROGRAM)
        for command in (
            ["build", "--tag", "monai-on-aws/answering", "."],
            ["tag", "monai-on-aws/answering", uri],
            ["push", uri],
        ):
            done = subprocess.run(
                [docker, *command], cwd=context, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
    return uri


def _empty_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz"):
        pass
    return buffer.getvalue()
