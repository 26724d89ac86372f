"""What could not be done: listed, sent again, or thrown away.

Two places hold it. Events that a function of the platform failed to work off lie in the dead-letter queue of
its queue (`dead_letter_queues`); asynchronous requests that an endpoint failed are noted in the result bucket
(`failed_requests`). Nothing here says anything of a patient but the identifiers of image sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from workbench.dead_letters.failed_requests import FailedRequests
from workbench.dead_letters.letter import DeadLetter, Held, Place
from workbench.dead_letters.queues import dead_letter_queues
from workbench.deployment import Deployment
from workbench.errors import WorkbenchError
from workbench.progress import Progress, silent

SHORTEST_PREFIX = 6
"""Characters by which a letter may be named where its whole id is too long to type."""


def list_dead_letters(deployment: Deployment) -> tuple[DeadLetter, ...]:
    """Everything that could not be done, the oldest first."""
    with _all(deployment) as held:
        return tuple(one.letter for one in held)


def replay_dead_letters(
    deployment: Deployment, ids: Sequence[str] | None, *, progress: Progress = silent
) -> tuple[DeadLetter, ...]:
    """Send letters again, each exactly once; those that were sent.

    A letter that cannot be sent stays where it is, and the others are sent. When a service fails, those after
    it stay, too.

    Args:
        deployment: The environment's stacks.
        ids: Ids, or beginnings of them that name one letter each; None sends all.
        progress: Gets each letter that was sent.

    Raises:
        WorkbenchError: An id names no letter, or several: then nothing is sent. Or some could not be sent.
    """
    return _each(deployment, ids, lambda one: one.replay(), done="sent again", progress=progress)


def discard_dead_letters(
    deployment: Deployment, ids: Sequence[str], *, progress: Progress = silent
) -> tuple[DeadLetter, ...]:
    """Throw letters away; those that are gone. For what it was, nothing will be done any more."""
    return _each(deployment, ids, lambda one: one.discard(), done="thrown away", progress=progress)


def _each(
    deployment: Deployment,
    ids: Sequence[str] | None,
    action: Callable[[Held], None],
    *,
    done: str,
    progress: Progress,
) -> tuple[DeadLetter, ...]:
    letters, failures = [], []
    with _all(deployment) as held:
        for one in held if ids is None else _named(held, ids):
            try:
                action(one)
            except WorkbenchError as error:
                failures.append(error)
                continue
            letters.append(one.letter)
            progress(f"{one.letter.id} {done}")
    if failures:
        raise WorkbenchError(
            f"{len(letters)} {done}. {failures[0].message}",
            advice=failures[0].advice,
            details=[one.message for one in failures[1:]],
        )
    return tuple(letters)


@contextmanager
def _all(deployment: Deployment) -> Iterator[list[Held]]:
    places: list[Place] = [*dead_letter_queues(deployment), FailedRequests(deployment)]
    with ExitStack() as stack:
        held = [one for place in places for one in stack.enter_context(place.open())]
        yield sorted(held, key=lambda one: one.letter.when)


def _named(held: Sequence[Held], ids: Sequence[str]) -> list[Held]:
    chosen: dict[str, Held] = {}
    for wanted in ids:
        found = [one for one in held if one.letter.id == wanted]
        if not found and len(wanted) >= SHORTEST_PREFIX:
            found = [one for one in held if one.letter.id.startswith(wanted)]
        if len(found) != 1:
            raise WorkbenchError(
                f"{wanted!r} names {len(found) or 'no'} dead letter{'s' if len(found) > 1 else ''}.",
                advice="See their ids: monai-aws dead-letters list. A message that somebody else looks at is "
                "hidden for up to two minutes.",
            )
        chosen[found[0].letter.id] = found[0]
    return list(chosen.values())
