"""SageMaker's control plane: the parts put together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from local.containers import missing_images
from local.containers.process import ProcessEngine
from local.containers.store import ImageStore
from local.sagemaker.asynchronous import AsynchronousQueue
from local.sagemaker.components import InferenceComponents
from local.sagemaker.condition_keys import condition_keys
from local.sagemaker.endpoints import Endpoints
from local.sagemaker.foundation import Foundation
from local.sagemaker.models import Models
from local.sagemaker.names import Names, resource_arns
from local.sagemaker.packages import Registry
from local.sagemaker.pipelines import Pipelines
from local.sagemaker.processing import ProcessingJobs
from local.sagemaker.store import Store
from local.sagemaker.tags import Tags
from local.sagemaker.training import TrainingJobs
from local.sagemaker.transform import TransformJobs
from local.service import Caller, Cloud, ConditionKeys, Handler, Prompt

logger = logging.getLogger(__name__)

_JOIN_SECONDS = 15.0


class SageMakerService:
    """Training, processing, transform, registry, endpoints, inference components, pipelines, tags."""

    name = "sagemaker"

    def __init__(self, cloud: Cloud) -> None:
        missing_images.install()
        root = cloud.root / "sagemaker"
        self.foundation = Foundation(
            cloud=cloud,
            store=Store(root / "state.sqlite"),
            names=Names(account_id=cloud.account_id, region=cloud.region),
            images=ImageStore(cloud.root),
            engine=ProcessEngine(cloud.root),
            root=root,
        )
        self._registry = Registry(self.foundation)
        self._models = Models(self.foundation, self._registry)
        self.endpoints = Endpoints(self.foundation, self._models)
        self.components = InferenceComponents(self.foundation, self._models, self.endpoints)
        self.queue = AsynchronousQueue(self.foundation, self.endpoints)
        self._jobs = (
            TrainingJobs(self.foundation),
            ProcessingJobs(self.foundation),
            TransformJobs(self.foundation, self._models),
            Pipelines(self.foundation),
        )
        self._tags = Tags(self.foundation)

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler, of all parts."""
        handlers: dict[str, Handler] = {}
        parts = (self._registry, self._models, self.endpoints, self.components, self._tags)
        for part in (*self._jobs, *parts):
            handlers.update(part.handlers())
        return handlers

    def prompt(self) -> Mapping[str, Prompt]:
        """None: calls start containers, or ask other services."""
        return {}

    def resources(self, operation: str, params: Mapping[str, Any], caller: Caller) -> Sequence[str]:
        """ARNs that a call is authorised against."""
        return resource_arns(self.foundation.names, operation, params, self._registry.next_version)

    def condition_keys(self, operation: str, params: Mapping[str, Any]) -> ConditionKeys:
        """Subnets, keys, machines and tags that a request names."""
        return condition_keys(operation, params)

    def start(self) -> None:
        """After a restart: stop leftover containers, fail interrupted jobs, bring endpoints and queues up."""
        for name in self.foundation.engine.stop_leftovers():
            logger.warning("stopped the container %s that an earlier run left behind", name)
        for part in self._jobs:
            part.fail_interrupted()
        self.endpoints.start()
        self.components.start()
        self.queue.start()

    def stop(self) -> None:
        """Containers end, threads end; what runs is failed, endpoints come back at the next start."""
        self.foundation.closing.set()
        self.queue.stop()
        self.components.stop()
        self.endpoints.stop()
        for part in self._jobs:
            part.join(_JOIN_SECONDS)
