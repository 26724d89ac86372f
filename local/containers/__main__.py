"""The `docker` front: the calls that the CDK CLI makes, over the local image store.

Source of the calls: aws-cdk-cli, packages/@aws-cdk/cdk-assets-lib/lib/private/docker.ts. The state root is
the one of the cloud at AWS_ENDPOINT_URL, which says where it is; LOCAL_CLOUD_ROOT names it where no cloud
runs (default `build/cloud` in the repository). Credentials for `push` come from the AWS_* variables.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import botocore.exceptions
import urllib3

from local.containers.build import build
from local.containers.environments import REPOSITORY, Environments
from local.containers.errors import BuildError, ContainerError
from local.containers.registry import push
from local.containers.store import ImageStore, normalise

ROOT_VARIABLE = "LOCAL_CLOUD_ROOT"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one docker command; 0 on success, 1 with one line on stderr when it cannot be done."""
    options = _parser().parse_args(arguments)
    root = _root()
    try:
        code: int = options.run(options, root)
    except ContainerError as error:
        print(f"docker front: {error}", file=sys.stderr)
        return 1
    except botocore.exceptions.BotoCoreError as error:
        print(
            f"docker front: {error}; is the local cloud running, and AWS_ENDPOINT_URL set?", file=sys.stderr
        )
        return 1
    return code


def _root() -> Path:
    """Where the image store is: in the folder of the cloud that will start the images."""
    named = os.environ.get(ROOT_VARIABLE)
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if named is None and endpoint:
        try:
            named = urllib3.request("GET", f"{endpoint}/_local/status", timeout=10).json()["root"]
        except (urllib3.exceptions.HTTPError, ValueError, KeyError):
            print(f"docker front: no local cloud answers at {endpoint}", file=sys.stderr)
    return Path(named or REPOSITORY / "build" / "cloud").resolve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="docker", description=__doc__)
    parser.add_argument("--config", help="accepted, as the CDK CLI passes it; there is nothing to configure")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    login = commands.add_parser("login", help="accepted: the registry takes the AWS_* credentials")
    login.add_argument("--username", required=True)
    login.add_argument("--password-stdin", action="store_true", required=True)
    login.add_argument("registry")
    login.set_defaults(run=_login)

    inspect = commands.add_parser("inspect", help="print an image as JSON, exit 1 if there is none")
    inspect.add_argument("image")
    inspect.set_defaults(run=_inspect)

    builder = commands.add_parser("build", help="build a Dockerfile")
    builder.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    builder.add_argument("--tag", "-t", action="append", required=True)
    builder.add_argument("--file", "-f", type=Path)
    builder.add_argument("--platform", help="accepted: the process runs on this machine's platform")
    builder.add_argument("context", type=Path)
    builder.set_defaults(run=_build)

    tag = commands.add_parser("tag", help="give an image one more name")
    tag.add_argument("image")
    tag.add_argument("name")
    tag.set_defaults(run=_tag)

    pusher = commands.add_parser("push", help="register an image with the local cloud's ECR")
    pusher.add_argument("name")
    pusher.set_defaults(run=_push)

    images = commands.add_parser("images", help="list the names in the store")
    images.set_defaults(run=_images)
    return parser


def _login(options: argparse.Namespace, root: Path) -> int:
    sys.stdin.read()
    print(f"Login Succeeded ({options.registry})")
    return 0


def _inspect(options: argparse.Namespace, root: Path) -> int:
    image = ImageStore(root).find(options.image)
    print(json.dumps([{"Id": image.digest, "Config": image.config.to_json()}], indent=1))
    return 0


def _build(options: argparse.Namespace, root: Path) -> int:
    arguments = {}
    for pair in options.build_arg:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BuildError(f"--build-arg {pair!r} is not NAME=VALUE")
        arguments[name] = value
    store = ImageStore(root)
    context = options.context.resolve()
    image = build(
        store=store,
        context=context,
        dockerfile=options.file.resolve() if options.file else context / "Dockerfile",
        arguments=arguments,
        log=_say,
    )
    # As docker build would: packages are fetched now, not when a container starts.
    environment = Environments(root).for_image(image, _say)
    _say(f"FROM {image.config.base} is recorded; Python and the packages come from {environment.folder}")
    for name in options.tag:
        store.tag(image.digest, name)
    print(image.digest)
    return 0


def _tag(options: argparse.Namespace, root: Path) -> int:
    ImageStore(root).tag(options.image, options.name)
    return 0


def _push(options: argparse.Namespace, root: Path) -> int:
    image = ImageStore(root).find(options.name)
    digest = push(image=image, name=normalise(options.name))
    print(f"{options.name}: digest: {digest}")
    return 0


def _images(options: argparse.Namespace, root: Path) -> int:
    for name, digest in sorted(ImageStore(root).names().items()):
        print(f"{name}\t{digest}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
