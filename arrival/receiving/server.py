"""The DICOM side: C-STORE of everything, C-ECHO, and nothing else (pynetdicom)."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import AssociationServer, ThreadedAssociationServer

from arrival.receiving.admission import rejection
from arrival.receiving.events import Observer
from arrival.receiving.instance import Instance, Refusal, Status, instance_of
from arrival.settings import ReceiverSettings

# Storage classes that the library does not know, private ones too, in every transfer syntax: what becomes of
# an instance is the archive's decision, not the list's of this library's year.
_config.UNRESTRICTED_STORAGE_SERVICE = True
# Its handlers format every message for a log that nobody reads; its log may quote what devices send.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)

MAXIMUM_PDU_BYTES = 131072
"""What we ask devices to send at once; PS3.8 section D.1 sets no limit."""
NETWORK_SECONDS = 120.0
"""An association on which nothing comes for so long is aborted."""
ACSE_SECONDS = 30.0
"""The ARTIM timer of PS3.8 section 9.1.5, and the longest a TLS handshake takes."""
WAITING_CONNECTIONS = 128


class DicomServer:
    """Listens, admits, and hands every instance on.

    Args:
        settings: Of the receiver.
        keep: Keeps an instance; None once it is durable, else what to answer.
        observer: Is told of associations and refusals.
        tls: None without TLS.
        host: Address to listen on; "" is every one.
    """

    def __init__(
        self,
        *,
        settings: ReceiverSettings,
        keep: Callable[[Instance], Refusal | None],
        observer: Observer,
        tls: ssl.SSLContext | None,
        host: str = "",
    ) -> None:
        self._settings = settings
        self._keep = keep
        self._observer = observer
        entity = _entity(settings.ae_title)
        entity.maximum_associations = settings.maximum_associations
        self._server = _Server(
            entity,
            (host, settings.port),
            ae_title=settings.ae_title,
            contexts=entity.supported_contexts,
            ssl_context=tls,
            evt_handlers=[
                (evt.EVT_REQUESTED, self._requested),
                (evt.EVT_ESTABLISHED, self._established),
                (evt.EVT_REJECTED, self._full),
                (evt.EVT_C_ECHO, lambda _event: Status.SUCCESS),
                (evt.EVT_C_STORE, self._store),
            ],
        )
        self._server.handshake_failed = self._handshake_failed
        self._thread = threading.Thread(target=self._server.serve_forever, name="dicom", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens; what the system chose if the settings say 0."""
        return int(self._server.server_address[1])

    @property
    def listens(self) -> bool:
        """Whether connections are accepted."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Accept connections from now on."""
        self._thread.start()

    def stop(self, *, within_seconds: float) -> None:
        """Accept no more, let running associations end, and abort those that take longer."""
        self._server.shutdown()
        deadline = time.monotonic() + within_seconds
        while self._server.active_associations and time.monotonic() < deadline:
            time.sleep(0.05)
        for association in self._server.active_associations:
            association.abort()

    def _requested(self, event: Any) -> None:
        association = event.assoc
        request = association.requestor.primitive
        address = str(association.requestor.address)
        found = rejection(
            self._settings,
            calling=request.calling_ae_title.strip(),
            called=request.called_ae_title.strip(),
            address=address,
        )
        if found is None:
            return
        association.acse.send_reject(found.result, found.source, found.diagnostic)
        self._observer.rejected(ae_title=request.calling_ae_title, address=address, reason=found.reason)
        association.kill()

    def _established(self, event: Any) -> None:
        requestor = event.assoc.requestor
        self._observer.accepted(ae_title=requestor.ae_title, address=str(requestor.address))

    def _full(self, event: Any) -> None:
        requestor = event.assoc.requestor
        self._observer.rejected(
            ae_title=requestor.ae_title, address=str(requestor.address), reason="too many associations"
        )

    def _handshake_failed(self, address: str, kind: str) -> None:
        self._observer.rejected(ae_title="", address=address, reason=f"TLS: {kind}")

    def _store(self, event: Any) -> Any:
        found = instance_of(event)
        refusal = found if isinstance(found, Refusal) else self._keep(found)
        if refusal is None:
            return Status.SUCCESS
        self._observer.refused(status=refusal.status, reason=refusal.reason)
        return _answer(refusal)


class EchoServer:
    """Answers C-ECHO to this machine alone: what a container's health check asks, which has neither a title
    that is admitted nor a certificate.
    """

    def __init__(self, *, ae_title: str, port: int, well: Callable[[], bool]) -> None:
        """`well`: whether to say so."""
        entity = _entity(ae_title)
        self._server = _Server(
            entity,
            ("127.0.0.1", port),
            ae_title=ae_title,
            contexts=entity.supported_contexts,
            evt_handlers=[
                (evt.EVT_C_ECHO, lambda _event: Status.SUCCESS if well() else Status.OUT_OF_RESOURCES)
            ],
        )
        self._thread = threading.Thread(target=self._server.serve_forever, name="echo", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()


def _entity(ae_title: str) -> Any:
    entity = AE(ae_title=ae_title)
    entity.add_supported_context(Verification)
    entity.maximum_pdu_size = MAXIMUM_PDU_BYTES
    entity.network_timeout = NETWORK_SECONDS
    entity.acse_timeout = ACSE_SECONDS
    entity.dimse_timeout = NETWORK_SECONDS
    return entity


def _answer(refusal: Refusal) -> Any:
    from pydicom.dataset import Dataset

    answer = Dataset()
    answer.Status = int(refusal.status)
    answer.ErrorComment = refusal.reason[:64]
    return answer


class _Server(ThreadedAssociationServer):  # type: ignore[misc]  # pynetdicom is not typed
    """The library's server, whose TLS handshakes take place in the connection's own thread: in the thread
    that accepts connections a device (or a load balancer's health check) that says nothing would keep all
    others out.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = WAITING_CONNECTIONS
    handshake_failed: Callable[[str, str], None] | None = None

    def get_request(self) -> tuple[Any, Any]:
        assert self.socket is not None
        return self.socket.accept()  # type: ignore[no-any-return]  # the socket is the library's

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.ssl_context is not None:
            request.settimeout(ACSE_SECONDS)
            try:
                request = self.ssl_context.wrap_socket(request, server_side=True)
            except OSError as error:
                self._say(client_address, error)
                self.shutdown_request(request)
                return
            request.settimeout(None)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that ends before anything was said: the load balancer looks this way."""

    def shutdown(self) -> None:
        # The library's own also takes it from its entity's list, in which only its own way of starting puts it.
        super(AssociationServer, self).shutdown()
        self.server_close()

    def _say(self, client_address: Any, error: OSError) -> None:
        # A peer that closes without a word is a health check.
        silent = isinstance(error, (ssl.SSLEOFError, ConnectionError))
        if self.handshake_failed is not None and not silent:
            kind = "no handshake in time" if isinstance(error, TimeoutError) else type(error).__name__
            self.handshake_failed(str(client_address[0]), getattr(error, "reason", None) or kind)


def echo(*, port: int, timeout_seconds: float = 5.0) -> bool:
    """Whether a receiver on this machine answers C-ECHO at `port`."""
    entity = AE(ae_title="HEALTH")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout_seconds
    entity.connection_timeout = timeout_seconds
    association = entity.associate("127.0.0.1", port, contexts=[_verification()])
    if not association.is_established:
        return False
    try:
        answer = association.send_c_echo()
        return bool(answer) and int(answer.Status) == Status.SUCCESS
    finally:
        with contextlib.suppress(OSError, socket.timeout):
            association.release()


def _verification() -> Any:
    from pynetdicom.presentation import build_context

    return build_context(Verification)
