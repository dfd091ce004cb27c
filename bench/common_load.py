"""The clients' side of block_to_socket, a process of its own: one bare newHeads subscriber and many clients.

One epoll loop takes the time of every chunk before it looks at it, and reads frames only once all is quiet,
so it is never what is measured. Speaks with its parent in JSON lines: settings in, `joined`, `block` and
`window` events and one `result` out. Judges nothing but that no change was missed.
"""

import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bench.common_ws import Frames, connect, masked_text

__all__ = ["Generator"]

# No bytes for this long: the block is through. Frames of one block come within a fraction of it.
_QUIET_S: Final = 0.06
_CHUNK: Final = 1 << 18
_JOIN_TIMEOUT_S: Final = 60.0
# A chain that makes no block for this long has ended.
_BLOCK_TIMEOUT_S: Final = 30.0


@dataclass(slots=True, eq=False)
class _Client:
    index: int
    connection: socket.socket
    frames: Frames
    waiting: set[str]
    seqs: dict[str, int] = field(default_factory=dict)


class Generator:
    """One run of the load.

    Args:
        head_url: The node's WebSocket.
        server_url: The server's `/ws`; None follows heads only.
        clients: The channels of each client.
        warm_up: Blocks to let pass after everyone joined.
        blocks: Blocks to measure.
    """

    def __init__(
        self, *, head_url: str, server_url: str | None, clients: list[list[str]], warm_up: int, blocks: int
    ) -> None:
        self._warm_up, self._blocks = warm_up, blocks
        self._server_url, self._wanted = server_url, clients
        self._epoll = select.epoll()
        self._clients: dict[int, _Client] = {}
        self._head, rest = connect(head_url)
        self._head_frames = Frames(rest)
        self._pending: list[tuple[_Client | None, int, bytes]] = []
        self._joining = 0
        self._joined = False
        # Block hash → (number, nanoseconds at which the subscriber had the whole message, whether all was quiet).
        self._heads: dict[str, tuple[int, int, bool]] = {}
        self._arrivals: dict[str, dict[int, int]] = {}
        self._bytes = self._later_frames = self._gaps = 0
        self._polls = self._ready = 0
        self._measured: list[str] = []

    def run(self) -> None:
        """Join everyone, wait for the window to pass, report."""
        self._head.sendall(
            masked_text(orjson.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}))
        )
        self._register(self._head)
        started = time.monotonic()
        self._join()
        deadline = time.monotonic() + _JOIN_TIMEOUT_S
        while self._joining:
            self._poll()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._joining} clients did not get their snapshots")
        self._joined = True
        _say("joined", seconds=time.monotonic() - started)
        self._heads.clear()
        self._arrivals.clear()
        last = time.monotonic()
        while len(self._measured) < self._blocks:
            before = len(self._heads)
            self._poll()
            if len(self._heads) > before:
                last = time.monotonic()
            elif time.monotonic() - last > _BLOCK_TIMEOUT_S:
                raise TimeoutError("no block for long")
        self._report()

    def _register(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._epoll.register(connection, select.EPOLLIN)

    def _join(self) -> None:
        if self._server_url is None:
            return
        for index, channels in enumerate(self._wanted):
            connection, rest = connect(self._server_url)
            client = _Client(index, connection, Frames(rest), set(channels))
            self._clients[connection.fileno()] = client
            self._joining += 1
            connection.sendall(
                b"".join(
                    masked_text(orjson.dumps({"type": "subscribe", "id": number, "channel": channel}))
                    for number, channel in enumerate(channels)
                )
            )
            self._register(connection)

    def _poll(self) -> None:
        """Take what is there with its time; look at it once nothing more comes."""
        events = self._epoll.poll(_QUIET_S)
        if not events:
            self._digest()
            return
        self._polls += 1
        self._ready += len(events)
        head = self._head.fileno()
        for descriptor, _ in events:
            client = None if descriptor == head else self._clients[descriptor]
            connection = self._head if client is None else client.connection
            chunk = connection.recv(_CHUNK)
            now = time.perf_counter_ns()
            if not chunk:
                raise ConnectionError("the node went away" if client is None else "the server went away")
            self._pending.append((client, now, chunk))

    def _digest(self) -> None:
        pending, self._pending = self._pending, []
        quiet = True
        news: list[str] = []
        for client, at, chunk in pending:
            if client is None:
                for text in self._head_frames.take(chunk):
                    params = orjson.loads(text).get("params")
                    if params is not None:
                        block = params["result"]
                        self._heads[block["hash"]] = (int(block["number"], 16), at, quiet)
                        news.append(block["hash"])
                continue
            quiet = False
            self._bytes += len(chunk)
            for text in client.frames.take(chunk):
                self._take(client, at, orjson.loads(text))
        for block_hash in news:
            self._finish(block_hash)

    def _take(self, client: _Client, at: int, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "block":
            times = self._arrivals.setdefault(message["block"]["hash"], {})
            if client.index in times:
                self._later_frames += 1
            else:
                times[client.index] = at
            for change in message["changes"]:
                if client.seqs.get(change["channel"]) != change["prev"]:
                    self._gaps += 1
                client.seqs[change["channel"]] = change["seq"]
        elif kind == "snapshot":
            client.seqs[message["channel"]] = message["seq"]
        elif kind == "subscribed":
            client.waiting.discard(message["channel"])
            if not client.waiting:
                self._joining -= 1
        elif kind == "heartbeat":
            client.connection.sendall(masked_text(b'{"type":"pong"}'))
        elif kind in ("error", "bye"):
            raise ConnectionError(f"the server said {message}")

    def _finish(self, block_hash: str) -> None:
        """A block is through: all its frames were read."""
        if not self._joined:
            return
        seen = len(self._heads)
        if seen > self._warm_up:
            self._measured.append(block_hash)
        _say("block", hash=block_hash, measured=len(self._measured), clients=len(self._arrivals.get(block_hash, ())))
        if seen == self._warm_up:
            self._bytes = self._polls = self._ready = 0
            _say("window", state="open")
        elif len(self._measured) == self._blocks:
            _say("window", state="closed")

    def _report(self) -> None:
        samples = [
            [at - self._heads[block_hash][1] for at in self._arrivals.get(block_hash, {}).values()]
            for block_hash in self._measured
        ]
        _say(
            "result",
            heads={block_hash: self._heads[block_hash][:2] for block_hash in self._measured},
            samples_ns=samples,
            bytes=self._bytes,
            later_frames=self._later_frames,
            gaps=self._gaps,
            busy_heads=sum(1 for block_hash in self._measured if not self._heads[block_hash][2]),
            ready_per_poll=self._ready / max(self._polls, 1),
        )


def _say(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    Generator(**json.loads(sys.stdin.readline())).run()
