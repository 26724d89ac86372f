"""Inference components: models that share the machines of one endpoint, each with copies of its own.

Source: docs.aws.amazon.com/sagemaker/latest/dg/realtime-endpoints-deploy-models.html. A copy is a container;
what a component asks of a machine (memory, processors, accelerators) is kept and reserves nothing.
"""

from __future__ import annotations

import functools
import logging
import shutil
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from local.sagemaker.background import BackgroundWork
from local.sagemaker.component_specification import container_of, described
from local.sagemaker.endpoints import Endpoints
from local.sagemaker.errors import not_found, validation
from local.sagemaker.foundation import Foundation, refuse, shown
from local.sagemaker.hosting import DEFAULT_STARTUP_SECONDS, ModelServer
from local.sagemaker.jobs import JobFailedError
from local.sagemaker.listing import page, select
from local.sagemaker.models import Models
from local.sagemaker.store import Document, now
from local.sagemaker.variants import hosts_components
from local.service import Call, Handler

logger = logging.getLogger(__name__)

KIND = "inference-component"
_SUMMARY = (
    "InferenceComponentName",
    "InferenceComponentArn",
    "EndpointName",
    "EndpointArn",
    "VariantName",
    "InferenceComponentStatus",
    "CreationTime",
    "LastModifiedTime",
)
_DRAIN_SECONDS = 60.0
"""How long a copy that goes may finish what it works on."""
_SUPERVISION_SECONDS = 2.0
_RENEWAL = timedelta(hours=1)
"""A container is replaced this long before the credentials end that it was started with."""


class InferenceComponents:
    """CreateInferenceComponent and its kin."""

    def __init__(self, foundation: Foundation, models: Models, endpoints: Endpoints) -> None:
        self._foundation = foundation
        self._models = models
        self._endpoints = endpoints
        self._copies: dict[str, list[ModelServer]] = {}
        self._starting: dict[str, list[ModelServer]] = {}
        self._lock = threading.RLock()
        self._work = BackgroundWork("inference component work")
        endpoints.may_delete = self._refuse_deletion

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return {
            "CreateInferenceComponent": self.create,
            "DescribeInferenceComponent": self.describe,
            "ListInferenceComponents": self.list_components,
            "UpdateInferenceComponent": self.update,
            "UpdateInferenceComponentRuntimeConfig": self.scale,
            "DeleteInferenceComponent": self.delete,
        }

    def find(self, name: str) -> Document:
        """A component's document."""
        document = self._foundation.store.get(KIND, name)
        if document is None:
            raise not_found("inference component", self._foundation.names.arn(KIND, name))
        return document

    def server(self, name: str) -> ModelServer | None:
        """The copy that has least to do; None while there is none."""
        with self._lock:
            copies = [copy for copy in self._copies.get(name, ()) if copy.alive()]
        return min(copies, key=lambda copy: copy.busy, default=None)

    def create(self, call: Call) -> Mapping[str, Any]:
        """Start the copies of a model on an endpoint."""
        params = call.params
        refuse(params, ("Specifications",))
        for member in ("VariantName", "Specification", "RuntimeConfig"):
            if member not in params:
                raise validation(f"{member} is required.")
        name = params["InferenceComponentName"]
        endpoint = self._endpoints.find(params["EndpointName"])
        config = endpoint["_Snapshot"]["Config"]
        if not hosts_components(config):
            raise validation(
                f"Endpoint {params['EndpointName']} serves models of its own, no inference components."
            )
        if params["VariantName"] not in [entry["VariantName"] for entry in config["ProductionVariants"]]:
            raise validation(
                f"Variant {params['VariantName']} of endpoint {params['EndpointName']} not found."
            )
        if endpoint["EndpointStatus"] != "InService":
            raise validation(
                f"Endpoint {params['EndpointName']} is {endpoint['EndpointStatus']}; it must be InService."
            )
        if not params["RuntimeConfig"]["CopyCount"]:
            raise validation("RuntimeConfig.CopyCount of a new inference component must be larger than 0.")
        container = container_of(params["Specification"], self._models)
        arn = self._foundation.names.arn(KIND, name)
        self._foundation.may_tag(call, arn)
        moment = now()
        document: Document = {
            "InferenceComponentName": name,
            "InferenceComponentArn": arn,
            "EndpointName": endpoint["EndpointName"],
            "EndpointArn": endpoint["EndpointArn"],
            "VariantName": params["VariantName"],
            "InferenceComponentStatus": "Creating",
            "CreationTime": moment,
            "LastModifiedTime": moment,
            "_Specification": params["Specification"],
            "_Container": container,
            "_Copies": params["RuntimeConfig"]["CopyCount"],
            "_RoleArn": config["ExecutionRoleArn"],
            "_Id": uuid.uuid4().hex,
        }
        if not self._foundation.store.add(KIND, name, document):
            raise validation(f'Cannot create already existing inference component "{arn}".')
        self._foundation.tag(call, arn)
        self._work.start(lambda: self._bring_up(document))
        return {"InferenceComponentArn": arn}

    def describe(self, call: Call) -> Mapping[str, Any]:
        """The component as it stands."""
        document = self.find(call.params["InferenceComponentName"])
        copies = self._copies.get(document["InferenceComponentName"], [])
        specification = described(document["_Specification"], copies[0].image_digest if copies else "")
        counts = {"DesiredCopyCount": document["_Copies"], "CurrentCopyCount": len(copies)}
        return shown(document) | {"Specification": specification, "RuntimeConfig": counts}

    def list_components(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        params = call.params
        documents = [
            document
            for document in self._foundation.store.all(KIND)
            if params.get("EndpointNameEquals", document["EndpointName"]) == document["EndpointName"]
            and params.get("VariantNameEquals", document["VariantName"]) == document["VariantName"]
        ]
        chosen = select(documents, params, name="InferenceComponentName", status="InferenceComponentStatus")
        return page(chosen, params, into="InferenceComponents", members=_SUMMARY)

    def update(self, call: Call) -> Mapping[str, Any]:
        """Start copies of another model; the old ones stop when the new ones are healthy."""
        params = call.params
        refuse(params, ("Specifications",))
        changes: dict[str, Any] = {}
        if "Specification" in params:
            changes["_Specification"] = params["Specification"]
            changes["_Container"] = container_of(params["Specification"], self._models)
        if "RuntimeConfig" in params:
            changes["_Copies"] = params["RuntimeConfig"]["CopyCount"]
        if "DeploymentConfig" in params:
            changes["LastDeploymentConfig"] = params["DeploymentConfig"]
        return self._change(params["InferenceComponentName"], changes)

    def scale(self, call: Call) -> Mapping[str, Any]:
        """More copies, or fewer."""
        params = call.params
        return self._change(
            params["InferenceComponentName"], {"_Copies": params["DesiredRuntimeConfig"]["CopyCount"]}
        )

    def delete(self, call: Call) -> Mapping[str, Any]:
        """Stop the copies; the component is gone when they are."""
        name = call.params["InferenceComponentName"]
        self.find(name)
        self._set(name, "Deleting")
        self._work.start(lambda: self._remove(name))
        return {}

    def start(self) -> None:
        """Bring back what ran before the cloud stopped, and finish what was being deleted."""
        shutil.rmtree(self._foundation.root / KIND, ignore_errors=True)
        for document in self._foundation.store.all(KIND):
            name, status = document["InferenceComponentName"], document["InferenceComponentStatus"]
            if status == "Deleting":
                self._remove(name)
            elif status != "Failed":
                if status != "Creating":
                    self._set(name, "Updating")
                self._work.start(functools.partial(self._bring_up, document))
        threading.Thread(target=self._supervise, name="inference components", daemon=True).start()

    def stop(self) -> None:
        """Stop all containers at the end of the cloud; the documents stay as they are."""
        with self._lock:
            servers = [server for copies in self._copies.values() for server in copies]
            self._copies.clear()
        for server in servers:
            server.stop(drain_seconds=0)
        self._work.join(10.0)

    def _change(self, name: str, changes: dict[str, Any]) -> Mapping[str, Any]:
        with self._foundation.store.transaction():
            document = self.find(name)
            if document["InferenceComponentStatus"] not in ("InService", "Failed"):
                raise validation(
                    f"Cannot update inference component {name} with status "
                    f"{document['InferenceComponentStatus']}."
                )
            self._set(name, "Updating", FailureReason=None)
        self._work.start(lambda: self._replace(document, changes))
        return {"InferenceComponentArn": document["InferenceComponentArn"]}

    def _bring_up(self, document: Document) -> None:
        try:
            copies = self._start_copies(document, document["_Copies"])
        except JobFailedError as error:
            if not self._foundation.closing.is_set():
                self._set(
                    document["InferenceComponentName"], "Failed", of=document, FailureReason=error.reason
                )
            return
        self._install(document, copies)

    def _replace(self, before: Document, changes: Mapping[str, Any]) -> None:
        """Bring the copies to what is wanted; when a new one cannot start, what ran goes on."""
        name = before["InferenceComponentName"]
        after = before | dict(changes)
        with self._lock:
            old = list(self._copies.get(name, ()))
        same = after["_Container"] == before["_Container"]
        kept = old[: after["_Copies"]] if same else []
        try:
            added = self._start_copies(after, after["_Copies"] - len(kept))
        except JobFailedError as error:
            if not self._foundation.closing.is_set():
                logger.warning("update of inference component %s failed: %s", name, error.reason)
                status = "InService" if old else "Failed"
                self._set(name, status, of=before, FailureReason=error.reason)
            return
        self._install(before, [*kept, *added], **changes)
        for server in old:
            if server not in kept:
                server.stop(drain_seconds=_DRAIN_SECONDS)

    def _start_copies(self, document: Document, count: int) -> list[ModelServer]:
        name = document["InferenceComponentName"]
        copies: list[ModelServer] = []
        try:
            for _ in range(count):
                server = self._new_copy(document)
                copies.append(server)
                with self._lock:
                    self._starting.setdefault(name, []).append(server)
                try:
                    server.start()
                finally:
                    with self._lock:
                        self._starting[name].remove(server)
        except Exception as error:
            for server in copies:
                server.stop(drain_seconds=0)
            if isinstance(error, JobFailedError):
                raise
            logger.exception("inference component %s", name)
            raise JobFailedError(f"InternalServerError: {error}") from error
        return copies

    def _new_copy(self, document: Document) -> ModelServer:
        name, variant = document["InferenceComponentName"], document["VariantName"]
        copy = f"i-{uuid.uuid4().hex[:17]}"
        startup = document["_Specification"].get("StartupParameters", {})
        return ModelServer(
            self._foundation,
            name=f"inference component {name}",
            variant=variant,
            role_arn=document["_RoleArn"],
            container=document["_Container"],
            folder=self._foundation.root / KIND / name / copy,
            log_group=f"/aws/sagemaker/InferenceComponents/{name}",
            log_stream=f"{variant}/{copy}",
            startup_seconds=float(
                startup.get("ContainerStartupHealthCheckTimeoutInSeconds", DEFAULT_STARTUP_SECONDS)
            ),
        )

    def _install(self, before: Document, copies: list[ModelServer], **members: Any) -> None:
        name = before["InferenceComponentName"]
        with self._lock:
            document = self._foundation.store.get(KIND, name)
            gone = (
                document is None
                or document["_Id"] != before["_Id"]
                or document["InferenceComponentStatus"] == "Deleting"
                or self._foundation.closing.is_set()
            )
            if not gone:
                self._copies[name] = copies
        if gone:
            for server in copies:
                server.stop(drain_seconds=0)
            return
        self._set(name, "InService", of=before, FailureReason=None, **members)

    def _remove(self, name: str) -> None:
        with self._lock:
            copies = self._copies.pop(name, [])
            starting = list(self._starting.get(name, ()))
        for server in starting:
            server.abandon()
        for server in copies:
            server.stop(drain_seconds=0)
        shutil.rmtree(self._foundation.root / KIND / name, ignore_errors=True)
        document = self._foundation.store.get(KIND, name)
        if document is not None:
            self._foundation.store.delete(KIND, name)
            self._foundation.untag(document["InferenceComponentArn"])

    def _set(self, name: str, status: str, *, of: Document | None = None, **members: Any) -> None:
        """Change the document; with `of` only if that component has not been replaced by one of its name."""

        def change(document: Document) -> None:
            if document["InferenceComponentStatus"] == "Deleting":
                return  # nothing brings it back
            if of is not None and document["_Id"] != of["_Id"]:
                return
            document.update(members, InferenceComponentStatus=status, LastModifiedTime=now())
            for member in [member for member, value in members.items() if value is None]:
                document.pop(member, None)

        self._foundation.store.change(KIND, name, change)

    def _supervise(self) -> None:
        """Start a copy that ended by itself again, and one anew whose credentials are about to end."""
        while not self._foundation.closing.wait(_SUPERVISION_SECONDS):
            soon = datetime.now(UTC) + _RENEWAL
            with self._lock:
                due = [
                    (name, server)
                    for name, copies in self._copies.items()
                    for server in copies
                    if not server.alive() or (server.expiration is not None and server.expiration < soon)
                ]
            for name, server in due:
                try:
                    self._renew(name, server)
                except Exception:
                    # The other components still need their supervisor, and this one gets another try.
                    logger.exception("a copy of inference component %s could not be renewed", name)

    def _renew(self, name: str, old: ModelServer) -> None:
        document = self._foundation.store.get(KIND, name)
        if document is None or document["InferenceComponentStatus"] != "InService":
            return
        dead = not old.alive()
        if dead:
            logger.warning("a copy of inference component %s ended:\n%s", name, old.last_output())
            old.stop(drain_seconds=0)
        try:
            (new,) = self._start_copies(document, 1)
        except JobFailedError as error:
            logger.warning("a new copy of inference component %s failed: %s", name, error.reason)
            if dead and not self._foundation.closing.is_set():
                with self._lock:
                    self._copies[name] = [copy for copy in self._copies.get(name, []) if copy is not old]
                    left = self._copies[name]
                status = "InService" if left else "Failed"
                self._set(name, status, of=document, FailureReason=error.reason)
            return
        with self._lock:
            copies = self._copies.get(name, [])
            wanted = old in copies
            if wanted:
                copies[copies.index(old)] = new
        (old if wanted else new).stop(drain_seconds=_DRAIN_SECONDS)

    def _refuse_deletion(self, endpoint: Document) -> None:
        name = endpoint["EndpointName"]
        there = [
            document["InferenceComponentName"]
            for document in self._foundation.store.all(KIND)
            if document["EndpointName"] == name
        ]
        if there:
            raise validation(
                f"Cannot delete endpoint {name} while inference components are on it: {', '.join(there)}."
            )
