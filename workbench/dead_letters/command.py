"""`monai-aws dead-letters`: what could not be done, and having it done after all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from workbench.command_line import Env, Json, deployment_of, reporting
from workbench.dead_letters.letter import DeadLetter
from workbench.dead_letters.letters import discard_dead_letters, list_dead_letters, replay_dead_letters
from workbench.errors import WorkbenchError
from workbench.output import Output

dead_letters = typer.Typer(
    no_args_is_help=True, help="What could not be done: events and requests; list, replay, discard."
)

Ids = Annotated[list[str] | None, typer.Argument(help="Ids of letters, or the beginnings of ids.")]


@dead_letters.command("list")
def list_command(env: Env = "local", as_json: Json = False) -> None:
    """List events that a function could not work off, and requests that an endpoint failed."""
    output = Output(as_json)
    with reporting(output):
        letters = list_dead_letters(deployment_of(env))
        lines = [line for letter in letters for line in _lines(letter)]
        if letters:
            lines.append("Once the cause is gone: monai-aws dead-letters replay ID ..., or --all")
        output.result({"deadLetters": [one.to_json() for one in letters]}, lines or ["nothing"])


@dead_letters.command("replay")
def replay_command(
    ids: Ids = None,
    env: Env = "local",
    as_json: Json = False,
    every: Annotated[bool, typer.Option("--all", help="Every one of them.")] = False,
) -> None:
    """Send letters again: events to the queue that they came from, requests to their endpoint."""
    output = Output(as_json)
    with reporting(output):
        if bool(ids) == every:
            raise WorkbenchError(
                "Either letters are named, or --all.", advice="See them: monai-aws dead-letters list"
            )
        letters = replay_dead_letters(deployment_of(env), None if every else ids, progress=output.progress)
        _result(output, letters, "replayed", "sent again")


@dead_letters.command("discard")
def discard_command(
    ids: Annotated[list[str], typer.Argument(help="Ids of letters, or the beginnings of ids.")],
    env: Env = "local",
    as_json: Json = False,
) -> None:
    """Throw letters away. What they ask for will not be done."""
    output = Output(as_json)
    with reporting(output):
        letters = discard_dead_letters(deployment_of(env), ids, progress=output.progress)
        _result(output, letters, "discarded", "thrown away")


def _result(output: Output, letters: Sequence[DeadLetter], member: str, done: str) -> None:
    noun = "letter" if len(letters) == 1 else "letters"
    output.result({member: [one.to_json() for one in letters]}, [f"{len(letters)} {noun} {done}"])


def _lines(letter: DeadLetter) -> list[str]:
    about = ", ".join(f"{name} {value}" for name, value in letter.about.items()) or "not readable"
    return [
        f"{letter.id}  {letter.place}  {letter.when.isoformat(sep=' ', timespec='seconds')}",
        f"  about: {about}",
        f"  why: {letter.reason}",
        f"  replay: {letter.replay}",
    ]
