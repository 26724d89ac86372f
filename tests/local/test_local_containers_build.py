"""Dockerfiles without a container engine: what is built, and what is refused rather than skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.containers.build import build
from local.containers.errors import BuildError, ContainerError, ImageNotFoundError
from local.containers.image import Image, ImageConfig
from local.containers.registry import push
from local.containers.store import ImageStore

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "local" / "containers" / "docker"

DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG PYTHON=3.11
FROM public.ecr.aws/docker/library/python:${PYTHON}-slim
ARG VERSION=dev
LABEL org.opencontainers.image.version=$VERSION \\
      com.example.kind="model server"
ENV PROGRAM=/opt/program PYTHONUNBUFFERED=1
WORKDIR $PROGRAM
COPY --link service/requirements.txt ./requirements.txt
RUN --mount=type=cache,target=/root/.cache/pip \\
    pip install --no-cache-dir -r requirements.txt
COPY healthimaging/ healthimaging/
COPY service ./service/
EXPOSE 8080
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    for name, text in {
        "Dockerfile": DOCKERFILE,
        ".dockerignore": "*\n!healthimaging\n!service\n**/__pycache__\nservice/*.md\n",
        "secret.txt": "no",
        "healthimaging/__init__.py": "",
        "healthimaging/deep/codec.py": "x = 1\n",
        "healthimaging/__pycache__/a.pyc": "no",
        "service/__main__.py": "print('hello')\n",
        "service/README.md": "no",
        "service/requirements.txt": "-r more.txt\nboto3==1.43.106 \\\n    --hash=sha256:00\n# a comment\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def make(context: Path, tmp_path: Path, text: str | None = None, **arguments: str) -> Image:
    """Build a context, with another Dockerfile if one is given."""
    if text is not None:
        (context / "Dockerfile").write_text(text)
    return build(
        store=ImageStore(tmp_path / "root"),
        context=context,
        dockerfile=context / "Dockerfile",
        arguments=arguments,
        log=lambda line: None,
    )


def test_an_image_holds_what_its_dockerfile_says(context: Path, tmp_path: Path) -> None:
    text = DOCKERFILE.replace("./requirements.txt", "./requirements.txt\nCOPY service/more.txt ./more.txt")
    (context / "service" / "more.txt").write_text("numpy==2.4.6 ; python_version > '3'\n")
    image = make(context, tmp_path, text, VERSION="7")
    config = image.config
    assert config.base == "public.ecr.aws/docker/library/python:3.11-slim"
    assert config.entrypoint == ("python", "-m", "service")
    assert config.command == ("serve",)
    assert config.workdir == "/opt/program"
    assert config.environment == {"PROGRAM": "/opt/program", "PYTHONUNBUFFERED": "1"}
    assert config.labels == {"org.opencontainers.image.version": "7", "com.example.kind": "model server"}
    assert config.ports == ("8080",)
    assert config.requirements == ('numpy==2.4.6; python_version > "3"', "boto3==1.43.106")
    files = sorted(
        path.relative_to(image.files).as_posix() for path in image.files.rglob("*") if path.is_file()
    )
    assert files == [
        "opt/program/healthimaging/__init__.py",
        "opt/program/healthimaging/deep/codec.py",
        "opt/program/more.txt",
        "opt/program/requirements.txt",
        "opt/program/service/__main__.py",
        "opt/program/service/more.txt",
        "opt/program/service/requirements.txt",
    ]


def test_the_digest_follows_the_content_alone(context: Path, tmp_path: Path) -> None:
    text = 'FROM python:3.11\nWORKDIR /opt\nCOPY service .\nENTRYPOINT ["python", "-m", "service"]\n'
    first = make(context, tmp_path, text)
    os.utime(context / "service" / "__main__.py", (0, 0))
    assert make(context, tmp_path, text).digest == first.digest
    (context / "service" / "__main__.py").write_text("print('bye')\n")
    assert make(context, tmp_path, text).digest != first.digest


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("USER 1000", "line 2: USER is not supported"),
        ("RUN apt-get update", "line 2: RUN may only be one `pip install -r FILE`"),
        ("RUN pip install numpy", "'numpy' is not pinned"),
        ("RUN pip install numpy==1 && rm -rf /", "RUN may only be one"),
        ("RUN pip install -e .", "pip option -e is not supported"),
        ("RUN pip install -r nothing.txt", "nothing.txt is not in the image"),
        ("RUN <<EOF", "here-documents are not supported"),
        ("ENTRYPOINT python -m x", "ENTRYPOINT must be a JSON array"),
        ("COPY nothing .", "nothing is not in the build context"),
        ("COPY ../other .", "outside the build context"),
        ("COPY secret.txt .", "finds no file"),
        ("COPY --chown=1000 service .", "COPY --chown=1000 is not supported"),
        ("COPY --from=build /x /y", "COPY --from=build is not supported"),
        ("FROM other", "a second FROM"),
        ("ENV A", "needs NAME=value"),
    ],
)
def test_what_cannot_be_honoured_is_refused(context: Path, tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        make(context, tmp_path, f"FROM python:3.11\n{lines}\n")


def test_names_point_at_images(context: Path, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "root")
    image = make(context, tmp_path, 'FROM python:3.11\nENTRYPOINT ["python"]\n')
    store.tag(image.digest, "cdkasset-1")
    store.tag("cdkasset-1", "registry:5000/name:v1")
    assert ImageStore(tmp_path / "root").find("registry:5000/name:v1").digest == image.digest
    assert store.find("cdkasset-1:latest").digest == image.digest
    assert store.find(f"anything@{image.digest}").digest == image.digest
    with pytest.raises(ImageNotFoundError, match="nobody"):
        store.find("nobody")


def test_the_docker_front_answers_the_calls_of_the_cdk_cli(context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text('FROM python:3.11\nENTRYPOINT ["python"]\n')

    def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DOCKER, *arguments],
            cwd=context,
            env={**os.environ, "LOCAL_CLOUD_ROOT": str(tmp_path / "root")},
            input="password",
            capture_output=True,
            text=True,
        )

    assert docker("login", "--username", "AWS", "--password-stdin", "https://registry").returncode == 0
    assert docker("inspect", "cdkasset-1").returncode == 1
    built = docker("build", "--build-arg", "A=1", "--tag", "cdkasset-1", "--platform", "linux/amd64", ".")
    assert built.returncode == 0, built.stderr
    assert "FROM python:3.11 is recorded" in built.stderr
    assert docker("tag", "cdkasset-1", "registry/name:v1").returncode == 0
    assert json.loads(docker("inspect", "registry/name:v1").stdout)[0]["Id"] == built.stdout.strip()
    refused = docker("push", "registry/name:v1")
    assert refused.returncode == 1
    assert "is not an Amazon ECR image" in refused.stderr
    (context / "Dockerfile").write_text("FROM x\nUSER me\n")
    refused = docker("build", "--tag", "x", ".")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith(
        "docker front: Dockerfile line 2: USER is not supported"
    )
    assert docker("run", "x").returncode == 2


def test_the_program_runs_where_the_modules_of_its_build_context_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the context was imported')\n")
    done = subprocess.run([DOCKER, "images"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sys.version_info >= (3, 11)


def test_a_digest_that_is_a_path_names_no_image(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "root")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text('{"base": "python"}')
    (tmp_path / "root/images/sha256-").mkdir(parents=True)
    with pytest.raises(ImageNotFoundError):
        store.find("sha256:/../../../outside")


def test_an_image_without_layers_is_pushed_to_the_local_cloud_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_ECR"):
        monkeypatch.delenv(name, raising=False)
    image = Image(digest=f"sha256:{'0' * 64}", config=ImageConfig(base="python"), files=tmp_path)
    with pytest.raises(ContainerError, match=r"cannot go to api\.ecr\.us-east-1\.amazonaws\.com"):
        push(image=image, name="000000000000.dkr.ecr.us-east-1.amazonaws.com/app:v1")
