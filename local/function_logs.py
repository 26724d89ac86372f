"""What a Python function logs is in its log group, as on AWS.

Lambda's Python runtime gives the root logger a handler before it imports the function, so that whatever level
a function sets for its own loggers counts. MiniStack's worker has none, and Python then shows warnings only.

See https://docs.aws.amazon.com/lambda/latest/dg/python-logging.html
"""

from __future__ import annotations

_AFTER = "    sys.stdout = sys.stderr\n"
"""The line of MiniStack's worker after which standard output and error are where logs come from."""

_HANDLER = """\
    import logging as _logging
    _handler = _logging.StreamHandler(sys.stderr)
    _handler.setFormatter(_logging.Formatter("[%(levelname)s]\\t%(asctime)s\\t%(message)s"))
    _logging.getLogger().addHandler(_handler)
"""


def install() -> None:
    """Give the root logger of every function's worker a handler."""
    from ministack.core import lambda_runtime

    script = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(_AFTER) != 1:
        raise RuntimeError("MiniStack's Python worker has changed: function_logs must be adapted to it.")
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(_AFTER, _AFTER + _HANDLER)
