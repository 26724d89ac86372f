"""Environment files: what differs between `local`, `dev` and the others, typed and checked before anything is
built.

Everything that is wrong with a file is reported at once, with the file's name: unknown keys, missing keys,
bad values, and names that do not refer to anything.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import botocore.session
from botocore.model import StringShape
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.instances import has_local_storage
from infra.repository import ROOT

FOLDER = ROOT / "infra" / "environments"

Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=32)]
"""Lower-case words joined by hyphens. Becomes part of resource names and, in Pascal case, of stack output
names.
"""

HealthImagingRegion = Literal["us-east-1", "us-west-2", "ap-southeast-2", "eu-west-1", "eu-west-2"]
"""The regions that offer AWS HealthImaging
(https://docs.aws.amazon.com/general/latest/gr/healthimaging-quotas.html).
"""

LogRetentionDays = Literal[
    30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]
"""Retentions of a month and more that CloudWatch Logs accepts."""


class EnvironmentFileError(Exception):
    """An environment file that cannot be used. `problems` lists all that is wrong with it."""

    def __init__(self, *, path: Path, problems: list[str]) -> None:
        self.path = path
        self.problems = problems
        try:
            shown = path.relative_to(ROOT)
        except ValueError:
            shown = path
        super().__init__("\n".join([f"{shown}: {len(problems)} problem(s)", *(f"  - {p}" for p in problems)]))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Aws(_Section):
    """The account and region of the environment. Written down, so that synthesis looks nothing up."""

    account: Annotated[str, Field(pattern=r"^[0-9]{12}$")]
    region: HealthImagingRegion


class LocalCloud(_Section):
    """How to reach the cloud of a developer's own machine. Only for an endpoint on the loopback interface."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    docker: Annotated[str, Field(min_length=1)]
    """Program that builds images in Docker's place (the CDK's CDK_DOCKER), relative to the repository."""


class Protection(_Section):
    """Whether `cdk destroy` may take data along. The datastore is retained in every environment."""

    retain_data: bool
    """Keep buckets, key and model package groups when their stack or they themselves are removed, and refuse
    to delete an Athena workgroup with its history.
    """
    termination_protection: bool
    """Refuse to delete the stacks that hold data."""


class Logs(_Section):
    """Retention of log groups and of bucket access logs."""

    retention_days: LogRetentionDays


class Catalog(_Section):
    """Limits of the SQL catalog."""

    scan_limit_gib: Annotated[int, Field(ge=1, le=10_240)]
    """A query that scans more than this is cancelled by Athena."""


ImageName = Annotated[
    str, Field(pattern=r"^[a-z0-9.-]+/[a-z0-9._/-]+(:[A-Za-z0-9._-]+|@sha256:[0-9a-f]{64})$")
]
"""An image with its registry and its tag or digest, so that every machine builds on the same one."""


class Images(_Section):
    """What the images build on. Without it, as their Dockerfiles say: CPU."""

    training_base: ImageName | None = None
    inference_base: ImageName | None = None


class Task(_Section):
    """One model that this environment trains: a MONAI bundle and the machine that trains it."""

    name: Slug
    bundle: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Name of the bundle in the training image."""
    instance_type: str
    other_instance_types: tuple[str, ...] = ()
    """What an execution may choose instead. All with local storage, or all without."""
    instance_count: Annotated[int, Field(ge=1, le=16)]
    evaluation_instance_type: str
    volume_size_gib: Annotated[int, Field(ge=1, le=16_384)]
    max_runtime_minutes: Annotated[int, Field(ge=1, le=28 * 24 * 60)]
    max_steps: Annotated[int, Field(ge=1)]
    """Default of the pipeline parameter MaxSteps."""
    minimum_dice: Annotated[float, Field(ge=0, le=1)]
    """Default of the pipeline parameter MinimumDice: a model below it is not registered."""

    @property
    def logical_name(self) -> str:
        return _pascal_case(self.name)


class Training(_Section):
    tasks: tuple[Task, ...]


class Endpoint(_Section):
    """One asynchronous endpoint that serves the approved model of a task."""

    name: Slug
    task: Slug
    mode: Literal["asynchronous"]
    instance_type: str
    minimum_instances: Annotated[int, Field(ge=0, le=32)]
    maximum_instances: Annotated[int, Field(ge=1, le=32)]
    concurrent_invocations: Annotated[int, Field(ge=1, le=64)]
    """Requests that one instance works on at the same time."""
    backlog_per_instance: Annotated[float, Field(gt=0)]
    """Queued requests per instance that scaling aims at."""

    @property
    def logical_name(self) -> str:
        return _pascal_case(self.name)


class Inference(_Section):
    endpoints: tuple[Endpoint, ...]


class Environment(_Section):
    """One environment, as its file says."""

    name: Slug
    aws: Aws
    local: LocalCloud | None = None
    protection: Protection
    logs: Logs
    catalog: Catalog
    images: Images = Images()
    training: Training
    inference: Inference


def load_environment(name: str, *, folder: Path = FOLDER) -> Environment:
    """The environment of `<folder>/<name>.toml`.

    Raises:
        EnvironmentFileError: The file is absent, is not TOML, or does not describe an environment.
    """
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml"))) or "none"
        raise EnvironmentFileError(path=path, problems=[f"no such file (environments here: {known})"])
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EnvironmentFileError(path=path, problems=[f"not a TOML file: {error}"]) from error
    problems: list[str] = []
    environment = None
    try:
        environment = Environment.model_validate(data)
    except ValidationError as error:
        problems += [_problem(detail) for detail in error.errors()]
    # On the raw data, not on the model: a bad value in one section must not hide a wrong name in another.
    problems += _contradictions(data, name=name)
    if environment is None or problems:
        raise EnvironmentFileError(path=path, problems=problems)
    return environment


def _problem(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    if detail["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: {detail['msg']} (got {detail['input']!r})"


def _contradictions(data: Mapping[str, Any], *, name: str) -> Iterator[str]:
    """What no single value can be blamed for."""
    if isinstance(data.get("name"), str) and data["name"] != name:
        yield f"name: is {data['name']!r}, but the file is called {name}.toml"
    yield from _local_contradictions(data)
    tasks = _tables(data, "training", "tasks")
    endpoints = _tables(data, "inference", "endpoints")
    for where, tables in (("training.tasks", tasks), ("inference.endpoints", endpoints)):
        names = Counter(table["name"] for table in tables if isinstance(table.get("name"), str))
        yield from (f"{where}: {n!r} is there {count} times" for n, count in names.items() if count > 1)
    known_tasks = {table.get("name") for table in tasks}
    for index, endpoint in enumerate(endpoints):
        where = f"inference.endpoints.{index}"
        task = endpoint.get("task")
        if isinstance(task, str) and task not in known_tasks:
            yield f"{where}.task: no training task is called {task!r}"
        least, most = endpoint.get("minimum_instances"), endpoint.get("maximum_instances")
        if isinstance(least, int) and isinstance(most, int) and least > most:
            yield f"{where}.minimum_instances: {least} is more than maximum_instances {most}"
    yield from _instance_type_problems(tasks=tasks, endpoints=endpoints)


def _local_contradictions(data: Mapping[str, Any]) -> Iterator[str]:
    local = data.get("local")
    if not isinstance(local, Mapping):
        if data.get("name") == "local":
            yield "local: missing (the environment `local` is the cloud of one machine)"
        return
    if data.get("name") != "local":
        yield "local: only the environment `local` may have this section"
    url = local.get("endpoint_url")
    if isinstance(url, str) and not _is_loopback(url):
        yield f"local.endpoint_url: {url!r} is not an http(s) URL on the loopback interface"


def _is_loopback(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _instance_type_problems(
    *, tasks: list[Mapping[str, Any]], endpoints: list[Mapping[str, Any]]
) -> Iterator[str]:
    named: list[tuple[str, Any, str]] = []
    for i, task in enumerate(tasks):
        where, others = f"training.tasks.{i}", task.get("other_instance_types")
        trains = [(f"{where}.instance_type", task.get("instance_type"))]
        if isinstance(others, list):
            trains += [(f"{where}.other_instance_types.{n}", other) for n, other in enumerate(others)]
        named += [(place, value, "TrainingInstanceType") for place, value in trains]
        named.append(
            (
                f"{where}.evaluation_instance_type",
                task.get("evaluation_instance_type"),
                "ProcessingInstanceType",
            )
        )
        known = [value for _, value in trains if value in _instance_types("TrainingInstanceType")]
        if len({has_local_storage(value) for value in known}) > 1:
            yield f"{where}.other_instance_types: with and without local storage takes two tasks"
    for i, endpoint in enumerate(endpoints):
        named.append(
            (
                f"inference.endpoints.{i}.instance_type",
                endpoint.get("instance_type"),
                "ProductionVariantInstanceType",
            )
        )
    for place, value, shape in named:
        if isinstance(value, str) and value not in _instance_types(shape):
            yield f"{place}: SageMaker has no {shape} {value!r}"


@cache
def _instance_types(shape: str) -> frozenset[str]:
    """Instance types that SageMaker's API model knows. From botocore's data files: no call, no
    credentials.
    """
    found = botocore.session.get_session().get_service_model("sagemaker").shape_for(shape)
    return frozenset(found.enum if isinstance(found, StringShape) else ())


def _tables(data: Mapping[str, Any], section: str, key: str) -> list[Mapping[str, Any]]:
    found = data.get(section)
    tables = found.get(key) if isinstance(found, Mapping) else None
    return [table for table in tables if isinstance(table, Mapping)] if isinstance(tables, list) else []


def _pascal_case(slug: str) -> str:
    return "".join(word.capitalize() for word in slug.split("-"))
