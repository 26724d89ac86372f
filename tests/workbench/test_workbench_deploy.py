"""`monai-aws deploy`: on an account a person sees permissions that become broader before they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench import main, provision


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """How the CDK command line was started: `attached` to the terminal, or `piped`."""
    started: dict[str, list[str]] = {}

    def attached(command: Sequence[str | Path], **_: object) -> None:
        started["attached"] = [str(part) for part in command]

    def piped(command: Sequence[str | Path], *, environment: Mapping[str, str], **_: object) -> None:
        started["piped"] = [str(part) for part in command]

    monkeypatch.setattr(provision, "run_attached", attached)
    monkeypatch.setattr(provision, "run_program", piped)
    monkeypatch.setattr(main, "bootstrap", lambda *_, **__: False)
    return started


@pytest.mark.parametrize(
    ("arguments", "how", "approval"),
    [
        (["--env", "dev"], "attached", "broadening"),
        (["--env", "dev", "--yes"], "piped", "never"),
        (["--env", "local"], "piped", "never"),
    ],
)
def test_who_is_asked(commands: dict[str, list[str]], arguments: list[str], how: str, approval: str) -> None:
    answer = CliRunner().invoke(main.app, ["deploy", *arguments])
    assert answer.exit_code == 0, answer.output
    [(started, command)] = commands.items()
    assert started == how
    assert command[command.index("--require-approval") + 1] == approval
    assert f"env={arguments[1]}" in command
