"""The stacks of the environment `local` in a benchmark's own cloud."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.local_cloud import LocalCloud
from workbench.deployment import Deployment
from workbench.environment import load_environment
from workbench.provision import bootstrap, deploy
from workbench.session import Session

ENVIRONMENT = "local"


def deployment_at(endpoint_url: str) -> Deployment:
    """What is deployed there, or will be."""
    environment = load_environment(ENVIRONMENT)
    if environment.local is None:
        raise AssertionError("the environment is the local one")
    return Deployment(
        Session(replace(environment, local=replace(environment.local, endpoint_url=endpoint_url)))
    )


def deploy_into(cloud: LocalCloud) -> Deployment:
    """Deploy the stacks into an empty cloud."""
    deployment = deployment_at(cloud.endpoint_url)
    bootstrap(deployment.session, progress=_silent)
    deploy(deployment.session, progress=_silent)
    return deployment


@contextmanager
def nobody_told(deployment: Deployment) -> Iterator[None]:
    """Events of HealthImaging start nothing meanwhile: functions would use the cores, too."""
    events = deployment.session.client("events")
    names = [
        rule["Name"]
        for page in events.get_paginator("list_rules").paginate()
        for rule in page["Rules"]
        if "aws.medical-imaging" in rule.get("EventPattern", "") and rule["State"] == "ENABLED"
    ]
    for name in names:
        events.disable_rule(Name=name)
    try:
        yield
    finally:
        for name in names:
            events.enable_rule(Name=name)


def _silent(_line: str) -> None:
    """The deployment's own progress would hide the benchmark's."""
