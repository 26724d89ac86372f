"""AWS HealthImaging: the operations of botocore's model, DICOMweb beside them, and what runs in the
background."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from local.healthimaging import throttling
from local.healthimaging.content import ContentStore
from local.healthimaging.context import Context
from local.healthimaging.copies import Copies
from local.healthimaging.database import Database
from local.healthimaging.datastores import Datastores
from local.healthimaging.deletes import Deletes
from local.healthimaging.dicomweb.router import DicomWebRouter
from local.healthimaging.identifiers import Arns
from local.healthimaging.image_sets import named_digests
from local.healthimaging.import_jobs import ImportJobs
from local.healthimaging.import_runner import ImportRunner
from local.healthimaging.outbox import Publisher
from local.healthimaging.reads import Reads
from local.healthimaging.resource_tags import ResourceTags
from local.healthimaging.search import Search
from local.healthimaging.throttling import Throttle
from local.healthimaging.updates import Updates
from local.service import Call, Caller, Cloud, ConditionKeys, Handler, Prompt

_WITHOUT_RESOURCE = frozenset({"CreateDatastore", "ListDatastores"})


class HealthImagingService:
    """The service "medical-imaging" (`local.service.Service`). Its state is below
    `{cloud.root}/healthimaging`."""

    name = "medical-imaging"

    def __init__(self, cloud: Cloud) -> None:
        # pydicom's remarks on files quote their values, and no patient's data may reach the log.
        warnings.filterwarnings("ignore", module="pydicom")
        logging.getLogger("pydicom").setLevel(logging.CRITICAL)
        folder = cloud.root / "healthimaging"
        database = Database(folder / "healthimaging.sqlite")
        self._arns = Arns(account_id=cloud.account_id, region=cloud.region)
        self._context = Context(
            cloud=cloud,
            database=database,
            content=ContentStore(folder / "content"),
            publisher=Publisher(database, cloud),
            arns=self._arns,
            clock=time.time,
        )
        limits = os.environ.get(throttling.VARIABLE, "")
        # Before any request: what an interrupted import left behind is told from what one is just storing.
        self._context.content.sweep(named_digests(database.reader()))
        self._throttle = Throttle(throttling.parse_limits(limits), time.monotonic)
        self._runner = ImportRunner(self._context)
        self._dicomweb = DicomWebRouter(self._context, self._throttle)
        self._handlers: dict[str, Handler] = {}
        reads = Reads(self._context)
        self._prompt = reads.prompt()
        for part in (
            Datastores(self._context, enforce_quota=limits == "aws"),
            ImportJobs(self._context, self._runner),
            Search(self._context),
            reads,
            Updates(self._context),
            Copies(self._context),
            Deletes(self._context),
            ResourceTags(self._context),
        ):
            self._handlers.update(
                {name: self._throttled(name, each) for name, each in part.handlers().items()}
            )

    def handlers(self) -> Mapping[str, Handler]:
        """All operations."""
        return self._handlers

    def prompt(self) -> Mapping[str, Prompt]:
        """Reads of one image set: what is asked for again and again, and is on disk as it is sent."""
        return self._prompt

    def resources(self, operation: str, params: Mapping[str, Any], caller: Caller) -> Sequence[str]:
        """The datastore, and for an operation on an image set that one too, as AWS asks for both."""
        if operation in _WITHOUT_RESOURCE:
            return ["*"]
        if "resourceArn" in params:
            return [params["resourceArn"]]
        datastore_id = params["datastoreId"]
        named = [params.get("imageSetId"), params.get("sourceImageSetId")]
        named.append(
            params.get("copyImageSetInformation", {}).get("destinationImageSet", {}).get("imageSetId")
        )
        return [
            self._arns.datastore(datastore_id),
            *(self._arns.image_set(datastore_id, image_set_id) for image_set_id in named if image_set_id),
        ]

    def condition_keys(self, operation: str, params: Mapping[str, Any]) -> ConditionKeys:
        """None: policies for this service use tags and the keys of every request only."""
        return {}

    def dicomweb(self, request: Request) -> Response:
        """Answer a DICOMweb request; its caller and body are in `request.state`."""
        return self._dicomweb.answer(request)

    def start(self) -> None:
        """Publish what is unpublished, go on with unfinished jobs."""
        self._context.publisher.start()
        self._runner.start()

    def stop(self) -> None:
        """Stop the threads."""
        self._runner.stop()
        self._context.publisher.stop()

    def _throttled(self, operation: str, handler: Handler) -> Handler:
        def limited(call: Call) -> Mapping[str, Any]:
            self._throttle.take(operation)
            return handler(call)

        return limited
