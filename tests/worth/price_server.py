"""A price source on a real port: answers what a test lays out, one answer a request, and keeps what it was asked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

__all__ = ["Answer", "PriceServer", "price_server"]


@dataclass(frozen=True)
class Answer:
    """One answer. `body` may be made from the request's path and query."""

    body: bytes | Callable[[web.Request], bytes] = b"{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    breaks_off: bool = False


class PriceServer:
    """What was asked, and what will be answered: the last answer for ever."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: deque[Answer] = deque([Answer()])
        self.asked: list[str] = []
        self.headers: list[Mapping[str, str]] = []

    def next(self, *answers: Answer) -> None:
        """Lay out the next answers."""
        self.answers = deque(answers)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        self.headers.append(dict(request.headers))
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.popleft()
        if answer.hangs:
            await asyncio.Event().wait()
        body = answer.body if isinstance(answer.body, bytes) else answer.body(request)
        response = web.StreamResponse(
            status=answer.status, headers={"Content-Type": "application/json", **answer.headers}
        )
        if answer.breaks_off:
            response.content_length = len(body) + 100
        await response.prepare(request)
        await response.write(body)
        if answer.breaks_off:
            assert request.transport is not None
            request.transport.abort()
        return response


@asynccontextmanager
async def price_server() -> AsyncIterator[PriceServer]:
    """Serve on a free port."""
    server = PriceServer()
    app = web.Application()
    app.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
