"""The door of the local cloud: one ASGI app that sends each request to our services or to MiniStack."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import Response

from local import identity
from local.configuration import STATUS_PATH
from local.protocol import HttpRequest, HttpResponse, answer, answer_promptly, wire_model
from local.protocol.http import refusal
from local.service import Service, ServiceError
from local.strangers import foreign_header

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CREDENTIAL = re.compile(r"Credential=[^/,]+/\d{8}/[^/]+/([^/]+)/aws4_request")
_DICOMWEB = re.compile(r"/datastore/[^/]+/(studies|series|instances)(/.*)?")
_OF_A_DATASTORE = re.compile(r"/datastore/[0-9a-z]{32}(/.*)?")


class Gateway:
    """Routes on the service that a request was signed for.

    `services` by botocore's name; `dicomweb` answers the DICOMweb paths of medical-imaging, which are not in
    botocore's model: a function run in a worker thread, that finds the caller and the body (bytes) in
    `request.state`. `inner` is MiniStack. `mutated` is called with the service after each request
    that may have changed its state.
    """

    def __init__(
        self,
        *,
        inner: App,
        services: Mapping[str, Service],
        dicomweb: Callable[[Request], Response],
        status: Callable[[], Mapping[str, Any]],
        mutated: Callable[[str], None],
    ) -> None:
        self._inner = inner
        self._services = services
        self._dicomweb = dicomweb
        self._status = status
        self._mutated = mutated

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        signed_for = ""
        if scope["type"] == "http":
            if foreign := foreign_header(scope["headers"]):
                logger.warning("refused a request of a web site (%s)", foreign)
                message = (
                    f"The local cloud answers programs on this machine only, not web sites ({foreign}). "
                    "Call it as 127.0.0.1 or localhost."
                )
                await Response(message, status_code=403, media_type="text/plain")(scope, receive, send)
                return
            if scope["http_version"] == "1.1" and not any(name == b"host" for name, _ in scope["headers"]):
                # RFC 9112, 3.2. A parser may let it pass, and nothing would be known of who asks.
                message = "A request of HTTP/1.1 names its host."
                await Response(message, status_code=400, media_type="text/plain")(scope, receive, send)
                return
            if scope["path"] == STATUS_PATH:
                await Response(json.dumps(self._status()), media_type="application/json")(
                    scope, receive, send
                )
                return
            signed_for = signing_service(scope)
            if not signed_for and _OF_A_DATASTORE.fullmatch(scope["path"]):
                # MiniStack would take it for a bucket. Authentication says that the signature is missing.
                signed_for = "medical-imaging"
            if signed_for in ("medical-imaging", "sagemaker"):
                # These keep their state themselves.
                await self._own(signed_for, scope, receive, send)
                return
            # Bucket policies demand TLS; a connection that cannot leave this machine counts as secure.
            scope = {**scope, "scheme": "https"}
        await self._inner(scope, receive, send)
        if scope["type"] == "http" and not _only_reads(scope):
            self._mutated(signed_for)

    async def _own(self, signed_for: str, scope: Scope, receive: Receive, send: Send) -> None:
        from ministack.core.concurrency import run_reentrant

        path: str = scope["path"]
        dicomweb = signed_for == "medical-imaging" and _DICOMWEB.fullmatch(path) is not None
        name = (
            "sagemaker-runtime"
            if signed_for == "sagemaker" and path.startswith("/endpoints/")
            else signed_for
        )
        body = await _read(receive)
        raw_path = (scope.get("raw_path") or quote(path).encode()).decode("latin-1")
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        try:
            caller = identity.authenticate(
                service=name,
                method=scope["method"],
                raw_path=raw_path,
                query=query,
                raw_headers=scope["headers"],
                headers=headers,
                body=body,
                client=(scope.get("client") or ("127.0.0.1",))[0],
            )
        except ServiceError as error:
            await _send(refusal(wire_model(name), error), send)
        else:
            if dicomweb:
                # Read already: a worker thread cannot await a body.
                request = Request({**scope, "state": {"caller": caller, "body": body}}, _replay(body))
                response = await run_reentrant(self._dicomweb, request, thread_name="dicomweb")
                await response(scope, receive, send)
            else:
                asked = HttpRequest(
                    method=scope["method"],
                    path=raw_path,
                    query=query,
                    headers=headers,
                    body=body,
                )
                service = self._services[name]
                answered = answer_promptly(service, asked, caller)
                if answered is None:
                    answered = await run_reentrant(answer, service, asked, caller, thread_name=name)
                await _send(answered, send)


def signing_service(scope: Scope) -> str:
    """The service of the SigV4 credential scope, of the header or of a presigned URL; "" if there is none."""
    for name, value in scope["headers"]:
        if name.lower() == b"authorization":
            found = _CREDENTIAL.search(value.decode("latin-1"))
            return found[1] if found else ""
    query = scope.get("query_string", b"")
    if b"X-Amz-Credential=" in query:
        parts = parse_qs(query.decode("latin-1"))["X-Amz-Credential"][0].split("/")
        return parts[3] if len(parts) == 5 else ""
    return ""


def _only_reads(scope: Scope) -> bool:
    """Whether a request surely changes nothing; one of the query protocol does not say so in its head."""
    if scope["method"] != "POST":
        return scope["method"] in ("GET", "HEAD", "OPTIONS")
    target = next((value for name, value in scope["headers"] if name.lower() == b"x-amz-target"), b"")
    return target.rpartition(b".")[2].startswith((b"Describe", b"List", b"Get", b"BatchGet"))


async def _read(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client went away before its request was read")
        chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(chunks)


def _replay(body: bytes) -> Receive:
    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _send(response: HttpResponse, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
