"""Two clones of the repository, on different machines, make the same templates and the same asset hashes: an
assembly that was tested is the one that is deployed, and what did not change is not published again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.repository import ROOT

PROGRAM = """
import sys
from pathlib import Path
import infra
assert Path(infra.__file__).parent.parent == Path.cwd(), infra.__file__
from infra.application import build_app
build_app(context={"env": "local"}, outdir=Path(sys.argv[1])).synth()
"""


def clone(target: Path, *, umask: int) -> None:
    """The files that git has or would have, as a checkout under another umask and at another time makes
    them.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    for name in filter(None, listed.split("\0")):
        source, copy = ROOT / name, target / name
        if not source.is_file():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        executable = 0o111 if source.stat().st_mode & 0o100 else 0
        copy.chmod((0o666 | executable) & ~umask)
    # Packages from the registry, which the pins decide: what is made of them is compared, not fetched twice.
    (target / "build").mkdir()
    for cache in ("functions", "toolkit"):
        if (ROOT / "build" / cache).is_dir():
            (target / "build" / cache).symlink_to(ROOT / "build" / cache)


def use(folder: Path) -> None:
    """Traces of work in a clone: none of them is part of what is deployed."""
    for package in (
        "infra",
        "arrival",
        "healthimaging",
        "runtime",
        "runtime/functions",
        "training",
        "workbench",
    ):
        cache = folder / package / "__pycache__"
        cache.mkdir(exist_ok=True)
        (cache / "stale.cpython-311.pyc").write_bytes(b"stale")
    for package in ("arrival", "runtime", "training", "healthimaging"):
        (folder / package / ".mypy_cache").mkdir()
        (folder / package / ".mypy_cache" / "cache.json").write_text("{}")
    for path in folder.rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)


@pytest.fixture(scope="module")
def assemblies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("hashes")
    first, second = base / "a", base / "home of somebody" / "work" / "monai-on-aws"
    clone(first, umask=0o022)
    clone(second, umask=0o077)
    use(second)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder / "cdk.out")],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": flag, "TZ": zone},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for folder, flag, zone in ((first, "1", "UTC"), (second, "", "Australia/Sydney"))
    ]
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    return first / "cdk.out", second / "cdk.out"


def templates(assembly: Path) -> dict[str, Any]:
    return {
        path.name: json.loads(path.read_text())
        for path in (assembly / "assembly-local").glob("*.template.json")
    }


def assets(assembly: Path) -> set[str]:
    """Hashes of what is published: of packages of functions and of contexts of images."""
    found = set()
    for path in (assembly / "assembly-local").glob("*.assets.json"):
        manifest = json.loads(path.read_text())
        found |= {f"{kind} {hash}" for kind in ("files", "dockerImages") for hash in manifest.get(kind, {})}
    return found


def test_clones_have_the_same_templates(assemblies: tuple[Path, Path]) -> None:
    first, second = map(templates, assemblies)
    assert len(first) >= 5
    assert first.keys() == second.keys()
    assert not [name for name in first if first[name] != second[name]]


def test_clones_have_the_same_asset_hashes(assemblies: tuple[Path, Path]) -> None:
    first, second = map(assets, assemblies)
    assert {asset.split()[0] for asset in first} == {"files", "dockerImages"}
    assert first == second


def test_no_template_knows_where_it_was_made(assemblies: tuple[Path, Path]) -> None:
    for assembly in assemblies:
        for name, template in templates(assembly).items():
            assert str(assembly.parent) not in json.dumps(template), name
