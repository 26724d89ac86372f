"""The HTTP server in front of the ASGI app: uvicorn, which spends least on a request.

Its parser is httptools where that is installed, else h11. MiniStack imports hypercorn and corrects it, but
asks nothing of it that ASGI does not say.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from local.gateway import App

_KEEP_ALIVE_SECONDS = 75
"""How long a client may keep a connection that it does not use."""


class StartupError(Exception):
    """The app could not start; the log says why."""


async def serve_http(app: App, listener: socket.socket, *, closing: asyncio.Event, stop_seconds: int) -> None:
    """Serve on a bound socket until `closing` is set, and then until open requests are answered.

    Those that take longer than `stop_seconds` are cancelled. Raises `StartupError`.
    """
    server = _Server(
        uvicorn.Config(
            app,
            loop="none",  # the one that runs
            lifespan="on",
            interface="asgi3",
            ws="auto",
            log_config=None,
            log_level="warning",
            access_log=False,
            # As AWS's endpoints: MiniStack adds the Date, and nothing says which server answers.
            server_header=False,
            date_header=False,
            # Nothing stands between a client and this server: these headers would be the client's own word.
            proxy_headers=False,
            # Who asks is kept in context variables, which must not reach the connection's next request.
            reset_contextvars=True,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=stop_seconds,
        )
    )
    serving = asyncio.create_task(_started(server, listener))
    closed = asyncio.create_task(closing.wait())
    await asyncio.wait({serving, closed}, return_when=asyncio.FIRST_COMPLETED)
    closed.cancel()
    server.should_exit = True
    await serving


async def _started(server: uvicorn.Server, listener: socket.socket) -> None:
    try:
        await server.serve(sockets=[listener])
    except SystemExit as error:
        raise StartupError("the app could not start") from error


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the cloud's: its services stop before the server does."""
        yield
