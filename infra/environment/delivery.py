"""`infra/delivery.toml`: from where the platform is delivered, and through which environments."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from infra.environment.names import AccountId, Section, Slug
from infra.environment.problems import EnvironmentFileError, described
from infra.environment.sections import HealthImagingRegion
from infra.repository import ROOT

FILE = ROOT / "infra" / "delivery.toml"


class Tooling(Section):
    """The account that has the delivery pipeline and nothing else."""

    account: AccountId
    region: HealthImagingRegion


class Source(Section):
    """The repository that is delivered."""

    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$")]
    branch: Annotated[str, Field(min_length=1)]
    connection_arn: Annotated[
        str, Field(pattern=r"^arn:aws:codeconnections:[a-z0-9-]+:[0-9]{12}:connection/[0-9a-f-]{36}$")
    ]


class Delivery(Section):
    """The order of promotion. Every environment gets the assembly that the one before it was tested with."""

    tooling: Tooling
    source: Source
    environments: Annotated[tuple[Slug, ...], Field(min_length=1)]
    """In the order of promotion."""
    approval_before: tuple[Slug, ...]
    """Environments that a person has to let in."""

    def before(self, environment: str) -> str | None:
        """The environment from which `environment` gets its candidates."""
        return self._neighbour(environment, -1)

    def after(self, environment: str) -> str | None:
        """The environment that gets its candidates from `environment`."""
        return self._neighbour(environment, +1)

    def _neighbour(self, environment: str, step: int) -> str | None:
        if environment not in self.environments:
            return None
        index = self.environments.index(environment) + step
        return self.environments[index] if 0 <= index < len(self.environments) else None


def load_delivery(path: Path = FILE) -> Delivery:
    """The delivery that the file describes.

    Raises:
        EnvironmentFileError: The file is absent, is not TOML, or does not describe a delivery.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EnvironmentFileError(path=path, problems=["no such file"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EnvironmentFileError(path=path, problems=[f"not a TOML file: {error}"]) from error
    try:
        delivery = Delivery.model_validate(data)
    except ValidationError as error:
        raise EnvironmentFileError(path=path, problems=described(error)) from error
    problems = [
        f"approval_before: {name!r} is not one of the environments"
        for name in delivery.approval_before
        if name not in delivery.environments
    ]
    if len(set(delivery.environments)) < len(delivery.environments):
        problems.append("environments: one is there twice")
    if problems:
        raise EnvironmentFileError(path=path, problems=problems)
    return delivery
