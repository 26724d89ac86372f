"""What the receiver's container is told, from the variables of its task definition."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass

from arrival.errors import ArrivalError
from arrival.importing.import_job import Archive
from arrival.receiving.access import Access, Caller, is_ae_title

DEFAULT_PORT = 11112
"""DICOM's registered port above 1023 (PS3.8 section 9.1.1)."""


class SettingsError(ArrivalError):
    """Variables are missing or wrong. The message has all of them."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of `python -m arrival receive`."""

    archive: Archive
    access: Access
    port: int
    quiet_seconds: float
    deidentification_key_secret_arn: str | None
    """None: studies are stored as they come."""
    tls_secret_arn: str | None
    """Secret with JSON: `certificate`, `key`, and `ca` if devices must show a certificate, too; each PEM."""

    @classmethod
    def from_variables(cls, variables: Mapping[str, str]) -> Settings:
        """The settings in environment variables.

        Raises:
            SettingsError: With every problem that there is.
        """
        problems: list[str] = []

        def text(name: str) -> str:
            value = variables.get(name, "").strip()
            if not value:
                problems.append(f"{name} is missing")
            return value

        def number(name: str, *, low: float, high: float) -> float:
            given = text(name)
            try:
                value = float(given)
            except ValueError:
                value = float("nan")
            if given and not low <= value <= high:
                problems.append(f"{name} is not a number from {low:g} to {high:g}")
            return value

        archive = Archive(
            datastore_id=text("ARRIVAL_DATASTORE_ID"),
            import_role_arn=text("ARRIVAL_IMPORT_ROLE_ARN"),
            inbox_bucket=text("ARRIVAL_INBOX_BUCKET"),
            import_bucket=text("ARRIVAL_IMPORT_BUCKET"),
        )
        title = text("ARRIVAL_AE_TITLE")
        if title and not is_ae_title(title):
            problems.append("ARRIVAL_AE_TITLE is no AE title: 1 to 16 characters, no backslash")
        allowed = _callers(text("ARRIVAL_ALLOWED"), problems)
        port = number("ARRIVAL_PORT", low=1, high=65535)
        quiet = number("ARRIVAL_QUIET_SECONDS", low=0, high=86400)
        secret = None
        switch = text("ARRIVAL_DEIDENTIFY")
        if switch == "true":
            secret = text("ARRIVAL_DEIDENTIFICATION_KEY_SECRET_ARN")
        elif switch not in ("", "false"):
            problems.append("ARRIVAL_DEIDENTIFY is neither true nor false")
        if problems:
            raise SettingsError(
                f"The receiver cannot start: {'; '.join(problems)}.",
                advice="Correct the task definition (infra/arrival), or the variables that you set.",
            )
        return cls(
            archive=archive,
            access=Access(ae_title=title, callers=allowed),
            port=int(port),
            quiet_seconds=quiet,
            deidentification_key_secret_arn=secret,
            tls_secret_arn=variables.get("ARRIVAL_TLS_SECRET_ARN", "").strip() or None,
        )


def _callers(text: str, problems: list[str]) -> tuple[Caller, ...]:
    """`[{"ae_title": ..., "cidr": ...}, ...]`"""
    if not text:
        return ()
    found = []
    try:
        for one in json.loads(text):
            if not is_ae_title(one["ae_title"]):
                problems.append("ARRIVAL_ALLOWED has something that is no AE title")
            found.append(Caller(ae_title=one["ae_title"], network=ipaddress.ip_network(one["cidr"])))
    except (ValueError, TypeError, KeyError):
        problems.append('ARRIVAL_ALLOWED is not JSON of the form [{"ae_title": "...", "cidr": "10.0.0.0/8"}]')
    if not found:
        problems.append("ARRIVAL_ALLOWED names nobody")
    return tuple(found)
