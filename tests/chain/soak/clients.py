"""The soak's clients: the Python client with a wish list, and one in mode "latest"."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from faults.relay import Relay
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from rtserver.client import RtClient
from rtserver.client.errors import ConnectFailed, ConnectionEnded, SubscribeTimeout
from rtserver.client.events import BlockUpdate, Update
from rtserver.client.replica import Replica, Verdict
from rtserver.client.retry import Backoff
from rtserver.domain.diff import State
from rtserver.domain.errors import ClientError
from rtserver.tools.capture import Capture, Job
from rtserver.wire.messages import (
    Block,
    Bye,
    ErrorMessage,
    Heartbeat,
    Pong,
    Resync,
    Snapshot,
    Subscribe,
    Welcome,
    decode_server,
    encode,
)

__all__ = ["LatestClient", "WishClient"]

# Comes back soon, so that a round need not wait for it.
_BACK_S: Final = (0.1, 1.0)
_LOOK_S: Final = 0.3
# A feed that loses events would leave gaps in what is kept for the comparison.
_FEED_LIMIT: Final = 1 << 16
# What one client showed since the last quiet point; a round has some dozens of blocks.
_MOST_JOBS: Final = 1000


class WishClient:
    """`RtClient` that subscribes to what it wishes until it has it, and is replaced when it has ended.

    Args:
        name: For the account.
        port: The server's.
        wishes: Channels.
        capture: Makes what takes down all that is shown at each block, for a comparison with the chain later; None
            for nothing.
        others: Other servers' ports that do as well.
    """

    def __init__(
        self,
        name: str,
        port: int,
        wishes: Collection[str],
        capture: Callable[[], Capture] | None = None,
        others: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.relay = Relay(port, *others)
        self.wishes = set(wishes)
        self.failures: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self.shown: list[Job] = []
        self._capture = capture
        self._client: RtClient | None = None
        self._renew = asyncio.Event()

    @property
    def states(self) -> Mapping[str, State]:
        """Return what it shows."""
        return self._client.states if self._client is not None else {}

    @property
    def mismatches(self) -> int:
        """Return how many checksums did not match, over all its lives."""
        return self.totals["mismatches"] + (0 if self._client is None else self._client.stats.mismatches)

    def renew(self) -> None:
        """Leave, and come as somebody new."""
        self._renew.set()

    async def run(self) -> None:
        """Live until cancelled."""
        async with self.relay as relay:
            url = f"ws://127.0.0.1:{relay.port}/ws"
            while True:
                self._renew.clear()
                try:
                    async with RtClient(
                        url, subscribe_timeout_s=10.0, backoff=Backoff(min_s=_BACK_S[0], max_s=_BACK_S[1])
                    ) as client:
                        self._client = client
                        async with asyncio.TaskGroup() as group:
                            recording = group.create_task(self._record(client))
                            await self._live(client)
                            recording.cancel()
                except* ConnectFailed:
                    self.failures["not opened"] += 1
                except* ConnectionEnded:
                    self.failures["ended"] += 1
                finally:
                    self._retire()
                await asyncio.sleep(_BACK_S[0])

    def _retire(self) -> None:
        if (client := self._client) is None:
            return
        self._client = None
        for name in ("frames", "applied", "snapshots", "resumed", "proofs", "mismatches", "resyncs", "rollbacks", "reconnects", "invalid"):  # fmt: skip  # noqa: E501
            self.totals[name] += getattr(client.stats, name)
        self.totals.update({f"resync {reason}": count for reason, count in client.stats.reasons.items()})

    async def _live(self, client: RtClient) -> None:
        while not self._renew.is_set():
            for name in self.wishes - client.states.keys():
                if not client.is_connected:
                    break
                try:
                    await client.subscribe(name, queue_limit=1)
                except (ClientError, SubscribeTimeout) as error:
                    self.failures[getattr(error, "code", type(error).__name__)] += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._renew.wait()

    async def _record(self, client: RtClient) -> None:
        """Take down what is shown at each block."""
        if self._capture is None:
            return
        capture = self._capture()
        async for event in client.events(limit=_FEED_LIMIT):
            job = None
            if isinstance(event, Update):
                job = capture.take(event)
            elif isinstance(event, BlockUpdate):
                job = capture.take_block(event)
            if job is not None and len(self.shown) < _MOST_JOBS:
                self.shown.append(job)

    def take_shown(self) -> list[Job]:
        """Return what it showed since the last call."""
        shown, self.shown = self.shown, []
        return shown

    def account(self) -> Counter[str]:
        """Return its counters over all its lives; ends the present one's count."""
        self._retire()
        return self.totals


class LatestClient:
    """A client that wants the newest state only: copies and messages, nothing cleverer."""

    def __init__(self, name: str, port: int, wishes: Collection[str], others: Sequence[int] = ()) -> None:
        self.name = name
        self.relay = Relay(port, *others)
        self.wishes = set(wishes)
        self.failures: Counter[str] = Counter()
        self.totals: Counter[str] = Counter()
        self._replicas: dict[str, Replica] = {}
        self._healing: set[str] = set()
        self._socket: ClientConnection | None = None

    @property
    def states(self) -> Mapping[str, State]:
        """Return what it shows; a copy that waits for a snapshot is none."""
        return {
            name: each.state for name, each in self._replicas.items() if each.is_whole and name not in self._healing
        }

    @property
    def mismatches(self) -> int:
        """Return how many checksums did not match."""
        return self.totals["mismatches"]

    def renew(self) -> None:
        """Forget everything and come back."""
        self._replicas.clear()
        self.relay.cut()

    async def run(self) -> None:
        """Live until cancelled."""
        async with self.relay as relay:
            while True:
                try:
                    async with connect(
                        f"ws://127.0.0.1:{relay.port}/ws", compression=None, max_size=None, ping_interval=None
                    ) as socket:
                        async for data in socket:
                            await self._take(socket, data)
                except (WebSocketException, OSError, EOFError) as error:
                    self.failures[type(error).__name__] += 1
                self.totals["reconnects"] += 1
                await asyncio.sleep(_BACK_S[0])

    async def _take(self, socket: ClientConnection, data: str | bytes) -> None:
        message = decode_server(data)
        match message:
            case Welcome():
                self._healing = set(self.wishes)
                for name in sorted(self.wishes):
                    await self._subscribe(socket, name)
            case Snapshot():
                verdict = self._replica(message.channel).take(message)
                self._judge(verdict)
                if verdict is Verdict.APPLIED:
                    self._healing.discard(message.channel)
                    self.totals["snapshots"] += 1
                elif verdict is not Verdict.PARTIAL:
                    await self._resync(socket, message.channel, verdict)
            case Block():
                for change in message.changes:
                    replica = self._replica(change.channel)
                    verdict = replica.apply(change, message.block)
                    if change.channel in self._healing and verdict is not Verdict.APPLIED:
                        continue  # from before the snapshot that is on its way
                    self._judge(verdict)
                    if verdict is not Verdict.APPLIED:
                        await self._resync(socket, change.channel, verdict)
            case Heartbeat():
                await self._send(socket, Pong())
            case ErrorMessage():
                self.failures[message.code] += 1
                if isinstance(message.id, str) and message.id in self.wishes:
                    self._replicas.pop(message.id, None)
                    await asyncio.sleep(_LOOK_S)
                    await self._subscribe(socket, message.id)
            case Bye():
                self.totals["byes"] += 1
            case _:
                # `subscribed`: from here on nothing is missing.
                self._healing.discard(getattr(message, "channel", ""))

    def _judge(self, verdict: Verdict) -> None:
        self.totals[verdict.value] += 1
        self.totals["mismatches"] += verdict is Verdict.CHECKSUM

    def _replica(self, channel: str) -> Replica:
        return self._replicas.setdefault(channel, Replica(channel))

    async def _subscribe(self, socket: ClientConnection, name: str) -> None:
        await self._send(
            socket, Subscribe(channel=name, id=name[:64], cursor=self._replica(name).cursor, mode="latest")
        )

    async def _resync(self, socket: ClientConnection, channel: str, verdict: Verdict) -> None:
        self._healing.add(channel)
        self.totals[f"resync {verdict.value}"] += 1
        await self._send(socket, Resync(channel=channel, reason=verdict.value))

    async def _send(self, socket: ClientConnection, message: Any) -> None:
        await socket.send(encode(message), text=True)

    def take_shown(self) -> list[Job]:
        """Return nothing: it is compared at quiet points only."""
        return []

    def account(self) -> Counter[str]:
        """Return its counters."""
        return self.totals
