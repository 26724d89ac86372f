"""What no single value of an environment file can be blamed for.

Works on the file's raw data, in which anything may be missing or of a wrong type: that is said elsewhere, and
here it is passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from infra.environment.arrival import FARGATE_MEMORY_MIB
from infra.environment.instance_types import instance_type_problems

Table = Mapping[str, Any]

_ENDPOINT_NAME_LENGTH = 63
_WIDEST_CALLER = 8


def contradictions(data: Table, *, name: str) -> Iterator[str]:
    """Every contradiction in the file of environment `name`."""
    if isinstance(data.get("name"), str) and data["name"] != name:
        yield f"name: is {data['name']!r}, but the file is called {name}.toml"
    yield from _local(data)
    yield from _protection(data)
    yield from _network(data)
    yield from _receiver(data)
    yield from _studio(data)
    tasks = _tables(data, "training", "tasks")
    endpoints = _tables(data, "inference", "endpoints")
    rules = _tables(data, "inference", "rules")
    for where, tables in (
        ("studio.users", _tables(data, "studio", "users")),
        ("training.tasks", tasks),
        ("inference.endpoints", endpoints),
        ("inference.rules", rules),
    ):
        names = Counter(table["name"] for table in tables if isinstance(table.get("name"), str))
        yield from (f"{where}: {n!r} is there {count} times" for n, count in names.items() if count > 1)
    yield from _tasks(tasks)
    yield from _endpoints(data, endpoints, tasks={task.get("name") for task in tasks}, environment=name)
    yield from _rules(rules, endpoints)
    yield from instance_type_problems(
        studio=_table(data, "studio"),
        tasks=tasks,
        endpoints=endpoints,
        inference_base=_table(data, "images").get("inference_base"),
    )


def _local(data: Table) -> Iterator[str]:
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


def _protection(data: Table) -> Iterator[str]:
    """The data store is kept whatever the file says: without its key, which is not, nobody could read it."""
    protection = _table(data, "protection")
    if data.get("name") == "local" or protection.get("patient_data") is not True:
        return
    for key in ("retain_data", "termination_protection"):
        if protection.get(key) is False:
            yield f"protection.{key}: must be true where patient_data is (not in `local`)"


def _network(data: Table) -> Iterator[str]:
    network = _table(data, "network")
    if not network:
        return
    existing = network.get("existing")
    zones = network.get("availability_zones", [])
    if isinstance(existing, Mapping):
        for key in ("cidr", "availability_zones"):
            if key in network:
                yield f"network.{key}: not with an existing VPC"
        subnets = existing.get("subnet_ids")
        if isinstance(subnets, list) and len(set(map(str, subnets))) < len(subnets):
            yield "network.existing.subnet_ids: one is there twice"
        if existing.get("make_endpoints") is True and not existing.get("route_table_ids"):
            yield "network.existing.route_table_ids: missing (the gateway endpoint of S3 needs them)"
        cidrs = existing.get("endpoint_cidrs")
        if existing.get("make_endpoints") is True and cidrs:
            yield "network.existing.endpoint_cidrs: only without make_endpoints"
        elif existing.get("make_endpoints") is False and not cidrs:
            yield "network.existing.endpoint_cidrs: missing (workloads may connect to nothing else)"
        for cidr in cidrs if isinstance(cidrs, list) else []:
            if isinstance(cidr, str) and (problem := _not_private(cidr)):
                yield f"network.existing.endpoint_cidrs: {problem}"
        return
    if "cidr" not in network:
        yield "network.cidr: missing (or network.existing)"
    if "availability_zones" not in network:
        yield "network.availability_zones: missing (or network.existing)"
    elif isinstance(zones, list):
        region = _table(data, "aws").get("region")
        if len(set(map(str, zones))) < 2:
            yield "network.availability_zones: two different ones at least"
        for zone in zones:
            if isinstance(zone, str) and isinstance(region, str) and not zone.startswith(region):
                yield f"network.availability_zones: {zone!r} is not in {region}"
    cidr = network.get("cidr")
    if isinstance(cidr, str):
        if problem := _not_private(cidr):
            yield f"network.cidr: {problem}"
        elif not 16 <= IPv4Network(cidr).prefixlen <= 24:
            yield f"network.cidr: {cidr!r} is not a private block of /16 to /24"


def _receiver(data: Table) -> Iterator[str]:
    receiver = _table(_table(data, "arrival"), "receiver")
    cpu, memory = receiver.get("cpu"), receiver.get("memory_mib")
    if isinstance(cpu, int) and cpu not in FARGATE_MEMORY_MIB:
        yield f"arrival.receiver.cpu: {cpu} is none of {', '.join(map(str, FARGATE_MEMORY_MIB))}"
    elif isinstance(cpu, int) and isinstance(memory, int) and memory not in FARGATE_MEMORY_MIB[cpu]:
        sizes = FARGATE_MEMORY_MIB[cpu]
        yield (
            f"arrival.receiver.memory_mib: {memory} does not go with {cpu} CPU units; from {sizes[0]} to "
            f"{sizes[-1]} in steps of {sizes.step}"
        )
    for index, caller in enumerate(_tables(_table(data, "arrival"), "receiver", "allowed")):
        where, cidr = f"arrival.receiver.allowed.{index}.cidr", caller.get("cidr")
        if not isinstance(cidr, str):
            continue
        try:
            addresses = IPv4Network(cidr)
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        # A hospital may well have public addresses inside. The whole internet it has not.
        if addresses.prefixlen < _WIDEST_CALLER:
            yield f"{where}: {cidr!r} is wider than a /{_WIDEST_CALLER}"
    secret, aws = receiver.get("tls_secret_arn"), _table(data, "aws")
    if isinstance(secret, str) and secret.split(":")[3:5] != [aws.get("region"), aws.get("account")]:
        yield "arrival.receiver.tls_secret_arn: not in the environment's account and region"


def _not_private(cidr: str) -> str | None:
    """What is wrong with a block of private addresses."""
    try:
        addresses = IPv4Network(cidr)
    except ValueError as error:
        return str(error)
    return None if addresses.is_private else f"{cidr!r} is not a block of private addresses"


def _studio(data: Table) -> Iterator[str]:
    studio = _table(data, "studio")
    for index, user in enumerate(_tables(data, "studio", "users")):
        if studio.get("auth") == "SSO" and "sso_user" not in user:
            yield f"studio.users.{index}.sso_user: missing (auth is SSO)"
        if studio.get("auth") == "IAM" and "sso_user" in user:
            yield f"studio.users.{index}.sso_user: only with auth SSO"
    personas: dict[str, set[str]] = {}
    for user in _tables(data, "studio", "users"):
        person, persona = user.get("sso_user"), user.get("persona")
        if isinstance(person, str) and isinstance(persona, str):
            personas.setdefault(person.lower(), set()).add(persona)
    for person, held in personas.items():
        if held >= {"data-scientist", "model-reviewer"}:
            yield f"studio.users: {person} trains models and approves them; that takes two people"


def _tasks(tasks: list[Table]) -> Iterator[str]:
    for index, task in enumerate(tasks):
        where = f"training.tasks.{index}"
        wait, runtime = task.get("max_wait_minutes"), task.get("max_runtime_minutes")
        if task.get("spot") is True:
            if wait is None:
                yield f"{where}.max_wait_minutes: missing (training is on spot capacity)"
            elif isinstance(wait, int) and isinstance(runtime, int) and wait < runtime:
                yield f"{where}.max_wait_minutes: {wait} is less than max_runtime_minutes {runtime}"
        elif wait is not None:
            yield f"{where}.max_wait_minutes: only with spot"


def _endpoints(data: Table, endpoints: list[Table], *, tasks: set[Any], environment: str) -> Iterator[str]:
    patient_data = _table(data, "protection").get("patient_data")
    for index, endpoint in enumerate(endpoints):
        where = f"inference.endpoints.{index}"
        named = [(f"{where}.task", endpoint.get("task"))]
        models = endpoint.get("models")
        if isinstance(models, list):
            named += [
                (f"{where}.models.{n}.task", model.get("task"))
                for n, model in enumerate(models)
                if isinstance(model, Mapping)
            ]
            served = Counter(task for _, task in named[1:] if isinstance(task, str))
            yield from (f"{where}.models: {t!r} is there {n} times" for t, n in served.items() if n > 1)
            yield from _components(endpoint, models, where=where, environment=environment)
        for place, task in named:
            if isinstance(task, str) and task not in tasks:
                yield f"{place}: no training task is called {task!r}"
        least, most = endpoint.get("minimum_instances"), endpoint.get("maximum_instances")
        if isinstance(least, int) and isinstance(most, int) and least > most:
            yield f"{where}.minimum_instances: {least} is more than maximum_instances {most}"
        if endpoint.get("mode") == "serverless" and patient_data is not False:
            yield (
                f"{where}.mode: a serverless endpoint cannot be inside the network; only where "
                "protection.patient_data is false"
            )
        name, machine = endpoint.get("name"), endpoint.get("instance_type", "")
        if isinstance(name, str) and isinstance(machine, str) and endpoint.get("mode") != "batch":
            length = len(f"monai-{environment}-{name}-{machine.removeprefix('ml.')}")
            if length > _ENDPOINT_NAME_LENGTH:
                yield f"{where}.name: the endpoint's name would have {length} characters, 63 are allowed"


def _components(endpoint: Table, models: list[Any], *, where: str, environment: str) -> Iterator[str]:
    for n, model in enumerate(model for model in models if isinstance(model, Mapping)):
        least, most = model.get("copies"), model.get("maximum_copies")
        if isinstance(least, int) and isinstance(most, int) and least > most:
            yield f"{where}.models.{n}.copies: {least} is more than maximum_copies {most}"
        name, machine, task = endpoint.get("name"), endpoint.get("instance_type"), model.get("task")
        if isinstance(name, str) and isinstance(machine, str) and isinstance(task, str):
            length = len(f"monai-{environment}-{name}-{task}-{machine.removeprefix('ml.')}")
            if length > _ENDPOINT_NAME_LENGTH:
                yield (
                    f"{where}.models.{n}.task: the component's name would have {length} characters, "
                    "63 are allowed"
                )


def _rules(rules: list[Table], endpoints: list[Table]) -> Iterator[str]:
    modes = {endpoint.get("name"): endpoint.get("mode") for endpoint in endpoints}
    for index, rule in enumerate(rules):
        where, endpoint = f"inference.rules.{index}", rule.get("endpoint")
        if isinstance(endpoint, str) and endpoint not in modes:
            yield f"{where}.endpoint: no endpoint is called {endpoint!r}"
        elif isinstance(endpoint, str) and modes[endpoint] != "asynchronous":
            yield f"{where}.endpoint: {endpoint!r} is not asynchronous, and nobody would wait for its answer"
        modality = rule.get("modality")
        if isinstance(modality, list) and {"SEG", "SR", "PR", "KO"} & set(map(str, modality)):
            yield f"{where}.modality: what inference stores must never start inference (SEG, SR, PR, KO)"
        pattern = rule.get("series_description")
        if isinstance(pattern, str):
            try:
                re.compile(pattern)
            except re.error as error:
                yield f"{where}.series_description: not a regular expression ({error})"


def _table(data: Table, key: str) -> Table:
    found = data.get(key)
    return found if isinstance(found, Mapping) else {}


def _tables(data: Table, section: str, key: str) -> list[Table]:
    tables = _table(data, section).get(key)
    return [table for table in tables if isinstance(table, Mapping)] if isinstance(tables, list) else []
