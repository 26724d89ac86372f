"""``python -m runtime serve``: the entry point of the inference image."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence

from runtime.serving.heap import limit_arenas
from runtime.serving.stack import ensure_stack_size
from runtime.serving.stop_signals import block_stop_signals

_USAGE = "usage: python -m runtime serve"


def main(arguments: Sequence[str]) -> int:
    """Run the command; return the exit status."""
    if list(arguments) != ["serve"]:
        sys.stderr.write(f"{_USAGE}\n")
        return 2
    block_stop_signals()
    enough_stack = ensure_stack_size()
    limit_arenas()
    # Holoscan repeats every exception on standard error as plain text; the server logs it once, as JSON.
    os.environ.setdefault("HOLOSCAN_LOG_LEVEL", "OFF")

    from healthimaging.region import adopt_region
    from runtime.cuda_runtime import load_cuda_runtime
    from runtime.errors import SettingsError
    from runtime.logs import configure_logging, withhold_output
    from runtime.settings import Settings

    adopt_region(os.environ)
    configure_logging()
    withhold_output()
    log = logging.getLogger("runtime")
    if not enough_stack:
        warnings.filterwarnings("ignore", message="Current stack size", category=RuntimeWarning)
        log.warning("the stack limit is below the 32 MB that holoscan asks for and may not be raised")
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        log.error("the environment cannot be used", extra={"fields": {"detail": str(error)}})
        return 2

    load_cuda_runtime()
    from runtime.serving.serve import serve

    return serve(settings)


if __name__ == "__main__":
    status = main(sys.argv[1:])
    logging.shutdown()
    sys.stdout.flush()
    # Every answer is sent. Tearing down an interpreter whose other threads may still be loading a model can
    # take seconds or crash, and there is nothing left for it to save.
    os._exit(status)
