"""A fault proxy: JSON-RPC over HTTP and WebSocket on one port, between rtserver and a real node.

    async with FaultProxy(node.http_url, node.ws_url) as proxy:
        proxy.http_url, proxy.ws_url                      # what rtserver is given
        rule = proxy.add(Delay(0.5), "eth_call")          # by method; without one: all calls, but no pushes
        proxy.add(Duplicate(), "eth_subscription")        # pushes go by this method
        proxy.add(busy(2), times=1)                       # only the next one
        rule.remove()
        proxy.freeze(); proxy.thaw()                      # half-open: everything connects, nothing answers
        proxy.cut()                                       # resets all open connections
        await proxy.down(); await proxy.up()              # nobody listens; the same port again
        proxy.switch(other.http_url, other.ws_url)        # another fork from the next call or subscription on
        await proxy.announce(header)                      # a head that the node never had

Calls go to the node over HTTP, subscriptions over one WebSocket for each socket of a client. If the node goes
away, the client's connection is reset, as if it were the node's own. Rules are tried in the order of adding;
all that match are done, except that the first which answers instead of the node wins.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

import aiohttp
import orjson
from aiohttp import WSMsgType, web

from .actions import (
    Action,
    Call,
    CallAction,
    CutOff,
    Delay,
    Disconnect,
    Drop,
    Duplicate,
    Elsewhere,
    Json,
    MessageAction,
    Reorder,
    Reply,
    Truncate,
)

__all__ = ["FaultProxy", "Rule"]

_PUSH = "eth_subscription"
_OVER_SOCKET = frozenset({"eth_subscribe", "eth_unsubscribe"})
_MAX_BYTES = 256 * 1024 * 1024


class Rule:
    """When an action is done; `hits` counts how often it was."""

    def __init__(
        self,
        owner: FaultProxy,
        action: Action,
        methods: frozenset[str],
        via: str | None,
        times: int | None,
        chance: float,
        when: Callable[[Call], bool],
    ) -> None:
        self.action = action
        self.hits = 0
        self._owner = owner
        self._methods = methods
        self._via = via
        self._times = times
        self._chance = chance
        self._when = when

    def takes(self, call: Call) -> bool:
        """Return whether the action is to be done to this call, and count it."""
        wanted = call.method in self._methods if self._methods else call.method != _PUSH
        if not wanted or self._via not in (None, call.via) or self._times == self.hits or not self._when(call):
            return False
        if self._chance < 1.0 and self._owner.rng.random() >= self._chance:
            return False
        self.hits += 1
        return True

    def remove(self) -> None:
        """End the fault."""
        if self in self._owner.rules:
            self._owner.rules.remove(self)


class _Reset(Exception):
    """The connection is to be reset."""


class FaultProxy:
    """See the module's text.

    Args:
        http: The node's HTTP URL.
        ws: The node's WebSocket URL.
        rng: Decides rules that have a chance.
    """

    def __init__(self, http: str, ws: str, rng: random.Random | None = None) -> None:
        self.rng = rng or random.Random(0)
        self.rules: list[Rule] = []
        self.calls: list[Call] = []
        self.methods: Counter[str] = Counter()
        self.requests = 0
        self.cancelled = 0
        self._http, self._ws = http, ws
        self._port = 0
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._asked = asyncio.Event()
        self._sockets: set[_Socket] = set()
        self._client: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None

    # --- for tests ------------------------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self._port}"

    @property
    def sockets(self) -> int:
        """How many WebSockets of clients are open."""
        return len(self._sockets)

    def add(
        self,
        action: Action,
        *methods: str,
        via: str | None = None,
        times: int | None = None,
        chance: float = 1.0,
        when: Callable[[Call], bool] = lambda call: True,
    ) -> Rule:
        """Begin a fault on calls of these methods (none: all; pushes only by `eth_subscription`)."""
        rule = Rule(self, action, frozenset(methods), via, times, chance, when)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """End all faults that are rules, and a freeze."""
        self.rules.clear()
        self.thaw()

    def reset_counts(self) -> None:
        """Forget what was asked so far."""
        self.calls.clear()
        self.methods.clear()
        self.requests = self.cancelled = 0

    def freeze(self) -> None:
        """Answer nothing more, not even pings, on open and on new connections."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Go on; what was asked and announced meanwhile is answered and told now."""
        self._thawed.set()

    def cut(self) -> None:
        """Reset every open connection."""
        assert self._runner is not None
        # Idle kept-alive ones too, or a client would not notice that nobody listens any more.
        for handler in list(self._runner.server.connections if self._runner.server else ()):
            if handler.transport is not None:
                handler.transport.abort()

    def switch(self, http: str, ws: str) -> None:
        """Ask another node from now on; open subscriptions stay with the old one until they are cut."""
        self._http, self._ws = http, ws

    async def down(self) -> None:
        """Refuse connections, and reset those that are open."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        self.cut()

    async def up(self) -> None:
        """Listen again, on the same port."""
        assert self._runner is not None
        if self._site is None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
            await self._site.start()
            self._port = self._site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def announce(self, header: Json) -> int:
        """Push a head to every newHeads subscription; return how many there were. Rules apply."""
        subscriptions = [(socket, one) for socket in self._sockets for one in socket.head_subscriptions]
        for socket, subscription in subscriptions:
            params = {"subscription": subscription, "result": header}
            await socket.push({"jsonrpc": "2.0", "method": _PUSH, "params": params})
        return len(subscriptions)

    async def asked(self, method: str, count: int = 1, *, within_s: float = 20.0) -> None:
        """Wait until a method was asked for at least so often."""
        async with asyncio.timeout(within_s):
            while self.methods[method] < count:
                self._asked.clear()
                await self._asked.wait()

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None), connector=aiohttp.TCPConnector(limit=0)
        )
        app = web.Application(client_max_size=_MAX_BYTES)
        app.router.add_post("/{path:.*}", self._serve_http)
        app.router.add_get("/{path:.*}", self._serve_ws)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await self.up()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    # --- the way there and back -----------------------------------------------------------------------

    async def gate(self) -> None:
        """Wait while frozen."""
        await self._thawed.wait()

    def actions(self, call: Call) -> list[Action]:
        """Return what is to be done to a call, and note that it was asked."""
        if call.via != "push":
            self.calls.append(call)
            self.methods[call.method] += 1
            self._asked.set()
        return [rule.action for rule in list(self.rules) if rule.takes(call)]

    async def connect(self) -> aiohttp.ClientWebSocketResponse:
        """Open a socket to the node; raises _Reset where there is none."""
        assert self._client is not None
        try:
            return await self._client.ws_connect(self._ws, max_msg_size=_MAX_BYTES, compress=0)
        except (aiohttp.ClientError, OSError) as error:
            raise _Reset from error

    async def _forward(self, url: str, message: Any) -> Any:
        assert self._client is not None
        headers = {"Content-Type": "application/json"}
        try:
            async with self._client.post(url, data=orjson.dumps(message), headers=headers) as response:
                return orjson.loads(await response.read())
        except (aiohttp.ClientError, OSError, orjson.JSONDecodeError) as error:
            raise _Reset from error

    async def answer(self, message: Any, via: str) -> tuple[bytes, list[MessageAction]]:
        """Return the answer to a message, and what the transport still has to do to it."""
        self.requests += 1
        requests: list[Json] = message if isinstance(message, list) else [message]
        calls = [Call(one["method"], one.get("params", []), via, len(requests)) for one in requests]
        actions = [self.actions(call) for call in calls]
        whole = [action for each in actions for action in each if isinstance(action, MessageAction)]
        if any(isinstance(action, (Drop, Disconnect, Reply)) for action in whole):
            return b"", whole
        answers: dict[int, Json] = {}
        onward: dict[str, list[int]] = {}
        for index, (request, call, each) in enumerate(zip(requests, calls, actions, strict=True)):
            made = [action.before(call) for action in each if isinstance(action, CallAction)]
            instead = next((one for one in made if one is not None), None)
            if instead is not None:
                answers[index] = {"jsonrpc": "2.0", "id": request["id"], **instead}
                continue
            url = next((action.url for action in each if isinstance(action, Elsewhere)), self._http)
            onward.setdefault(url, []).append(index)
        for url, indices in onward.items():
            asked = [requests[index] for index in indices]
            replied = await self._forward(url, asked if isinstance(message, list) else asked[0])
            by_id = {one.get("id"): one for one in (replied if isinstance(replied, list) else [replied])}
            answers.update({index: by_id[requests[index]["id"]] for index in indices if requests[index]["id"] in by_id})
        for index, (call, each) in enumerate(zip(calls, actions, strict=True)):
            for action in each:
                if isinstance(action, CallAction) and index in answers:
                    answers[index] = action.after(call, answers[index])
        told = [answers[index] for index in sorted(answers)]
        return orjson.dumps(told if isinstance(message, list) else told[0]), whole

    async def _serve_http(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        try:
            body = await request.read()
            await self.gate()
            text, whole = await self.answer(orjson.loads(body), "http")
            response = await self._finish_http(request, text, whole)
            await self.gate()
        except asyncio.CancelledError:
            # The client gave up: it hung up, or cancelled a hedge.
            self.cancelled += 1
            raise
        except _Reset:
            transport.abort()
            return web.Response()
        return response

    async def _finish_http(
        self, request: web.Request, text: bytes, whole: Sequence[MessageAction]
    ) -> web.StreamResponse:
        status, headers = 200, {"Content-Type": "application/json"}
        for action in whole:
            match action:
                case Delay(seconds):
                    await asyncio.sleep(seconds)
                case Drop():
                    await asyncio.Event().wait()
                case Disconnect():
                    raise _Reset
                case Reply():
                    return web.Response(body=action.body, status=action.status, headers={**headers, **action.headers})
                case Truncate(keep):
                    text = text[: int(len(text) * keep)]
                case CutOff(keep):
                    partial = web.StreamResponse(headers={**headers, "Content-Length": str(len(text))})
                    await partial.prepare(request)
                    await partial.write(text[: int(len(text) * keep)])
                    raise _Reset
        return web.Response(body=text, status=status, headers=headers)

    async def _serve_ws(self, request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        await self.gate()
        # Pings are answered by us, so that a frozen proxy answers none.
        socket = web.WebSocketResponse(autoping=False, compress=False, max_msg_size=_MAX_BYTES)
        try:
            await socket.prepare(request)
        except ConnectionResetError:
            return web.Response()  # to nobody: whoever asked has left
        served = _Socket(self, socket, transport)
        self._sockets.add(served)
        try:
            await served.run()
        finally:
            self._sockets.discard(served)
        return socket


class _Socket:
    """One WebSocket of a client, and the one to the node behind it once something was subscribed."""

    def __init__(self, proxy: FaultProxy, client: web.WebSocketResponse, transport: asyncio.BaseTransport) -> None:
        self.head_subscriptions: set[str] = set()
        self._proxy = proxy
        self._client = client
        self._transport = transport
        self._node: aiohttp.ClientWebSocketResponse | None = None
        self._waiting: dict[Any, asyncio.Future[Json]] = {}
        self._held: list[tuple[int, str]] = []

    async def run(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        try:
            async for message in self._client:
                await self._proxy.gate()
                if message.type is WSMsgType.PING:
                    await self._client.pong(message.data)
                elif message.type is WSMsgType.TEXT:
                    # Each in a task of its own, as nodes do: a delayed answer delays no other.
                    tasks.add(asyncio.ensure_future(self._guarded(self._one, orjson.loads(message.data), tasks)))
        finally:
            for task in tasks:
                task.cancel()
            if self._node is not None:
                await self._node.close()

    async def _guarded(self, work: Callable[..., Awaitable[None]], *given: Any) -> None:
        try:
            await work(*given)
        except (_Reset, ConnectionError, aiohttp.ClientError):
            self._transport.abort()  # type: ignore[attr-defined]

    async def _one(self, message: Any, tasks: set[asyncio.Task[None]]) -> None:
        if isinstance(message, dict) and message["method"] in _OVER_SOCKET:
            await self._subscribe(message, tasks)
            return
        text, whole = await self._proxy.answer(message, "ws")
        await self._send(text.decode(), whole)

    async def _subscribe(self, message: Json, tasks: set[asyncio.Task[None]]) -> None:
        call = Call(message["method"], message.get("params", []), "ws")
        actions = self._proxy.actions(call)
        whole = [action for action in actions if isinstance(action, MessageAction)]
        made = [action.before(call) for action in actions if isinstance(action, CallAction)]
        instead = next((one for one in made if one is not None), None)
        if instead is not None:
            answer = {"jsonrpc": "2.0", "id": message["id"], **instead}
        else:
            if self._node is None:
                self._node = await self._proxy.connect()
                tasks.add(asyncio.ensure_future(self._guarded(self._relay, self._node)))
            future = self._waiting[message["id"]] = asyncio.get_running_loop().create_future()
            await self._node.send_str(orjson.dumps(message).decode())
            answer = await future
            if call.params[:1] == ["newHeads"] and "result" in answer:
                self.head_subscriptions.add(answer["result"])
            for action in actions:
                if isinstance(action, CallAction):
                    answer = action.after(call, answer)
        await self._send(orjson.dumps(answer).decode(), whole)

    async def _relay(self, node: aiohttp.ClientWebSocketResponse) -> None:
        async for message in node:
            if message.type is not WSMsgType.TEXT:
                continue
            answer = orjson.loads(message.data)
            waiter = self._waiting.pop(answer.get("id"), None)
            if waiter is not None:
                waiter.set_result(answer)
                # So that the subscription is answered before its first push.
                await asyncio.sleep(0)
            else:
                await self.push(answer)
        raise _Reset

    async def push(self, message: Json) -> None:
        """Tell a subscription something, unless a rule has it otherwise."""
        call = Call(_PUSH, message.get("params"), "push")
        actions = self._proxy.actions(call)
        for action in actions:
            if isinstance(action, CallAction):
                message = action.after(call, message)
        whole = [action for action in actions if isinstance(action, MessageAction)]
        await self._send(orjson.dumps(message).decode(), whole)

    async def _send(self, text: str, whole: Sequence[MessageAction]) -> None:
        copies, behind = 1, 0
        for action in whole:
            match action:
                case Delay(seconds):
                    await asyncio.sleep(seconds)
                case Drop():
                    return
                case Disconnect() | CutOff():
                    raise _Reset
                case Reply():
                    text = action.body.decode()
                case Truncate(keep):
                    text = text[: int(len(text) * keep)]
                case Duplicate():
                    copies = 2
                case Reorder():
                    behind = action.behind
        await self._proxy.gate()
        if behind:
            self._held.append((behind, text))
            return
        for _ in range(copies):
            await self._client.send_str(text)
        due = [late for left, late in self._held if left <= 1]
        self._held = [(left - 1, late) for left, late in self._held if left > 1]
        for late in due:
            await self._client.send_str(late)
