"""The local cloud as one ASGI app, and as a service sees it: MiniStack with our services around it."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local import alarms, athena, embedded_metrics, events, function_logs, identity, request_resources
from local.cloudformation import Unrecorded, install_resource_types, recorded_only, settle_interrupted
from local.configuration import ACCESS_KEY_ID, ACCOUNT_ID, HOST, REGION, SECRET_ACCESS_KEY, Configuration
from local.event_journal import EventJournal
from local.gateway import App, Gateway, Receive, Scope, Send
from local.healthimaging import HealthImagingService
from local.persistence import Persistence, restore_sessions
from local.sagemaker import SageMakerRuntimeService, SageMakerService
from local.service import Caller, ConditionKeys, Credentials, Service

logger = logging.getLogger(__name__)


class LocalCloud:
    """Composes the services and answers what they ask (`local.service.Cloud`).

    `local.configuration.configure` must have run before: MiniStack reads its settings when it is imported.
    """

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.root: Path = configuration.root
        self.endpoint_url = configuration.endpoint_url
        self.account_id = ACCOUNT_ID
        self.region = REGION
        self._clients: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._restored = asyncio.Event()
        healthimaging = HealthImagingService(self)
        sagemaker = SageMakerService(self)
        self.services: dict[str, Service] = {
            service.name: service
            for service in (healthimaging, sagemaker, SageMakerRuntimeService(sagemaker))
        }
        self._unrecorded = Unrecorded(configuration.root / "unrecorded.json")
        self._resource_types = install_resource_types(self, self.services, self._unrecorded)
        identity.install()
        request_resources.install()
        athena.install(self)
        events.install()
        function_logs.install()
        embedded_metrics.install()
        alarms.install()
        self._journal = EventJournal(configuration.root / "events.jsonl")
        self._persistence = Persistence(
            configuration.state_folder,
            covering=self._journal.covered,
            covering_stacks=self._unrecorded.covered,
        )
        from ministack.app import app as ministack

        self._ministack: App = ministack
        self._gateway = Gateway(
            inner=ministack,
            services=self.services,
            dicomweb=healthimaging.dicomweb,
            status=self.status,
            mutated=self._persistence.request_save,
        )

    # What a service may ask.

    def client(self, service: str, *, credentials: Credentials | None = None) -> Any:
        if credentials is not None:
            return self._make_client(
                service,
                credentials.access_key_id,
                credentials.secret_access_key,
                credentials.session_token,
            )
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._make_client(service, ACCESS_KEY_ID, SECRET_ACCESS_KEY, None)
            return self._clients[service]

    def assume(
        self, *, role_arn: str, principal: str, session_name: str, source_arn: str | None = None
    ) -> Credentials:
        credentials = identity.assume(
            role_arn=role_arn,
            principal=principal,
            session_name=session_name,
            account_id=self.account_id,
            region=self.region,
            source_arn=source_arn,
        )
        self._persistence.request_save()
        return credentials

    def authorize(
        self,
        *,
        caller: Caller,
        action: str,
        resources: Sequence[str],
        context: ConditionKeys | None = None,
    ) -> None:
        identity.authorize(caller=caller, action=action, resources=resources, context=context)

    def publish(
        self, *, source: str, detail_type: str, detail: Mapping[str, Any], resources: Sequence[str]
    ) -> None:
        event: dict[str, Any] = {
            "source": source,
            "detail_type": detail_type,
            "detail": dict(detail),
            "resources": list(resources),
        }
        with self._journal.keeping(event):
            events.publish(**event, account_id=self.account_id, region=self.region)
        self._persistence.request_save()

    # What the command and the server ask.

    def status(self) -> dict[str, Any]:
        return {
            "running": True,
            "ready": self._ready.is_set(),
            "endpointUrl": self.endpoint_url,
            "root": str(self.root),
            "pid": os.getpid(),
            "accountId": self.account_id,
            "region": self.region,
            "services": sorted(self.services),
            "lastSaveSeconds": round(self._persistence.last_seconds, 4),
            "recordedOnly": recorded_only(),
        }

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI app. MiniStack handles the lifespan: it restores its state before the first request."""
        if scope["type"] != "lifespan":
            await self._gateway(scope, receive, send)
            return

        async def noticing(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "lifespan.startup.complete":
                restore_sessions(self.configuration.state_folder)
                settle_interrupted()
                self._restored.set()
            await send(message)

        try:
            await self._ministack(scope, receive, noticing)
        except Exception as error:
            if self._restored.is_set():
                raise
            # Without this the server would go on with half of its state.
            logger.exception("The state could not be restored")
            await send({"type": "lifespan.startup.failed", "message": str(error)})

    async def run_services(self, stopping: asyncio.Event) -> None:
        """Start the services and keep saving state until the cloud stops, then stop them and save once
        more."""
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait(
            {stopped, asyncio.create_task(self._answering())}, return_when=asyncio.FIRST_COMPLETED
        )
        if stopped.done():
            return
        saving = asyncio.create_task(self._persistence.run())
        started: list[Service] = []
        try:
            for event in self._journal.left_over():
                logger.info("publishing again what a crash may have lost: %s", event["detail_type"])
                try:
                    await asyncio.to_thread(functools.partial(self.publish, **event))
                except (RuntimeError, TimeoutError):
                    logger.exception("the event %s was lost", event["detail_type"])
            # Before the services start: an endpoint that nobody wants need not come up first.
            await asyncio.to_thread(self._unrecorded.delete_left_over, self._resource_types)
            for service in self.services.values():
                await asyncio.to_thread(service.start)
                started.append(service)
            self._ready.set()
            logger.info("The local cloud is ready on %s", self.endpoint_url)
            await stopped
        finally:
            for service in reversed(started):
                await asyncio.to_thread(service.stop)
            saving.cancel()
            self._persistence.save_now()

    async def _answering(self) -> None:
        """Return when MiniStack has restored its state and the port answers."""
        await self._restored.wait()
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, self.configuration.port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return

    def _make_client(self, service: str, key: str, secret: str, token: str | None) -> Any:
        return boto3.Session().client(
            service,  # type: ignore[call-overload]  # any service's name; the stubs list each as a literal
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            aws_session_token=token,
            config=Config(
                inject_host_prefix=False,
                max_pool_connections=32,
                retries={"mode": "standard"},
                s3={"addressing_style": "path"},
            ),
        )
