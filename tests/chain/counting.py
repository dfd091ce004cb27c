"""A proxy in front of the node that counts what really goes over the wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
from aiohttp import web


class CountingProxy:
    """Forwards JSON-RPC over HTTP; `requests` counts round trips, `methods` the calls in them."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.url = ""
        self.requests = 0
        self.methods: Counter[str] = Counter()
        # How often these hexadecimal words (selectors) came by, in any request.
        self.words: Counter[str] = Counter()
        self.watched: tuple[str, ...] = ()

    def reset(self) -> None:
        self.requests = 0
        self.methods.clear()
        self.words.clear()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CountingProxy]:
        async with aiohttp.ClientSession() as session:

            async def forward(request: web.Request) -> web.Response:
                body = await request.read()
                message = orjson.loads(body)
                self.requests += 1
                self.words.update({word: body.count(word.encode()) for word in self.watched})
                self.methods.update(call["method"] for call in (message if isinstance(message, list) else [message]))
                async with session.post(
                    self._target, data=body, headers={"Content-Type": "application/json"}
                ) as answer:
                    return web.Response(body=await answer.read(), status=answer.status, content_type="application/json")

            app = web.Application(client_max_size=64 * 1024 * 1024)
            app.router.add_post("/", forward)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            try:
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield self
            finally:
                await runner.cleanup()
