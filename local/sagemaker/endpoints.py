"""Endpoints: their containers come up, are replaced, come back after a restart, and go."""

from __future__ import annotations

import functools
import logging
import random
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from local.sagemaker.background import BackgroundWork
from local.sagemaker.errors import not_found, validation
from local.sagemaker.foundation import Foundation, refuse, shown, without_tags
from local.sagemaker.hosting import ModelServer
from local.sagemaker.jobs import JobFailedError
from local.sagemaker.listing import page, select
from local.sagemaker.models import Models
from local.sagemaker.store import Document, now
from local.sagemaker.variants import hosts_components, production_variant, refuse_another_scale, server_of
from local.service import Call, Handler

logger = logging.getLogger(__name__)

KIND = "endpoint"
_SUMMARY = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
_DRAIN_SECONDS = 60.0
"""How long a container that is replaced may finish what it works on."""
_RESTART_PAUSE_SECONDS = 2.0
_RENEWAL = timedelta(hours=1)
"""A container is replaced this long before the credentials end that it was started with."""

Servers = dict[str, ModelServer]
"""Production variant -> its container."""


class Endpoints:
    """CreateEndpoint and its kin."""

    def __init__(self, foundation: Foundation, models: Models) -> None:
        self._foundation = foundation
        self._models = models
        self._servers: dict[str, Servers] = {}
        self._starting: dict[str, list[ModelServer]] = {}
        self._lock = threading.RLock()
        self._work = BackgroundWork("endpoint work")
        self.on_delete: Callable[[str], None] = lambda name: None
        """Called when an endpoint goes: its asynchronous requests go too."""
        self.may_delete: Callable[[Document], None] = lambda endpoint: None
        """Raises while an endpoint cannot go: inference components are on it."""

    def handlers(self) -> Mapping[str, Handler]:
        """Operation -> handler."""
        return {
            "CreateEndpoint": self.create,
            "DescribeEndpoint": lambda call: shown(self.find(call.params["EndpointName"])),
            "ListEndpoints": self.list_endpoints,
            "UpdateEndpoint": self.update,
            "DeleteEndpoint": self.delete,
        }

    def find(self, name: str) -> Document:
        """An endpoint's document."""
        document = self._foundation.store.get(KIND, name)
        if document is None:
            raise not_found("endpoint", self._foundation.names.arn(KIND, name))
        return document

    def server(self, name: str, variant: str | None = None) -> ModelServer | None:
        """A running container: the wanted variant's, or one by the weights; None while there is none."""
        with self._lock:
            servers = dict(self._servers.get(name, {}))
        if not servers:
            return None
        if variant is not None:
            if variant not in servers:
                raise validation(f"Variant {variant} of endpoint {name} not found.")
            return servers[variant]
        weights = {
            entry["VariantName"]: entry["CurrentWeight"]
            for entry in self.find(name).get("ProductionVariants", [])
            if entry["VariantName"] in servers
        }
        chosen = list(servers) if not any(weights.values()) else list(weights)
        shares = [weights.get(entry, 0.0) if any(weights.values()) else 1.0 for entry in chosen]
        return servers[random.choices(chosen, shares)[0]]  # noqa: S311 - no secret

    def create(self, call: Call) -> Mapping[str, Any]:
        """Start the containers of a configuration."""
        params = call.params
        name = params["EndpointName"]
        arn = self._foundation.names.arn(KIND, name)
        self._foundation.may_tag(call, arn)
        snapshot = self._snapshot(params["EndpointConfigName"])
        moment = now()
        document = {
            **without_tags(params),
            "EndpointArn": arn,
            "EndpointStatus": "Creating",
            "CreationTime": moment,
            "LastModifiedTime": moment,
            "_Snapshot": snapshot,
            "_Id": uuid.uuid4().hex,
        }
        if "DeploymentConfig" in params:
            document["LastDeploymentConfig"] = document.pop("DeploymentConfig")
        if not self._foundation.store.add(KIND, name, document):
            raise validation(f'Cannot create already existing endpoint "{arn}".')
        self._foundation.tag(call, arn)
        self._work.start(lambda: self._bring_up(document, snapshot))
        return {"EndpointArn": arn}

    def list_endpoints(self, call: Call) -> Mapping[str, Any]:
        """Filtered, sorted, paged."""
        chosen = select(
            self._foundation.store.all(KIND), call.params, name="EndpointName", status="EndpointStatus"
        )
        return page(chosen, call.params, into="Endpoints", members=_SUMMARY)

    def update(self, call: Call) -> Mapping[str, Any]:
        """Start the new configuration's containers; the old ones stop when the new ones are healthy."""
        params = call.params
        refuse(params, ("ExcludeRetainedVariantProperties",))
        name = params["EndpointName"]
        snapshot = self._snapshot(params["EndpointConfigName"])
        with self._foundation.store.transaction():
            document = self.find(name)
            if document["EndpointStatus"] != "InService":
                raise validation(
                    f"Cannot update endpoint {name} with status {document['EndpointStatus']}; "
                    "it must be InService."
                )
            before = document["_Snapshot"]["Config"]
            if hosts_components(before) != hosts_components(snapshot["Config"]):
                raise validation(
                    f"Endpoint {name} cannot be updated from models to inference components or back."
                )
            if params.get("RetainAllVariantProperties"):
                refuse_another_scale(before, snapshot["Config"])
            self._set(name, "Updating", FailureReason=None)
        self._work.start(lambda: self._replace(document, snapshot, params))
        return {"EndpointArn": document["EndpointArn"]}

    def delete(self, call: Call) -> Mapping[str, Any]:
        """Stop the containers; the endpoint is gone when they are."""
        name = call.params["EndpointName"]
        self.may_delete(self.find(name))
        self._set(name, "Deleting")
        self._work.start(lambda: self._remove(name))
        return {}

    def start(self) -> None:
        """Bring back what ran before the cloud stopped, and finish what was being deleted."""
        shutil.rmtree(self._foundation.root / KIND, ignore_errors=True)
        for document in self._foundation.store.all(KIND):
            name, status = document["EndpointName"], document["EndpointStatus"]
            if status == "Deleting":
                self._remove(name)
                continue
            if status == "Failed":
                continue
            reason = None
            if status == "Updating":
                reason = (
                    "The local cloud was stopped during the update; the old configuration runs. Update again."
                )
            if status != "Creating":
                self._set(name, "SystemUpdating")
            self._work.start(
                functools.partial(self._bring_up, document, document["_Snapshot"], reason=reason)
            )
        threading.Thread(target=self._supervise, name="endpoints", daemon=True).start()

    def stop(self) -> None:
        """Stop all containers at the end of the cloud; the documents stay as they are."""
        with self._lock:
            servers = [server for group in self._servers.values() for server in group.values()]
            self._servers.clear()
        for server in servers:
            server.stop(drain_seconds=0)
        self._work.join(10.0)

    def _snapshot(self, config_name: str) -> Document:
        """The configuration and its models as they are now: later deletes do not touch a running endpoint."""
        config = self._models.config(config_name)
        models = {
            variant["VariantName"]: self._models.model(variant["ModelName"])
            for variant in config["ProductionVariants"]
            if "ModelName" in variant
        }
        return {"Config": config, "Models": models}

    def _bring_up(self, endpoint: Document, snapshot: Document, *, reason: str | None = None) -> None:
        try:
            servers = self._start_servers(endpoint["EndpointName"], snapshot)
        except JobFailedError as error:
            if not self._foundation.closing.is_set():
                self._fail(endpoint, error.reason)
            return
        self._install(endpoint, servers, snapshot, FailureReason=reason)

    def _replace(self, endpoint: Document, snapshot: Document, params: Mapping[str, Any]) -> None:
        name = endpoint["EndpointName"]
        try:
            servers = self._start_servers(name, snapshot)
        except JobFailedError as error:
            # The old containers never stopped: that is the rollback.
            if not self._foundation.closing.is_set():
                logger.warning("update of endpoint %s failed: %s", name, error.reason)
                self._set(name, "InService", of=endpoint, FailureReason=error.reason)
            return
        with self._lock:
            old = self._servers.get(name, {})
        members = {"LastDeploymentConfig": params["DeploymentConfig"]} if "DeploymentConfig" in params else {}
        self._install(endpoint, servers, snapshot, FailureReason=None, **members)
        for server in old.values():
            server.stop(drain_seconds=_DRAIN_SECONDS)

    def _start_servers(self, name: str, snapshot: Document) -> Servers:
        servers: Servers = {}
        try:
            for variant in snapshot["Config"]["ProductionVariants"]:
                if "ModelName" not in variant:
                    continue  # inference components bring their own containers
                servers[variant["VariantName"]] = server = self._new_server(name, variant, snapshot)
                with self._lock:
                    self._starting.setdefault(name, []).append(server)
                try:
                    server.start()
                finally:
                    with self._lock:
                        self._starting[name].remove(server)
        except Exception as error:
            for server in servers.values():
                server.stop(drain_seconds=0)
            if isinstance(error, JobFailedError):
                raise
            logger.exception("endpoint %s", name)
            raise JobFailedError(f"InternalServerError: {error}") from error
        return servers

    def _new_server(self, name: str, variant: Mapping[str, Any], snapshot: Document) -> ModelServer:
        model = snapshot["Models"][variant["VariantName"]]
        return server_of(self._foundation, name, variant, model)

    def _install(self, endpoint: Document, servers: Servers, snapshot: Document, **members: Any) -> None:
        name, config = endpoint["EndpointName"], snapshot["Config"]
        with self._lock:
            document = self._foundation.store.get(KIND, name)
            gone = (
                document is None
                or not _same(document, endpoint)
                or document["EndpointStatus"] == "Deleting"
                or self._foundation.closing.is_set()
            )
            if not gone:
                self._servers[name] = servers
        if gone:
            for server in servers.values():
                server.stop(drain_seconds=0)
            return
        variants = [
            production_variant(variant, servers.get(variant["VariantName"]))
            for variant in config["ProductionVariants"]
        ]
        if "AsyncInferenceConfig" in config:
            members["AsyncInferenceConfig"] = config["AsyncInferenceConfig"]
        self._set(
            name,
            "InService",
            of=endpoint,
            EndpointConfigName=config["EndpointConfigName"],
            ProductionVariants=variants,
            _Snapshot=snapshot,
            **members,
        )

    def _fail(self, endpoint: Document, reason: str) -> None:
        logger.warning("endpoint %s failed: %s", endpoint["EndpointName"], reason)
        self._set(endpoint["EndpointName"], "Failed", of=endpoint, FailureReason=reason)

    def _remove(self, name: str) -> None:
        with self._lock:
            servers = self._servers.pop(name, {})
            starting = list(self._starting.get(name, ()))
        for server in starting:
            server.abandon()
        for server in servers.values():
            server.stop(drain_seconds=0)
        shutil.rmtree(self._foundation.root / KIND / name, ignore_errors=True)
        document = self._foundation.store.get(KIND, name)
        self.on_delete(name)
        if document is not None:
            self._foundation.store.delete(KIND, name)
            self._foundation.untag(document["EndpointArn"])

    def _set(self, name: str, status: str, *, of: Document | None = None, **members: Any) -> None:
        """Change the document; with `of` only if that endpoint has not been replaced by one of its name."""

        def change(document: Document) -> None:
            if document["EndpointStatus"] == "Deleting" or (of is not None and not _same(document, of)):
                return  # nothing brings it back
            document.update(members, EndpointStatus=status, LastModifiedTime=now())
            for member in [member for member, value in members.items() if value is None]:
                document.pop(member, None)

        document = self._foundation.store.change(KIND, name, change)
        if document is not None:
            detail = {
                "EndpointName": name,
                "EndpointArn": document["EndpointArn"],
                "EndpointConfigName": document["EndpointConfigName"],
                "EndpointStatus": document["EndpointStatus"],
            }
            self._foundation.publish("SageMaker Endpoint State Change", document["EndpointArn"], detail)

    def _supervise(self) -> None:
        """Start a container that ended by itself again, and one anew whose credentials are about to end."""
        while not self._foundation.closing.wait(_RESTART_PAUSE_SECONDS):
            soon = datetime.now(UTC) + _RENEWAL
            with self._lock:
                due = [
                    (name, variant, server)
                    for name, servers in self._servers.items()
                    for variant, server in servers.items()
                    if not server.alive() or (server.expiration is not None and server.expiration < soon)
                ]
            for name, variant, server in due:
                try:
                    self._renew(name, variant, server)
                except Exception:
                    # The other endpoints still need their supervisor, and this one gets another try.
                    logger.exception("the container of endpoint %s could not be renewed", name)

    def _renew(self, name: str, variant: str, old: ModelServer) -> None:
        document = self._foundation.store.get(KIND, name)
        if document is None or document["EndpointStatus"] != "InService":
            return
        dead = not old.alive()
        if dead:
            logger.warning(
                "the container of endpoint %s ended; its last output:\n%s", name, old.last_output()
            )
            old.stop(drain_seconds=0)
        snapshot = document["_Snapshot"]
        entry = next(v for v in snapshot["Config"]["ProductionVariants"] if v["VariantName"] == variant)
        server = self._new_server(name, entry, snapshot)
        try:
            server.start()
        except JobFailedError as error:
            logger.warning("a new container of endpoint %s failed: %s", name, error.reason)
            if dead and not self._foundation.closing.is_set():
                self._give_up(document, error.reason)
            return
        with self._lock:
            wanted = self._servers.get(name, {}).get(variant) is old
            if wanted:
                self._servers[name][variant] = server
        (old if wanted else server).stop(drain_seconds=_DRAIN_SECONDS)

    def _give_up(self, endpoint: Document, reason: str) -> None:
        with self._lock:
            servers = self._servers.pop(endpoint["EndpointName"], {})
        for server in servers.values():
            server.stop(drain_seconds=0)
        self._fail(endpoint, reason)


def _same(document: Document, endpoint: Document) -> bool:
    """Whether both are one endpoint, not one that was made anew under the name."""
    return document.get("_Id") == endpoint.get("_Id")
