"""A container that serves many models: each is downloaded and loaded when it is first asked for.

Source: docs.aws.amazon.com/sagemaker/latest/dg/mms-container-apis.html (the container's interface) and
invoke-multi-model-endpoint.html (what a caller meets). As there, an archive stays on disk while the container
runs, so one that is written anew under its name is not seen: a new model needs a new name.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local.containers.image import Image
from local.sagemaker.foundation import RoleSession
from local.sagemaker.hosting import ModelServer, ModelServerError, Reply, fetch_archive
from local.sagemaker.jobs import JobFailedError
from local.sagemaker.s3 import split

logger = logging.getLogger(__name__)

MULTI_MODEL = "MultiModel"
"""ContainerDefinition.Mode."""
_LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"
_LOAD_SECONDS = 360.0
"""A model that is not loaded when its first request has to be answered goes on loading for so long."""
_UNLOAD_SECONDS = 60.0
_BUSY_SECONDS = 0.5
"""How often to look whether a model that takes memory is still at work."""

_LOADED = (200, 409)
"""The container has the model: now, or it had it already."""
_NOT_LOADED = 404
_NO_MEMORY = 507


class TargetModelError(Exception):
    """The model that a request names cannot be had from S3."""


class ModelNotReadyError(Exception):
    """The model is still being downloaded or loaded."""


class ModelNotLoadedError(Exception):
    """The container refused to load the model; `reply` is what it said, None when it said nothing."""

    def __init__(self, message: str, reply: Reply | None = None) -> None:
        super().__init__(message)
        self.reply = reply


@dataclass(eq=False, kw_only=True)
class _Model:
    """One model of the container, from the first request for it until it is unloaded."""

    target: str
    settled: threading.Event = field(default_factory=threading.Event)
    """Set when it is loaded or cannot be."""
    failure: Exception | None = None
    requests: int = 0
    """How many requests it is answering now, or is about to."""
    used: float = 0.0

    @property
    def name(self) -> str:
        """What the container knows it by: opaque, as SageMaker's names of models are."""
        return hashlib.sha256(self.target.encode()).hexdigest()[:32]


class MultiModelServer(ModelServer):
    """One container of a multi-model endpoint's variant."""

    def __init__(self, *arguments: Any, container: Mapping[str, Any], **options: Any) -> None:
        options["environment"] = {"SAGEMAKER_MULTI_MODEL": "true", **options.get("environment", {})}
        super().__init__(*arguments, container=container, **options)
        self._prefix: str = container["ModelDataUrl"]
        self._session: RoleSession
        self._changed = threading.Condition()
        self._models: dict[str, _Model] = {}

    def check(self, image: Image) -> None:
        """The image must say that it can serve several models."""
        if image.config.labels.get(_LABEL) != "true":
            raise JobFailedError(
                f"Your Ecr Image {self.image_name} does not contain required {_LABEL}=true Docker label(s)."
            )

    def download(self, session: RoleSession) -> None:
        """Nothing yet: the container starts without a model."""
        self._session = session
        (self.base / "models").mkdir(parents=True, exist_ok=True)

    def loaded(self) -> list[str]:
        """The models that the container has now, by their names below the prefix."""
        with self._changed:
            return [
                model.target
                for model in self._models.values()
                if model.settled.is_set() and model.failure is None
            ]

    def invoke_model(
        self, target: str, body: bytes, *, seconds: float, headers: Mapping[str, str], **options: Any
    ) -> Reply:
        """POST /models/{name}/invoke, after the model has been loaded if it is not; `options` as of `invoke`.

        Raises:
            TargetModelError: there is no such archive, or the role may not read it.
            ModelNotReadyError: it was not loaded in time; it goes on loading.
            ModelNotLoadedError: the container would not load it.
            ModelServerError: no answer.
        """
        deadline = time.monotonic() + seconds
        sent = {**headers, "X-Amzn-SageMaker-Target-Model": target}
        for last in (False, True):
            model = self._take(target)
            try:
                if not model.settled.wait(max(0.0, deadline - time.monotonic())):
                    raise ModelNotReadyError(target)
                if model.failure is not None:
                    raise model.failure
                left = max(0.1, deadline - time.monotonic())
                path = f"/models/{model.name}/invoke"
                reply = self.invoke(body, seconds=left, headers=sent, path=path, **options)
            finally:
                self._give_back(model)
            if reply.status != _NOT_LOADED or last or self._has(model):
                break
            # The container lost it, with a worker that it replaced for example: load it again.
            self._forget(model)
        return reply

    def _take(self, target: str) -> _Model:
        """The model, which stays loaded until it is given back; it is being loaded if it was not."""
        with self._changed:
            model = self._models.get(target)
            if model is None:
                model = self._models[target] = _Model(target=target)
                threading.Thread(
                    target=self._load, args=(model,), name=f"loading {target}", daemon=True
                ).start()
            model.requests += 1
            return model

    def _give_back(self, model: _Model) -> None:
        with self._changed:
            model.requests -= 1
            model.used = time.monotonic()
            self._changed.notify_all()

    def _forget(self, model: _Model) -> None:
        with self._changed:
            if self._models.get(model.target) is model:
                del self._models[model.target]
            self._changed.notify_all()

    def _load(self, model: _Model) -> None:
        try:
            self._fetch(model)
            self._put_in_memory(model)
        except (TargetModelError, ModelNotLoadedError) as error:
            model.failure = error
        except Exception as error:
            logger.exception("%s: loading %s", self.name, model.target)
            model.failure = ModelNotLoadedError(f"the model could not be loaded: {error}")
        if model.failure is not None:
            self._forget(model)  # the next request tries again
        model.settled.set()

    def _fetch(self, model: _Model) -> None:
        folder = self.base / "models" / model.name / "model"
        if folder.exists():
            return
        bucket, prefix = split(self._prefix)
        key = f"{prefix.rstrip('/')}/{model.target.lstrip('/')}".lstrip("/")
        arriving = folder.with_name("arriving")
        shutil.rmtree(arriving, ignore_errors=True)
        try:
            fetch_archive(self._session, f"s3://{bucket}/{key}", arriving)
        except Exception as error:
            logger.info("%s: %s", self.name, key, exc_info=True)
            raise TargetModelError(
                f"Failed to download model data(bucket: {bucket}, key: {key}). Please ensure that there is "
                "an object located at the URL and that the role passed to CreateModel has permissions to "
                f"download the model. ({error})"
            ) from error
        arriving.rename(folder)

    def _put_in_memory(self, model: _Model) -> None:
        """POST /models; while the container has no memory for it, unload the one that was used least
        recently."""
        deadline = time.monotonic() + _LOAD_SECONDS
        url = str(self.base / "models" / model.name / "model")
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ModelNotLoadedError(f"the model was not loaded within {_LOAD_SECONDS:.0f} s")
            try:
                reply = self.request(
                    "POST", "/models", seconds=left, document={"model_name": model.name, "url": url}
                )
            except ModelServerError as error:
                raise ModelNotLoadedError(str(error)) from error
            if reply.status in _LOADED:
                return
            if reply.status != _NO_MEMORY or not self._make_room(model):
                raise ModelNotLoadedError(reply.body.decode(errors="replace"), reply)

    def _make_room(self, wanting: _Model) -> bool:
        """Unload the idle model that was used least recently; False when there is no other model at all."""
        with self._changed:
            others = [
                model
                for model in self._models.values()
                if model is not wanting and model.settled.is_set() and model.failure is None
            ]
            idle = [model for model in others if not model.requests]
            if not idle:
                # One that answers a request now may go afterwards.
                self._changed.wait(_BUSY_SECONDS)
                return bool(others)
            oldest = min(idle, key=lambda model: model.used)
            # From here on, a request for it is a new one: it waits for its load behind this unload.
            del self._models[oldest.target]
            reply = self.request("DELETE", f"/models/{oldest.name}", seconds=_UNLOAD_SECONDS)
        logger.info("%s: unloaded %s (%d)", self.name, oldest.target, reply.status)
        return True

    def _has(self, model: _Model) -> bool:
        """Whether the container itself says that it has the model."""
        return self.request("GET", f"/models/{model.name}", seconds=_UNLOAD_SECONDS).status == 200
