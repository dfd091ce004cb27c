"""Does what a plan says: each fault to the proxies, the node, the servers or their clients, and its undoing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from faults.actions import (
    Action,
    Answer,
    CutOff,
    Delay,
    Disconnect,
    Drop,
    Duplicate,
    Edit,
    Reorder,
    Reply,
    Truncate,
    WrongId,
    busy,
)
from faults.proxy import FaultProxy

from rtserver.demo.rpc import NodeUnreachable, RpcError

from .plan import Injection

if TYPE_CHECKING:
    from .stage import Stage

__all__ = ["Faults"]

Params = Mapping[str, Any]

_TWIN_BLOCK_S: Final = 0.4

# Faults of a message or a call, as the proxy's rules.
_RULES: Final[Mapping[str, Callable[[Params], Action]]] = {
    "delay": lambda params: Delay(params["seconds"]),
    "drop": lambda params: Drop(),
    "disconnect": lambda params: Disconnect(),
    "cut off": lambda params: CutOff(),
    "truncate": lambda params: Truncate(),
    "malformed": lambda params: Reply(b'{"jsonrpc":"2.0","id":1,"result":'),
    "wrong id": lambda params: WrongId(),
    "null": lambda params: Edit(lambda result: None),
    "busy": lambda params: busy(params["retry_after_s"]),
    "limited": lambda params: Answer(-32005, "daily request count exceeded, request rate limited"),
    "no header": lambda params: Answer(-32000, "header not found"),
    "late heads": lambda params: Delay(params["seconds"]),
    "lost heads": lambda params: Drop(),
    "double heads": lambda params: Duplicate(),
    "swapped heads": lambda params: Reorder(params["behind"]),
}


class Faults:
    """Everything that can be done to a stage; `done` counts it."""

    def __init__(self, stage: Stage) -> None:
        self.done: Counter[str] = Counter()
        self.hits: Counter[str] = Counter()
        self._stage = stage
        self._others: Mapping[str, Callable[[Injection], Awaitable[None]]] = {
            "old heads": self._old_heads,
            "freeze": self._freeze,
            "away": self._away,
            "reset": self._reset,
            "fork": self._fork,
            "node stopped": lambda one: stage.chain.stop_for(one.for_s),
            "node killed": lambda one: stage.chain.kill_for(one.for_s, one.params["lost"]),
            "reorg": lambda one: stage.chain.reorg(one.params["depth"]),
            "rollback": lambda one: stage.chain.roll_back(one.params["depth"]),
            "clock": lambda one: stage.chain.jump(one.params["seconds"]),
            "server killed": lambda one: self._alone(stage.roving.kill_for, one),
            "server ended": lambda one: self._alone(stage.roving.end_for, one),
            "server stopped": lambda one: self._alone(stage.roving.stop_for, one),
            "store locked": self._store_locked,
            "clients cut": self._clients_cut,
            "clients asleep": self._clients_asleep,
            "clients new": self._clients_new,
        }
        # What stops or starts the server's process waits for what did so before.
        self._process = asyncio.Lock()

    async def do(self, injection: Injection) -> None:
        """Do one, from its time on, and undo it."""
        await asyncio.sleep(injection.at_s)
        self.done[injection.name] += 1
        if injection.name in _RULES:
            await self._rule(injection)
            return
        try:
            await self._others[injection.name](injection)
        except (NodeUnreachable, RpcError) as error:
            # Another fault of the same round has the node: this one can't be done now.
            self._stage.chain.refused[f"{injection.name}: {type(error).__name__}"] += 1

    def heal(self) -> None:
        """Undo what a cancelled fault may have left."""
        for proxy in self._stage.proxies:
            proxy.clear()
        for client in self._clients():
            client.relay.release()
        self._stage.chain.node.thaw()

    # --- between the server and its endpoints -----------------------------------------------------------

    def _proxies(self, injection: Injection) -> list[FaultProxy]:
        return [self._stage.proxies[index] for index in injection.params["proxies"]]

    async def _rule(self, injection: Injection) -> None:
        params = injection.params
        action = _RULES[injection.name](params)
        rules = [proxy.add(action, *params["methods"], chance=params["chance"]) for proxy in self._proxies(injection)]
        await asyncio.sleep(injection.for_s)
        for rule in rules:
            self.hits[injection.name] += rule.hits
            rule.remove()

    async def _old_heads(self, injection: Injection) -> None:
        head = int((await self._stage.chain.head())["number"], 16)
        for _ in range(injection.params["times"]):
            number = hex(max(head - injection.params["back"], 0))
            header = await self._stage.chain.node.rpc("eth_getBlockByNumber", [number, False])
            for proxy in self._proxies(injection) if header else ():
                self.hits[injection.name] += await proxy.announce(header)
            await asyncio.sleep(injection.for_s / injection.params["times"])

    async def _freeze(self, injection: Injection) -> None:
        for proxy in self._proxies(injection):
            proxy.freeze()
        await asyncio.sleep(injection.for_s)
        for proxy in self._proxies(injection):
            proxy.thaw()

    async def _away(self, injection: Injection) -> None:
        for proxy in self._proxies(injection):
            await proxy.down()
        await asyncio.sleep(injection.for_s)
        for proxy in self._proxies(injection):
            await proxy.up()

    async def _reset(self, injection: Injection) -> None:
        for proxy in self._proxies(injection):
            self.hits[injection.name] += proxy.sockets
            proxy.cut()

    async def _fork(self, injection: Injection) -> None:
        """Have endpoints answer from another chain that shares our past, with blocks and trades of its own."""
        chain = self._stage.chain
        async with chain.twin() as twin:
            for _ in range(injection.params["ahead"]):
                await twin.step()
            for proxy in self._proxies(injection):
                proxy.switch(twin.gate.http_url, twin.gate.ws_url)
                if injection.params["cut"]:
                    proxy.cut()
            try:
                async with twin.trading(_TWIN_BLOCK_S):
                    await asyncio.sleep(injection.for_s)
            finally:
                for proxy in self._proxies(injection):
                    proxy.switch(chain.gate.http_url, chain.gate.ws_url)
                    proxy.cut()

    # --- the server and its clients ---------------------------------------------------------------------

    async def _alone(self, do: Callable[[float], Awaitable[None]], injection: Injection) -> None:
        async with self._process:
            await do(injection.for_s)

    async def _store_locked(self, injection: Injection) -> None:
        await asyncio.gather(*(server.lock_for(injection.for_s) for server in self._stage.servers))

    def _clients(self) -> list[Any]:
        return [client for server in self._stage.servers for client in server.clients]

    def _some(self, injection: Injection) -> list[Any]:
        share = injection.params["share"]
        rng = random.Random(f"{injection.at_s}")
        return [client for client in self._clients() if rng.random() < share]

    async def _clients_cut(self, injection: Injection) -> None:
        for client in self._some(injection):
            client.relay.cut()

    async def _clients_asleep(self, injection: Injection) -> None:
        some = self._some(injection)
        for client in some:
            client.relay.hold("to client")
        await asyncio.sleep(injection.for_s)
        for client in some:
            client.relay.release()

    async def _clients_new(self, injection: Injection) -> None:
        for client in self._some(injection):
            client.renew()
