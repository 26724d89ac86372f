"""The DICOM side: associations, C-ECHO and C-STORE (PS3.4 annex B, PS3.7 section 9.1.1, PS3.8)."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from pynetdicom import AE, evt
from pynetdicom.pdu_primitives import A_ASSOCIATE, A_P_ABORT
from pynetdicom.sop_class import Verification
from urllib3.exceptions import HTTPError

from arrival.errors import cause_of
from arrival.receiving import contexts
from arrival.receiving.access import Access
from arrival.receiving.intake import Intake, NotStorableError, Taken, TooLargeError
from arrival.receiving.metrics import Metrics

logger = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
NOT_OF_THE_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
"""Statuses of C-STORE (PS3.4 section B.2.3). After one that is none of success a device keeps the instance,
and sends it again.
"""

PROCESSING_FAILURE = 0x0110
"""A status of C-ECHO (PS3.7 sections 9.1.5.1.4 and C.5.9)."""

_CALLING_TITLE_UNKNOWN = (0x01, 0x01, 0x03)
_LOCAL_LIMIT = (0x02, 0x03, 0x02)
"""Of A-ASSOCIATE-RJ (PS3.8 section 9.3.4): result, source, and reason."""

MOST_ASSOCIATIONS = 50
"""At the same time. One more is told to come again (local limit exceeded), unless the receiver asks itself
whether it is well: one that is busy is not ill.
"""
TIMEOUT_SECONDS = 60.0
"""For the other side to say something within an association."""

_LOOK_SECONDS = 0.1
_LAST_STORE_SECONDS = 5.0


class _LateHandshake:
    """A TLS context whose handshakes happen in the connections' own threads.

    pynetdicom shakes hands where it accepts connections: one that says nothing would keep all others out.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, sock: socket.socket, *, server_side: bool) -> ssl.SSLSocket:
        """As `ssl.SSLContext.wrap_socket`."""
        return self._context.wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False)


@dataclass(kw_only=True)
class Server:
    """Listens, and hands every instance to `intake`."""

    intake: Intake
    access: Access
    metrics: Metrics
    address: tuple[str, int]
    """Port 0: any that is free."""
    tls: ssl.SSLContext | None = None
    received: Callable[[Taken], None] = lambda _taken: None
    """Hears of every acknowledged instance."""
    healthy: Callable[[], bool] = lambda: True
    """What a C-ECHO is answered by: whoever asks is told of a failure when this is false."""
    silent_seconds: float = TIMEOUT_SECONDS
    """A connection that is silent for so long before its association is asked for, or in the midst of a
    handshake or a message, is closed.
    """
    _server: Any = field(default=None, init=False)
    _idle: threading.Condition = field(default_factory=threading.Condition, init=False)
    _busy: int = field(default=0, init=False)

    def start(self) -> None:
        """Listen, in threads of its own.

        Raises:
            OSError: The port is taken.
        """
        # It writes what is in data sets, and who calls, to its log.
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        entity = AE(ae_title=self.access.ae_title)
        entity.require_called_aet = True
        # The limit is kept where it is known who asks, see `_requested`.
        entity.maximum_associations = sys.maxsize
        entity.network_timeout = entity.dimse_timeout = TIMEOUT_SECONDS
        entity.acse_timeout = self.silent_seconds
        # What else is supported depends on what a device proposes.
        entity.add_supported_context(Verification)
        self._server = entity.start_server(
            self.address,
            block=False,
            ssl_context=_LateHandshake(self.tls) if self.tls is not None else None,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._opened),
                (evt.EVT_CONN_CLOSE, _closed),
                (evt.EVT_ACCEPTED, self._accepted),
                (evt.EVT_REQUESTED, self._requested),
                (evt.EVT_REJECTED, self._rejected),
                (evt.EVT_SOP_COMMON, _storage_services),
                (evt.EVT_C_ECHO, lambda _event: SUCCESS if self.healthy() else PROCESSING_FAILURE),
                (evt.EVT_C_STORE, self._store),
            ],
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def associations(self) -> int:
        """How many are open, with connections that have not said anything yet."""
        return len(self._server.active_associations)

    def stop(self, *, within_seconds: float) -> None:
        """Take no further association, and abort those that are still open after a while: a device that is in
        the midst of a study may end it.
        """
        # Closing the listening socket leaves the associations that there are.
        threading.Thread(target=self._server.shutdown, daemon=True).start()
        end = time.monotonic() + within_seconds
        while self._server.active_associations and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=_LAST_STORE_SECONDS)
        for association in self._server.active_associations:
            association.abort()

    def _opened(self, event: Any) -> None:
        # pynetdicom reads until a message is whole, for ever: a device that stops in its midst, or in a
        # handshake of TLS, would keep one of the few associations until the process ends.
        event.assoc.dul.socket.socket.settimeout(self.silent_seconds)

    def _accepted(self, event: Any) -> None:
        # Of what is refused here the device may tell nobody.
        for context in event.assoc.rejected_contexts:
            logger.warning("presentation context refused: SOP class %s", context.abstract_syntax)

    def _requested(self, event: Any) -> None:
        association = event.assoc
        request = association.requestor.primitive
        if not isinstance(request, A_ASSOCIATE):
            # It is gone before it asked for anything, see `_closed`.
            association.is_aborted = True
            association.kill()
            return
        calling = str(request.calling_ae_title).strip()
        address = association.requestor.address
        if not self.access.allows(calling_ae_title=calling, address=address):
            association.acse.send_reject(*_CALLING_TITLE_UNKNOWN)
            evt.trigger(association, evt.EVT_REJECTED, {})
            association.kill()
        elif len(association.ae.active_associations) > MOST_ASSOCIATIONS and not self.access.is_itself(
            calling_ae_title=calling, address=address
        ):
            # No metric: people are called for devices that are unknown, and this one comes again.
            logger.warning("association put off: %r from %s, all are taken", calling, address)
            association.acse.send_reject(*_LOCAL_LIMIT)
            association.kill()
        else:
            association.acceptor.supported_contexts = contexts.supported(
                request.presentation_context_definition_list
            )

    def _rejected(self, event: Any) -> None:
        # Who called is named: a device that was forgotten in the environment file has to be found.
        calling = str(event.assoc.requestor.primitive.calling_ae_title).strip()
        logger.warning("association rejected: %r from %s", calling, event.assoc.requestor.address)
        self.metrics.emit(RejectedAssociations=1)

    def _store(self, event: Any) -> int:
        with self._idle:
            self._busy += 1
        try:
            return self._take(event)
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _take(self, event: Any) -> int:
        part10 = b""
        try:
            part10 = event.encoded_dataset()
            taken = self.intake.take(
                part10,
                sop_class_uid=str(event.request.AffectedSOPClassUID),
                sop_instance_uid=str(event.request.AffectedSOPInstanceUID),
            )
        except NotStorableError as error:
            return self._refuse(NOT_OF_THE_SOP_CLASS, error.message)
        except TooLargeError as error:
            return self._refuse(OUT_OF_RESOURCES, error.message)
        except (ClientError, BotoCoreError, HTTPError, OSError) as error:
            return self._refuse(OUT_OF_RESOURCES, f"S3 did not take it ({cause_of(error)})")
        except Exception as error:  # noqa: BLE001 - whatever it is, an instance that is not stored is not acknowledged
            return self._refuse(CANNOT_UNDERSTAND, type(error).__name__)
        self.metrics.emit(
            Received=1, ReceivedBytes=len(part10), **({"Quarantined": 1} if taken.quarantined else {})
        )
        self.received(taken)
        return SUCCESS

    def _refuse(self, status: int, why: str) -> int:
        logger.error("instance refused with status %04X: %s", status, why)
        self.metrics.emit(Refused=1)
        return status


def _closed(event: Any) -> None:
    """Tell an association that its connection is gone.

    pynetdicom tells it so only after it was asked for (PS3.8 table 9-10): one that was closed in the midst of
    its first words would be waited for, and keep its place, until the timeout.
    """
    if event.assoc.requestor.primitive is None:
        event.assoc.dul.to_user_queue.put(A_P_ABORT())


def _storage_services(event: Any) -> dict[str, Any]:
    return dict(contexts.storage_services(event.assoc.acceptor.supported_contexts))
