"""The process engine: what a container gets, how it ends, and what is stopped after a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from local.containers import process
from local.containers.engine import ContainerSpec
from local.containers.environments import Environments, missing_pins
from local.containers.errors import ContainerError, EnvironmentCreationError
from local.containers.image import Image, ImageConfig
from local.containers.process import ProcessEngine, tail
from local.containers.records import ProcessRecords

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., Image]:
    """Makes an image of one program."""

    def make(program: str, **members: object) -> Image:
        files = tmp_path / "image"
        (files / "opt/program").mkdir(parents=True)
        (files / "opt/program/program.py").write_text(textwrap.dedent(program))
        settings: dict[str, Any] = {
            "base": "python",
            "workdir": "/opt/program",
            "entrypoint": ("python", "-u", "-m", "program"),
            **members,
        }
        return Image(digest="sha256:0", config=ImageConfig(**settings), files=files)

    return make


def spec(image: Image, tmp_path: Path, **members: object) -> ContainerSpec:
    settings: dict[str, Any] = {
        "name": "test",
        "image": image,
        "base": tmp_path / "job/ml",
        "output": tmp_path / "output.log",
    }
    return ContainerSpec(**{**settings, **members})


def test_a_container_sees_its_image_and_nothing_of_the_cloud(
    image: Callable[..., Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the cloud")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    made = image(
        """
        import json, os, sys
        seen = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "path": sys.path}
        print(json.dumps(seen))
        """,
        environment={"CONFIG": "/opt/program/program.py", "URL": "https://host/opt/program"},
    )
    container = ProcessEngine(tmp_path / "root").start(
        spec(
            made,
            tmp_path,
            arguments=("serve", "/opt/ml/model", "/tmp"),
            environment={"DATA": "/opt/ml/input", "AWS_REGION": "us-east-1"},
            port=1234,
        )
    )
    assert container.wait(20) == 0
    seen = json.loads(tail(tmp_path / "output.log").splitlines()[-1])
    base, program = tmp_path / "job/ml", made.files / "opt/program"
    assert seen["argv"] == ["serve", f"{base}/model", "/tmp"]
    assert seen["cwd"] == str(program)
    environment = seen["env"]
    assert environment["SAGEMAKER_BASE_DIR"] == str(base)
    assert environment["SAGEMAKER_BIND_TO_PORT"] == "1234"
    assert environment["PYTHONPATH"] == str(program)
    assert environment["CONFIG"] == str(program / "program.py")
    assert environment["URL"] == "https://host/opt/program"
    assert environment["DATA"] == f"{base}/input"
    assert "AWS_SECRET_ACCESS_KEY" not in environment
    assert str(REPOSITORY) not in seen["path"]
    assert not list((tmp_path / "root/containers").glob("*.json"))


def test_stop_is_sigterm_then_sigkill_to_the_whole_group(image: Callable[..., Image], tmp_path: Path) -> None:
    made = image(
        """
        import signal, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
        print("child", child.pid, flush=True)
        while True:
            time.sleep(0.1)
        """
    )
    container = ProcessEngine(tmp_path / "root").start(spec(made, tmp_path, arguments=()))
    while "child" not in (text := tail(tmp_path / "output.log")):
        time.sleep(0.05)
    child = psutil.Process(int(text.split()[-1]))
    assert container.stop(grace=0.5) == -signal.SIGKILL
    assert "asked to stop" in tail(tmp_path / "output.log")
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_leftovers_of_a_killed_engine_are_stopped_and_strangers_are_not(
    image: Callable[..., Image], tmp_path: Path
) -> None:
    engine = ProcessEngine(tmp_path / "root")
    container = engine.start(spec(image("import time; time.sleep(60)"), tmp_path, arguments=()))
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        record = tmp_path / "root/containers" / f"{stranger.pid}.json"
        record.write_text(json.dumps({"pid": stranger.pid, "started": 1.0, "name": "an older process"}))
        assert ProcessEngine(tmp_path / "root").stop_leftovers() == ["test"]
        assert container.wait(5) is not None
        assert stranger.poll() is None
        assert not list((tmp_path / "root/containers").glob("*.json"))
        assert ProcessRecords(tmp_path / "root").stop_leftovers() == []
    finally:
        stranger.kill()
        stranger.wait()


def test_what_an_ended_entry_point_left_in_its_group_is_a_leftover(tmp_path: Path) -> None:
    script = "sleep 60 & echo $!; read _"
    leader = subprocess.Popen(
        ["sh", "-c", script],
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert leader.stdin is not None
    assert leader.stdout is not None
    child = psutil.Process(int(leader.stdout.readline()))
    records = ProcessRecords(tmp_path)
    records.write(leader.pid, "training-job/t")
    leader.stdin.close()  # the end of its input ends it
    leader.wait()
    assert child.is_running()
    assert records.stop_leftovers() == ["training-job/t"]
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_container_that_ended_is_not_signalled_again(
    image: Callable[..., Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = ProcessEngine(tmp_path / "root").start(
        spec(image("raise SystemExit(3)"), tmp_path, arguments=())
    )
    assert container.wait(20) == 3

    def signalled(*_: Any) -> bool:
        raise AssertionError("its id may be another process's by now")

    monkeypatch.setattr(process, "signal_group", signalled)
    assert container.stop(grace=0.1) == 3


def test_an_image_without_entry_point_cannot_be_started(image: Callable[..., Image], tmp_path: Path) -> None:
    with pytest.raises(ContainerError, match="has no ENTRYPOINT"):
        ProcessEngine(tmp_path / "root").start(spec(image("", entrypoint=()), tmp_path, arguments=("serve",)))


def test_a_program_that_is_not_there_cannot_be_started(image: Callable[..., Image], tmp_path: Path) -> None:
    made = image("", entrypoint=("no-such-program",))
    with pytest.raises(ContainerError, match="cannot start 'no-such-program'"):
        ProcessEngine(tmp_path / "root").start(spec(made, tmp_path, arguments=("serve",)))


def test_an_environment_fits_only_if_every_pin_is_installed() -> None:
    environment = Path(sys.prefix)
    assert missing_pins(environment, ["boto3==1.43.106", 'nothing==1; python_version < "3"']) == []
    assert missing_pins(environment, ["boto3==1.0.0", "no_such_package==1"]) == [
        "boto3 is 1.43.106, wanted ==1.0.0",
        "no_such_package is missing",
    ]


def test_an_environment_is_made_once_and_pip_failures_are_told(
    image: Callable[..., Image], tmp_path: Path
) -> None:
    environments = Environments(tmp_path / "root", candidates=())
    said: list[str] = []
    made = image("")
    first = environments.for_image(made, said.append)
    assert any("making an environment" in line for line in said)
    assert subprocess.run([first.python, "-c", ""], env={"PATH": os.defpath}).returncode == 0
    said.clear()
    assert environments.for_image(made, said.append) == first
    assert said == []
    missing = Image(
        digest="sha256:1",
        config=ImageConfig(base="python", requirements=("--no-index", "no-such-package==1.0")),
        files=made.files,
    )
    with pytest.raises(EnvironmentCreationError, match="no-such-package"):
        environments.for_image(missing, said.append)


def test_ecr_says_which_image_is_missing(cloud: Any) -> None:
    ecr = cloud.client("ecr")
    ecr.create_repository(repositoryName="empty")
    assert ecr.describe_images(repositoryName="empty")["imageDetails"] == []
    with pytest.raises(ecr.exceptions.ImageNotFoundException, match="does not exist within the repository"):
        ecr.describe_images(repositoryName="empty", imageIds=[{"imageTag": "v1"}])


def test_the_tail_of_an_output_is_whole_lines(tmp_path: Path) -> None:
    output = tmp_path / "output.log"
    assert tail(output) == ""
    output.write_text("first\n\nsecond line\nthird\n")
    assert tail(output, lines=2) == "second line\nthird"
    assert tail(output, characters=10) == "third"
    output.write_text("x" * 100 + "the reason\n")
    assert tail(output, characters=10) == "the reason"
