"""Reads an environment file.

Everything that is wrong with a file is reported at once, with the file's name: unknown keys, missing keys,
bad values, and names that do not refer to anything.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from infra.environment.arrival import Arrival
from infra.environment.contradictions import contradictions
from infra.environment.endpoints import Inference
from infra.environment.names import Section, Slug
from infra.environment.problems import EnvironmentFileError, described
from infra.environment.sections import (
    Aws,
    Catalog,
    Images,
    LocalCloud,
    Logs,
    Network,
    Notices,
    Protection,
    Studio,
)
from infra.environment.training import Training
from infra.repository import ROOT

FOLDER = ROOT / "infra" / "environments"


class Environment(Section):
    """One environment, as its file says."""

    name: Slug
    aws: Aws
    local: LocalCloud | None = None
    protection: Protection
    network: Network
    notices: Notices
    logs: Logs
    catalog: Catalog
    arrival: Arrival
    images: Images = Images()
    studio: Studio
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
        problems += described(error)
    # On the raw data, not on the model: a bad value in one section must not hide a wrong name in another.
    problems += contradictions(data, name=name)
    if environment is None or problems:
        raise EnvironmentFileError(path=path, problems=problems)
    return environment
