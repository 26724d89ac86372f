"""The toolkit of SageMaker Studio: what is in it, and that the start script installs it without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from infra_assembly import Assembly

from infra.repository import ROOT

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def studio_archive(synthesize: Callable[[str], Assembly]) -> zipfile.ZipFile:
    """What a deployment puts into the asset bucket."""
    (path,) = synthesize("dev").folder.glob("asset.*.zip")
    return zipfile.ZipFile(path)


def test_the_archive_holds_what_a_person_needs(studio_archive: zipfile.ZipFile) -> None:
    names = {name for name in studio_archive.namelist() if not name.startswith("wheels/")}
    assert {
        "requirements.txt",
        "source/workbench/main.py",
        "source/healthimaging/py.typed",
        "source/infra/environments/dev.toml",
        "source/notebooks/find-a-study.ipynb",
    } <= names
    assert {Path(name).parts[1] for name in names - {"requirements.txt"}} == {
        "workbench", "arrival", "healthimaging", "infra", "notebooks",
    }  # fmt: skip
    assert not [name for name in names if "demo" in name or name.endswith(".pyc")]
    assert {Path(name).suffix for name in names if "/infra/" in name} == {".toml"}
    notebook = json.loads(studio_archive.read("source/notebooks/find-a-study.ipynb"))
    assert notebook["metadata"]["kernelspec"]["name"] == "monai-aws"


def test_there_is_a_wheel_for_each_pin_that_runs_in_studio(studio_archive: zipfile.ZipFile) -> None:
    wheels = [Path(name).stem for name in studio_archive.namelist() if name.startswith("wheels/")]
    pins = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", studio_archive.read("requirements.txt").decode(), re.M)
    found = {tuple(wheel.split("-")[:2]) for wheel in wheels}
    assert {(re.sub(r"[-.]+", "_", name).lower(), version) for name, version in found} == {
        (re.sub(r"[-.]+", "_", name).lower(), version) for name, version in pins
    }
    for wheel in wheels:
        python, abi, platform = wheel.rsplit("-", 3)[1:]
        assert "py3" in python or python == "cp312" or abi == "abi3", wheel
        glibc = [int(one) for one in re.findall(r"manylinux_2_(\d+)_x86_64", platform)]
        assert platform == "any" or "manylinux2014_x86_64" in platform or min(glibc) <= 28, wheel


def test_versions_are_those_that_the_tests_run(studio_archive: zipfile.ZipFile) -> None:
    def pins(text: str) -> dict[str, str]:
        return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.M))

    tested = pins((ROOT / "requirements.txt").read_text())
    packed = pins(studio_archive.read("requirements.txt").decode())
    # Whatever both have is the same; only the kernel's own packages are not in the platform environment.
    assert {name: tested[name] for name in packed if name in tested} == {
        name: version for name, version in packed.items() if name in tested
    }
    assert {"boto3", "highdicom", "imagecodecs", "numpy", "pydicom", "typer"} <= set(packed) & set(tested)


def test_the_archive_is_small_enough_to_install_in_time(studio_archive: zipfile.ZipFile) -> None:
    # 90 MB today, half of them numpy, imagecodecs and botocore; a new space of a notebook server has 20 GiB.
    assert sum(entry.file_size for entry in studio_archive.infolist()) < 130e6


def test_the_hash_is_of_what_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.assets import toolkit

    files = {
        "workbench/requirements.txt": "boto3==1\n",
        "workbench/main.py": "A = 1\n",
        "healthimaging/__init__.py": "",
        "infra/environments/dev.toml": 'name = "dev"\n',
        "notebooks/one.ipynb": '{"metadata": {}, "nbformat": 1}',
    }
    for root in ("one", "two"):
        for name, text in files.items():
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / root / name).write_text(text)

    def digest(root: str) -> str:
        monkeypatch.setattr(toolkit, "ROOT", tmp_path / root)
        return toolkit.Toolkit().digest()

    before = digest("one")
    for unpacked in ("workbench/demo/job.py", "workbench/__pycache__/main.pyc", "infra/platform.py"):
        (tmp_path / "two" / unpacked).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "two" / unpacked).write_text("B = 2\n")
    assert digest("two") == before
    for name, text in files.items():
        (tmp_path / "two" / name).write_text(text.replace("1", "2") + "\n")
        assert digest("two") != before, name
        (tmp_path / "two" / name).write_text(text)
    assert digest("two") == before


def test_the_same_sources_give_the_same_archive(archive_here: Path, tmp_path: Path) -> None:
    from infra.assets.toolkit import Toolkit

    Toolkit(python=HERE).write(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive_here.read_bytes()


@pytest.fixture(scope="module")
def archive_here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toolkit for the Python of these tests: another one than Studio's, the same pins."""
    from infra.assets.toolkit import Toolkit

    path = tmp_path_factory.mktemp("bucket") / "key.zip"
    Toolkit(python=HERE).write(path)
    return path


@dataclass(frozen=True, kw_only=True)
class Space:
    """A space of Studio, as far as the start script sees one."""

    home: Path
    bucket: Path

    def start(self, *, version: str = "v1", python: str = HERE) -> subprocess.CompletedProcess[str]:
        from infra.studio.lifecycle import start_script

        programs = self.home.parent / "programs"
        programs.mkdir(exist_ok=True)
        # The AWS command line: the object comes from a folder, and each download is counted.
        self._program(
            programs / "aws",
            '[ "$1 $2" = "s3 cp" ] && [ "$5 $6 $7" = "--region us-east-1 --only-show-errors" ]\n'
            f'cp "{self.bucket}/${{3##*/}}" "$4"\necho "$3" >> "{self.downloads}"',
        )
        self._program(programs / "python3", f'exec "{sys.executable}" "$@"')
        script = start_script(
            {
                "BUCKET": "assets",
                "KEY": "key.zip",
                "REGION": "us-east-1",
                "ENVIRONMENT": "dev",
                "VERSION": version,
                "PYTHON": python,
                "KERNEL": "monai-aws",
            }
        )
        return self.run(["bash", "-c", script], path=f"{programs}:{os.environ['PATH']}")

    @property
    def downloads(self) -> Path:
        return self.home.parent / "downloads"

    def run(
        self, command: list[str], *, path: str = "/usr/bin:/bin", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        # No index answers: what pip would not find among the wheels, it does not find at all.
        settings = {"HOME": str(self.home), "PATH": path, "PIP_INDEX_URL": "http://127.0.0.1:9/"} | variables
        return subprocess.run(
            command, env=settings, cwd=self.home, capture_output=True, text=True, check=False, timeout=240
        )

    @staticmethod
    def _program(path: Path, body: str) -> None:
        path.write_text(f"#!/bin/sh\nset -e\n{body}\n")
        path.chmod(0o755)


@pytest.fixture(scope="module")
def space(archive_here: Path, tmp_path_factory: pytest.TempPathFactory) -> Space:
    """A space that was started once."""
    home = tmp_path_factory.mktemp("space") / "home"
    home.mkdir()
    (home / ".bashrc").write_text("# the person's own\n")
    space = Space(home=home, bucket=archive_here.parent)
    done = space.start()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "monai-aws: ready" in done.stdout
    return space


@pytest.mark.parametrize("shell", [["bash", "-lc"], ["bash", "--rcfile", ".bashrc", "-ic"]])
def test_monai_aws_runs_in_a_terminal(space: Space, shell: list[str]) -> None:
    done = space.run([*shell, "monai-aws query --help && echo $MONAI_ENV"])
    assert done.returncode == 0, done.stderr
    assert "Ask the catalog with SQL" in done.stdout
    assert done.stdout.split()[-1] == "dev"


def test_the_environment_of_the_space_is_the_default(space: Space) -> None:
    # The space says dev (above); a name that nothing has shows that the command listens to it.
    command = "MONAI_ENV=nowhere monai-aws query 'SELECT 1' --json"
    done = space.run(["bash", "-lc", command])
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert "'nowhere'" in error["message"]
    assert "dev, local, prod, staging" in error["advice"]


def test_a_notebook_runs_in_the_toolkit_alone(space: Space) -> None:
    kernel = json.loads((space.home / ".local/share/jupyter/kernels/monai-aws/kernel.json").read_text())
    assert kernel["env"]["MONAI_ENV"] == "dev"
    program = (
        "import sys, ipykernel_launcher, IPython, PIL, highdicom, imagecodecs\n"
        "import healthimaging, healthimaging.segmentation, workbench.main\n"
        "from workbench.environment import load_environment\n"
        "assert load_environment('dev').region == 'us-east-1'\n"
        "modules = [m.__file__ for m in (healthimaging, workbench.main, imagecodecs, IPython, highdicom)]\n"
        "print('\\n'.join(modules))"
    )
    done = space.run([kernel["argv"][0], "-c", program])
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(f"{space.home}/.monai-aws/versions/v1/") for line in done.stdout.split())


def test_the_kernel_starts_and_computes(space: Space, tmp_path: Path) -> None:
    kernel = json.loads((space.home / ".local/share/jupyter/kernels/monai-aws/kernel.json").read_text())
    # A client in the toolkit's own environment: it brings jupyter_client as a part of the kernel.
    program = (
        "from jupyter_client.manager import start_new_kernel\n"
        "manager, client = start_new_kernel(kernel_name='monai-aws')\n"
        "cell = 'import workbench.query, os; print(os.environ[\"MONAI_ENV\"])'\n"
        "answer = client.execute_interactive(cell)\n"
        "manager.shutdown_kernel(now=True)\n"
        "assert answer['content']['status'] == 'ok', answer"
    )
    done = space.run([kernel["argv"][0], "-c", program])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "dev"


def test_notebooks_are_in_the_home_folder_and_cannot_be_overwritten(space: Space) -> None:
    notebook = space.home / "monai-aws-notebooks" / "find-a-study.ipynb"
    assert json.loads(notebook.read_text())["metadata"]["kernelspec"]["name"] == "monai-aws"
    assert not notebook.stat().st_mode & 0o222


def test_a_second_start_changes_nothing_and_downloads_nothing(space: Space) -> None:
    def state() -> dict[str, str]:
        own = [space.home / ".bashrc", space.home / ".profile", *(space.home / ".monai-aws").glob("*/*")]
        return {str(path): path.read_text() for path in own if path.is_file()}

    before, downloads = state(), space.downloads.read_text()
    done = space.start()
    assert done.returncode == 0, done.stderr
    assert "is installed" in done.stdout
    assert state() == before
    assert space.downloads.read_text() == downloads == "s3://assets/key.zip\n"
    assert (space.home / ".bashrc").read_text().count("environment.sh") == 1
    assert (space.home / ".bashrc").read_text().startswith("# the person's own\n")


def test_an_image_with_another_python_is_refused_with_a_reason(space: Space) -> None:
    done = space.start(version="v2", python="3.9")
    assert done.returncode == 1
    assert "toolkit is for Python 3.9" in done.stdout
    assert (space.home / ".monai-aws/versions/v1/complete").exists()


def test_an_interrupted_start_is_made_good_by_the_next(archive_here: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "monai-aws-notebooks").mkdir(parents=True)
    (home / "monai-aws-notebooks" / "mine.ipynb").write_text("{}")
    (home / ".bash_profile").write_text("")
    (home / ".monai-aws/versions/older").mkdir(parents=True)
    bucket = tmp_path / "bucket"
    bucket.mkdir()
    space = Space(home=home, bucket=bucket)
    # The object is not there.
    assert space.start().returncode != 0
    assert (home / ".monai-aws/versions/older").exists()
    (bucket / "key.zip").symlink_to(archive_here)
    done = space.start()
    assert done.returncode == 0, done.stderr
    assert "left as it is" in done.stdout
    assert [path.name for path in (home / "monai-aws-notebooks").iterdir()] == ["mine.ipynb"]
    assert [path.name for path in (home / ".monai-aws/versions").iterdir()] == ["v1"]
    # Bash reads the first login file that exists: a new .profile would do nothing.
    assert "environment.sh" in (home / ".bash_profile").read_text()
    assert not (home / ".profile").exists()
