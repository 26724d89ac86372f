"""The serving process from start to drained end."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from runtime.errors import StoppingError, report
from runtime.logs import places
from runtime.metrics import Metrics
from runtime.serving.memory import MIB, SHARE, memory_limit
from runtime.serving.models import Models
from runtime.serving.multi_model import create_multi_model_app
from runtime.serving.served_model import ServedModel, Service
from runtime.serving.server import create_app
from runtime.serving.service import import_frameworks, load_service
from runtime.serving.stop_signals import wait_for_stop_signal
from runtime.serving.worker import Worker
from runtime.settings import Settings

_LOG = logging.getLogger(__name__)

_LEAVE_SECONDS = 3
"""For answers on their way and connections that are idle, once everything is answered."""


class _Process:
    """The parts of the process that its end has to do with."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(endpoint=settings.endpoint_name, of_models=settings.multi_model)
        self.worker = Worker()
        self.worker.start()
        self.failures: list[BaseException] = []
        model = None if settings.multi_model else self._model()
        self.server = uvicorn.Server(
            uvicorn.Config(
                self._app_of_many() if model is None else create_app(model, self.worker, self.metrics),
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_LEAVE_SECONDS,
            )
        )
        if model is not None:
            model.loaded.add_done_callback(self._loaded)

    def _load(self, directory: Path) -> Service:
        return load_service(self.settings, self.metrics, directory)

    def _model(self) -> ServedModel:
        return ServedModel(
            self.worker,
            load=lambda: self._load(self.settings.model_directory),
            queue_length=self.settings.queue_length,
        )

    def _app_of_many(self) -> FastAPI:
        mebibytes = self.settings.model_memory_mib or int(memory_limit() * SHARE) // MIB
        _LOG.info("models are loaded on request", extra={"fields": {"budgetMebibytes": mebibytes}})
        models = Models(
            self.worker,
            load=self._load,
            prepare=import_frameworks,
            directory=self.settings.models_directory,
            budget_bytes=mebibytes * MIB,
            queue_length=self.settings.queue_length,
        )
        return create_multi_model_app(models, self.worker, self.metrics)

    def _loaded(self, loaded: Future[Any]) -> None:
        error = loaded.exception()
        if error is None or isinstance(error, StoppingError):
            return
        self.failures.append(error)
        description = report(error)
        fields: dict[str, object] = {"type": description.type, "detail": description.message}
        if not description.expected:
            fields["places"] = places(error.__traceback__)
        _LOG.error("the model cannot be served", extra={"fields": fields})
        self.server.should_exit = True

    def stop_on_signal(self) -> None:
        """Wait for a signal; answer what was accepted; end the server."""
        name = wait_for_stop_signal()
        seconds = self.settings.drain_seconds
        _LOG.info("stopping", extra={"fields": {"signal": name, "secondsToDrain": seconds}})
        if not self.worker.drain(seconds=seconds):
            _LOG.warning("requests were refused that could not be answered in time")
        self.server.should_exit = True


def serve(settings: Settings) -> int:
    """Serve until told to stop; return the process's exit status.

    0 after SIGTERM or SIGINT; 1 when the model cannot be loaded.

    What was accepted before the signal is answered, whether it runs or waits; what comes after it gets 503.
    Whoever is not answered after ``settings.drain_seconds`` gets 503 with ``Retry-After``, too, instead of a
    connection that breaks when SageMaker kills the container (30 s after the signal). If the work on such a
    request is done all the same, its result is in the archive, where the repeated request finds it.

    The signals must be blocked (`runtime.serving.stop_signals`) before this module is imported.
    """
    process = _Process(settings)
    threading.Thread(target=process.stop_on_signal, name="signals", daemon=True).start()
    process.server.run()
    return 1 if process.failures or not process.server.started else 0
