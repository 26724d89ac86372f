"""The part of an environment file that the workbench needs: which account, how to reach it, what it serves.

`infra/environments/<name>.toml` is validated in full by `infra`; the workbench reads `[aws]`, `[local]`,
`[arrival]`, `[[training.tasks]]` and `[[inference.endpoints]]` as data, so that it runs without the CDK
installed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import EnvironmentInvalid
from workbench.served import Mode, Served

REPOSITORY = Path(__file__).resolve().parent.parent
"""The repository's root: environment files, cdk.json and `build/` are found from here."""

DEFAULT_FOLDER = REPOSITORY / "infra" / "environments"


@dataclass(frozen=True, kw_only=True)
class LocalEndpoint:
    """`[local]`: the cloud on this machine. Present only where the environment file has that section."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    docker: Path | None
    """Program that the CDK CLI runs instead of `docker` (its CDK_DOCKER), absolute."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One of `[[training.tasks]]`."""

    name: str
    """lung-segmentation"""
    bundle: str
    """The bundle of the training image that the task trains where nobody names another."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """`[arrival]`: how files come in."""

    deidentify: bool = False
    """Whether what is ingested is de-identified unless a person says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One deployment target."""

    name: str
    account: str
    region: str
    local: LocalEndpoint | None
    served: tuple[Served, ...] = ()
    """`[[inference.endpoints]]`, in the file's order."""
    tasks: tuple[Task, ...] = ()
    """`[[training.tasks]]`, in the file's order."""
    arrival: Arrival = Arrival()

    def stack_name(self, part: str) -> str:
        """Name of a stack of this environment; `part` is data, catalog, training or inference."""
        return f"monai-{self.name}-{part}"


def load_environment(name: str, *, folder: Path = DEFAULT_FOLDER) -> Environment:
    """Read `<folder>/<name>.toml`, or the file that `name` is the path of; every missing or mistyped key is
    reported at once.
    """
    path = Path(name) if name.endswith(".toml") else folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.toml"))) or "none"
        raise EnvironmentInvalid(
            f"There is no environment {name!r}: {path} does not exist.",
            advice=f"Choose one of: {known}; or write that file.",
        )
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise EnvironmentInvalid(
            f"{path} is not valid TOML: {error}.", advice="Correct that line and run the command again."
        ) from error

    problems: list[str] = []
    aws = _section(document, "aws", problems)
    account = _text(aws, "aws.account", problems)
    region = _text(aws, "aws.region", problems)
    local: LocalEndpoint | None = None
    if "local" in document:
        section = _section(document, "local", problems)
        docker = section.get("docker")
        local = LocalEndpoint(
            endpoint_url=_text(section, "local.endpoint_url", problems),
            access_key_id=_text(section, "local.access_key_id", problems),
            secret_access_key=_text(section, "local.secret_access_key", problems),
            docker=(REPOSITORY / str(docker)).absolute() if docker else None,
        )
    served = _served(document, problems)
    tasks = tuple(
        Task(
            name=_text(section, f"{where}.name", problems), bundle=_text(section, f"{where}.bundle", problems)
        )
        for index, section in enumerate(document.get("training", {}).get("tasks", ()))
        for where in [f"training.tasks.{index}"]
    )
    arrival = _arrival(document, problems)
    if problems:
        raise EnvironmentInvalid(
            f"{path} cannot be used: {'; '.join(problems)}.", advice="Correct the file and run again."
        )
    return Environment(
        name=str(document.get("name", path.stem)),
        account=account,
        region=region,
        local=local,
        served=served,
        tasks=tasks,
        arrival=arrival,
    )


def _arrival(document: Mapping[str, Any], problems: list[str]) -> Arrival:
    if "arrival" not in document:
        return Arrival()
    deidentify = _section(document, "arrival", problems).get("deidentify")
    if not isinstance(deidentify, bool):
        # Not to be guessed: it decides whether patients' names leave the machine.
        problems.append("arrival.deidentify must be true or false")
        return Arrival()
    return Arrival(deidentify=deidentify)


def _served(document: Mapping[str, Any], problems: list[str]) -> tuple[Served, ...]:
    found = []
    for index, section in enumerate(document.get("inference", {}).get("endpoints", ())):
        where = f"inference.endpoints.{index}"
        name = _text(section, f"{where}.name", problems)
        mode = _text(section, f"{where}.mode", problems)
        if mode not in list(Mode):
            problems.append(f"{where}.mode must be one of {', '.join(Mode)}")
            continue
        models = section.get("models", [section] if "task" in section else [])
        tasks = tuple(_text(model, f"{where}.task", problems) for model in models)
        found.append(Served(name=name, mode=Mode(mode), tasks=tasks))
    return tuple(found)


def _section(document: Mapping[str, Any], name: str, problems: list[str]) -> Mapping[str, Any]:
    section = document.get(name)
    if isinstance(section, Mapping):
        return section
    problems.append(f"section [{name}] is missing")
    return {}


def _text(section: Mapping[str, Any], dotted: str, problems: list[str]) -> str:
    value = section.get(dotted.rpartition(".")[2])
    if isinstance(value, str) and value:
        return value
    problems.append(f"{dotted} must be a non-empty string")
    return ""
