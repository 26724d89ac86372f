"""The serving process from start to drained end."""

from __future__ import annotations

import logging
import threading

import uvicorn

from runtime.errors import report
from runtime.logs import places
from runtime.metrics import Metrics
from runtime.serving.server import create_app
from runtime.serving.service import load_service
from runtime.serving.stop_signals import wait_for_stop_signal
from runtime.serving.worker import Worker
from runtime.settings import Settings

_LOG = logging.getLogger(__name__)


def serve(settings: Settings) -> int:
    """Serve until told to stop; return the process's exit status.

    0 after SIGTERM or SIGINT, when every request in flight is answered; 1 when the model cannot be loaded.

    The signals must be blocked (`runtime.serving.stop_signals`) before this module is imported. SageMaker
    kills the container 30 s after SIGTERM; until then a drain is never cut short.
    """
    failures: list[BaseException] = []

    def give_up(error: BaseException) -> None:
        failures.append(error)
        description = report(error)
        fields: dict[str, object] = {"type": description.type, "detail": description.message}
        if not description.expected:
            fields["places"] = places(error.__traceback__)
        _LOG.error("the model cannot be served", extra={"fields": fields})
        server.should_exit = True

    metrics = Metrics(endpoint=settings.endpoint_name)
    worker = Worker(
        load=lambda: load_service(settings, metrics), queue_length=settings.queue_length, on_failure=give_up
    )
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(worker, metrics),
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_keep_alive=75,
        )
    )
    threading.Thread(target=_wait_for_signal, args=(server,), name="signals", daemon=True).start()
    worker.start()
    server.run()
    return 1 if failures or not server.started else 0


def _wait_for_signal(server: uvicorn.Server) -> None:
    while True:
        name = wait_for_stop_signal()
        _LOG.info("stopping", extra={"fields": {"signal": name}})
        server.should_exit = True
