"""Connections below the routes: how many, how long, and what is answered to bytes that are no request.

aiohttp reads HTTP and WebSocket. What it leaves open to strangers is closed here: connections that never send a
request or never take their answer, requests that it can't parse (it would log a traceback and answer plain text),
and frames that cost time and are no message.
"""

import asyncio
import socket
import time
from typing import Any, Final

from aiohttp import http_exceptions, web

from ..hub.limits import Limits
from ..obs.metrics import Metrics
from ..wire.codes import CloseCode
from .admission import AtOnce, Bucket
from .frame_meter import FrameMeter
from .problems import problem, seal
from .proxies import Proxies
from .shortcut import Shortcut, shortcut
from .sparse_log import SparseLog, failure

__all__ = ["Connection", "EdgeRunner"]

# A request has to be whole this long after the one before it was answered. Above the 60 s for which common proxies
# keep an idle connection, so that it is they who close it.
_IDLE_S: Final = 75.0
# A body that nobody wants is read and dropped for this long, so that its sender sees the answer.
_LINGER_S: Final = 2.0
# A client that takes nothing of what was sent for this long is gone. The kernel keeps the time: while it waits for a
# client's window neither a handler nor a closed transport would come to an end.
_UNTAKEN_S: Final = 60.0
# Beside its socket a browser keeps up to six connections.
_CONNECTIONS_A_SOCKET: Final = 8
# Frames over messages: some libraries send fragments. And so many more at once that a client which is just too fast
# meets the rule for messages first, which tells it so.
_FRAMES_A_MESSAGE: Final = 10
_SPARE_FRAMES: Final = 100
# A last word is taken within this time, or never.
_CLOSE_S: Final = 2.0


class _Edge:
    """What all connections share."""

    def __init__(self, limits: Limits, metrics: Metrics, proxies: Proxies, untaken_s: float) -> None:
        self.metrics = metrics
        self.proxies = proxies
        self.untaken_s = untaken_s
        self.at_once = AtOnce(_CONNECTIONS_A_SOCKET * limits.connections_per_ip)
        self.frames_per_s = _FRAMES_A_MESSAGE * limits.messages_per_s
        self.frames_at_once = _FRAMES_A_MESSAGE * limits.burst + _SPARE_FRAMES
        self.log = SparseLog()


class EdgeRunner(web.AppRunner):
    """Runs an application on connections that are looked after.

    Args:
        app: The application.
        limits: What one client may do.
        metrics: Counts requests that no route ever sees.
        proxies: Whose connections are not counted, as they are many clients'.
        shutdown_timeout: Seconds that handlers get to end.
        idle_s: Seconds for a request to arrive in.
        untaken_s: Seconds in which a client has to take what was sent, where the kernel can tell.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        limits: Limits,
        metrics: Metrics,
        proxies: Proxies,
        shutdown_timeout: float,
        idle_s: float = _IDLE_S,
        untaken_s: float = _UNTAKEN_S,
    ) -> None:
        super().__init__(
            app, access_log=None, shutdown_timeout=shutdown_timeout, keepalive_timeout=idle_s, lingering_time=_LINGER_S
        )
        self._edge = _Edge(limits, metrics, proxies, untaken_s)

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._edge, **self._kwargs)


class _Server(web.Server):
    def __init__(self, made: web.Server, edge: _Edge, **options: Any) -> None:
        super().__init__(made.request_handler, request_factory=made.request_factory, **options)
        self._make = made.request_factory
        self.request_factory = self._relative
        self._edge = edge

    def _relative(self, message: Any, *rest: Any) -> web.BaseRequest:
        """Make a request; where it names a host in its first line, that is of no interest, and may be no name at all.

        A host that can't be decoded would end the connection's task and leave the connection open for ever.
        """
        if message.url.absolute:
            message = message._replace(url=message.url.relative())
        return self._make(message, *rest)

    def __call__(self) -> web.RequestHandler:
        return Connection(self, self._edge, loop=self._loop, **self._kwargs)


class Connection(web.RequestHandler):
    """One connection, whatever is spoken on it."""

    __slots__ = ("_address", "_budget", "_edge", "_is_over", "_meter", "_shortcut")

    def __init__(self, server: _Server, edge: _Edge, **options: Any) -> None:
        super().__init__(server, **options)
        self._edge = edge
        # Set while it is counted.
        self._address: str | None = None
        # From the handshake on.
        self._meter: FrameMeter | None = None
        self._budget: Bucket | None = None
        self._is_over = False
        # While a client's frames may go past the transport.
        self._shortcut: Shortcut | None = None

    # --- how many and how long ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        _end_untaken(transport, self._edge.untaken_s)
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else None
        if address is None or self._edge.proxies.trusts(address):
            return
        self._address = address
        if not self._edge.at_once.enter(address):
            self._edge.metrics.http.labels("refused", 0).inc()
            self._edge.log.info("too many connections", client=address)
            self._is_over = True
            # Without an answer: it would have to be waited for, and none was asked for yet.
            transport.abort()  # type: ignore[attr-defined]

    def connection_lost(self, exc: BaseException | None) -> None:
        self.close_shortcut()
        if self._address is not None:
            self._edge.at_once.leave(self._address)
            self._address = None
        super().connection_lost(exc)

    # --- past the transport ---------------------------------------------------------------------------

    def open_shortcut(self) -> Shortcut | None:
        """Borrow the socket until the connection is lost or `close_shortcut`; None where there is none to lend."""
        self._shortcut = None if self.transport is None else shortcut(self.transport)
        return self._shortcut

    def close_shortcut(self) -> None:
        """Have nothing go past the transport any more."""
        if self._shortcut is not None:
            self._shortcut.end()
            self._shortcut = None

    # --- frames ---------------------------------------------------------------------------------------

    def set_parser(self, parser: Any, data_received_cb: Any = None) -> None:
        edge = self._edge
        self._meter = FrameMeter()
        self._budget = Bucket(edge.frames_per_s, edge.frames_at_once, time.monotonic())
        # What came right behind the handshake is counted like the rest.
        early, self._message_tail = self._message_tail, b""
        super().set_parser(parser, data_received_cb)
        if early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._meter is None or self._budget is None:
            super().data_received(data)
            return
        frames, end = self._meter.count(data, self._budget.left(time.monotonic()))
        self._budget.spend(frames)
        if end == len(data):
            super().data_received(data)
            return
        self._is_over = True
        transport = self.transport
        if transport is None:
            return
        transport.pause_reading()
        super().data_received(data[:end])
        # After those who read what came before: a client that was told what is wrong is closed by them.
        self._loop.call_soon(_end_socket, self._loop, transport)

    # --- what is no request ---------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.transport is None or request.writer.output_size > 0:
            raise ConnectionError("the client has gone, or has its answer")
        if isinstance(exc, http_exceptions.HttpProcessingError):
            flaw = _flaw(exc)
            self._edge.metrics.http.labels("malformed", status).inc()
            self._edge.log.info("malformed request", client=request.remote, reason=flaw)
            response = problem(status, "bad_request", f"this is not a request: {flaw}")
        else:
            self._edge.metrics.http.labels("unknown", status).inc()
            self._edge.log.error("request failed", **({} if exc is None else failure(exc)))
            response = problem(status, "internal", "something went wrong here; it has been logged")
        seal(response)
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        # Raised before any middleware: of `Expect` headers.
        if isinstance(resp, web.HTTPException) and resp.status >= 400:
            self._edge.metrics.http.labels("malformed", resp.status).inc()
            resp = problem(resp.status, "bad_request", resp.text or resp.reason)
            seal(resp)
        return await super().finish_response(request, resp, start_time)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        error = kw.get("exc_info")
        self._edge.log.error("connection failed", **(failure(error) if isinstance(error, BaseException) else {}))


def _end_untaken(transport: asyncio.BaseTransport, after_s: float) -> None:
    """Have the kernel end a connection whose other side takes nothing; see tcp(7), TCP_USER_TIMEOUT."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(after_s * 1000))


def _end_socket(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        transport.write(b"\x88\x02" + int(CloseCode.RATE).to_bytes(2, "big"))
        transport.close()
        loop.call_later(_CLOSE_S, transport.abort)


def _flaw(error: http_exceptions.HttpProcessingError) -> str:
    """Return what a parser found, without what the client sent: that may be long, binary or secret."""
    match error:
        case http_exceptions.LineTooLong():
            return "a line or a header is longer than 8190 bytes"
        case http_exceptions.InvalidURLError():
            return "the first line has no valid path"
        case http_exceptions.BadHttpMethod() if "HTTPS" in error.message:
            return "TLS, on a port that speaks plain HTTP"
        case http_exceptions.BadHttpMethod():
            return "the first line has no method of HTTP"
        case _:
            return error.message.partition("\n")[0].partition(":")[0].rstrip(". ") or "malformed"
