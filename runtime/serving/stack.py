"""Gives the process the stack that holoscan asks for.

Holoscan wants 32 MB for each of its threads and warns at import and at every run when there is less.
glibc reads the limit when a program starts, and SageMaker cannot pass ``--ulimit`` to a container, so the
program raises its own limit and starts itself anew: the process id, and with it signals, stay the same.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import NoReturn

WANTED_BYTES = 32 * 1024 * 1024
_MARK = "RUNTIME_STACK_RAISED"


def ensure_stack_size() -> bool:
    """Re-execute the program with a larger stack; return False where the limit may not be raised.

    Returns True at once when the limit is large enough. The mark in the environment keeps a system that
    ignores the new limit from starting the program forever.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft == resource.RLIM_INFINITY or soft >= WANTED_BYTES:
        return True
    allowed = hard == resource.RLIM_INFINITY or hard >= WANTED_BYTES
    if allowed and not os.environ.get(_MARK):
        _start_anew(hard)
    return False


def _start_anew(hard: int) -> NoReturn:
    resource.setrlimit(resource.RLIMIT_STACK, (WANTED_BYTES, hard))
    os.environ[_MARK] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - own arguments, no shell
