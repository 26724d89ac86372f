"""Keeps SIGTERM and SIGINT from every handler, and waits for them instead.

Holoscan installs C handlers for both signals at every run, and its second SIGTERM ends the process at once,
whatever is in flight. A blocked signal reaches no handler: it waits until a thread asks for it.
"""

from __future__ import annotations

import signal

_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


def block_stop_signals() -> None:
    """Block both signals in this thread and in all that it starts.

    To be called before anything starts a thread: importing numpy does (its linear algebra library), and one
    thread without the mask is enough for the signal to be delivered there.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)


def wait_for_stop_signal() -> str:
    """Wait for one of the blocked signals and return its name."""
    return signal.Signals(signal.sigwait(_STOP_SIGNALS)).name
