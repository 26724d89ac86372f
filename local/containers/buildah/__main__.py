"""The `docker` commands that `make images` needs, done by buildah; and `report`, which docker has not.

The build context is the repository. Source of the options: docs.docker.com/reference/cli/docker/buildx/build.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from local.containers.buildah import report, stand_in, tool
from local.containers.buildah.pip_settings import machine_settings, write_settings
from local.containers.dockerfile import read_dockerfile, substitute
from local.containers.errors import BuildError, ContainerError, ImageNotFoundError

REPOSITORY = Path(__file__).resolve().parents[3]
FOLDER = REPOSITORY / "build" / "images"
"""What is kept between builds, and what `report` writes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 1 with one line on stderr when it cannot be done."""
    options = _parser().parse_args(arguments)
    try:
        tool.require("buildah")
        code: int = options.run(options)
    except ContainerError as error:
        print(f"buildah front: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.containers.buildah", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    builder = commands.add_parser("build", help="build a Dockerfile")
    builder.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    builder.add_argument("--tag", "-t", action="append", required=True)
    builder.add_argument("--file", "-f", type=Path, required=True)
    builder.add_argument("--platform", default="linux/amd64")
    builder.add_argument("context", type=Path)
    builder.set_defaults(run=_build)

    inspect = commands.add_parser("inspect", help="print an image as JSON, exit 1 if there is none")
    inspect.add_argument("image")
    inspect.set_defaults(run=_inspect)

    reporter = commands.add_parser("report", help="sizes and bills of materials of images")
    reporter.add_argument("--sbom", type=Path, required=True, help="folder for the bills of materials")
    reporter.add_argument("image", nargs="+")
    reporter.set_defaults(run=_report)
    return parser


def _build(options: argparse.Namespace) -> int:
    given = dict(pair.partition("=")[::2] for pair in options.build_arg)
    mounts = write_settings(machine_settings(), FOLDER / "pip.conf")
    stand_in.ensure(
        base_of(options.file, given),
        requirements=options.file.parent / "requirements-base.txt",
        folder=FOLDER / "stand-in",
        mounts=mounts,
        log=_say,
    )
    ignore = options.file.with_name(f"{options.file.name}.dockerignore")
    tool.build(
        # Never from a registry: the base's name may be the stand-in's.
        "--pull-never",
        "--platform",
        options.platform,
        "--file",
        str(options.file),
        *(("--ignorefile", str(ignore)) if ignore.exists() else ()),
        *(word for pair in options.build_arg for word in ("--build-arg", pair)),
        *(word for mount in mounts for word in ("--volume", mount.option)),
        *(word for name in options.tag for word in ("--tag", name)),
        str(options.context),
    )
    print(_image(options.tag[0])["id"])
    return 0


def base_of(dockerfile: Path, given: dict[str, str]) -> str:
    """The name of the image that a Dockerfile builds on, with build arguments in place.

    Raises:
        BuildError: there is no FROM, or no name is left after its ARG is replaced.
    """
    variables: dict[str, str] = {}
    for instruction in read_dockerfile(dockerfile.read_text()):
        if instruction.keyword == "ARG":
            name, _, default = instruction.value.partition("=")
            variables[name] = given.get(name, default)
        elif instruction.keyword == "FROM" and (name := substitute(instruction.value, variables)):
            return name
        else:
            break
    raise BuildError(f"{dockerfile} does not begin with a FROM that names an image")


def _inspect(options: argparse.Namespace) -> int:
    found = _image(options.image)
    print(json.dumps([{"Id": f"sha256:{found['id']}", "Config": found["config"]}], indent=1))
    return 0


def _report(options: argparse.Namespace) -> int:
    for line in report.write(options.image, summary=FOLDER / "summary.json", bills=options.sbom):
        print(line)
    return 0


def _image(name: str) -> report.JsonObject:
    found = tool.image(name)
    if found is None:
        raise ImageNotFoundError(name)
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
