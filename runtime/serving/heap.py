"""Keeps the C library's heap from growing with every thread that has come and gone.

glibc gives threads heaps ("arenas") of their own, up to eight a core, and returns little of them to the
system. Holoscan starts new threads at every run, and the arrays of a request come from them: measured, 250
requests about a small volume took 200 MB more that way, and none with two arenas, at the same speed.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
"""Parameter of mallopt(3) (glibc, malloc.h)."""

ARENAS = 2


def limit_arenas() -> bool:
    """Let all threads share two arenas; to be called before anything starts a thread.

    Returns False where the C library has no such setting (macOS, musl): memory is then its own affair.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_ARENA_MAX, ARENAS) == 1
