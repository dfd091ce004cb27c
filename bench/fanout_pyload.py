"""The load generator for machines without a C compiler: the same options, commands and answers as loadgen.c.

One epoll loop in Python that times each chunk before it looks at it. It costs more than many of the servers
that it measures, so latencies from it are of the pair; the servers' CPU time is still their own.
"""

import argparse
import json
import os
import re
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Final

from bench.common_ws import Frames, connect, masked_text

__all__ = ["PyLoad"]

_CHUNK: Final = 1 << 18
_POLL_S: Final = 0.02
_CHANGE: Final = re.compile(rb'\{"channel":"([^"]+)","epoch":"[^"]*".*?"prev":(\d+),"seq":(\d+).*?"cursor":"([^"]+)"')
_NAMED: Final = re.compile(rb'"channel":"([^"]+)".*?"seq":(\d+)')
_CURSOR: Final = re.compile(rb'"cursor":"([^"]+)"[^}]*\}$')
_COUNTS: Final = (
    "frames", "bytes", "reads", "gaps", "snapshots", "joins", "resumed", "heartbeats", "errors", "strangers", "lost",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class _Client:
    channels: list[bytes]
    connection: socket.socket | None = None
    frames: Frames = field(default_factory=Frames)
    greetings: int = 0
    broadcasts: int = 0
    joined: set[bytes] = field(default_factory=set)
    seqs: dict[bytes, int] = field(default_factory=dict)
    cursors: dict[bytes, str] = field(default_factory=dict)
    is_ready: bool = False


class PyLoad:
    """Many clients of one server, in this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        lines: list[list[bytes]] = []
        if options.channels:
            with open(options.channels, "rb") as file:
                lines = [line.split() for line in file]
        self._clients = [_Client(lines[index] if index < len(lines) else []) for index in range(options.clients)]
        self._marker = re.compile(re.escape(options.marker.encode()) + rb"(\d+)")
        self._epoll = select.epoll()
        self._by_fd: dict[int, _Client] = {}
        self._pending: list[tuple[_Client, int, bytes]] = []
        self._commands = b""
        self._opening: float | None = None
        self._waiting: tuple[int, float] | None = None
        self._error = ""
        self._reset()

    def _reset(self) -> None:
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._latencies: list[int] = []
        self._broadcasts: dict[int, list[int]] = {}
        self._error = ""
        self._began = time.monotonic_ns(), time.process_time_ns()
        for client in self._clients:
            client.broadcasts = 0

    # --- clients --------------------------------------------------------------------------------------

    def _open(self, client: _Client) -> None:
        options = self._options
        connection, rest = connect(f"ws://{options.host}:{options.port}{options.path}")
        client.connection, client.frames = connection, Frames(rest)
        client.greetings, client.is_ready = 0, False
        client.joined.clear()
        if options.hello:
            connection.sendall(masked_text(options.hello.encode()))
        for index, name in enumerate(client.channels):
            words: dict[str, Any] = {"type": "subscribe", "id": index, "channel": name.decode()}
            if name in client.cursors:
                words["cursor"] = client.cursors[name]
            connection.sendall(masked_text(json.dumps(words).encode()))
        connection.setblocking(False)
        self._by_fd[connection.fileno()] = client
        self._epoll.register(connection, select.EPOLLIN)
        self._pending.append((client, time.monotonic_ns(), b""))

    def _close(self, client: _Client) -> None:
        if client.connection is not None:
            self._by_fd.pop(client.connection.fileno(), None)
            # By RST, as the compiled one does: two ints, on and zero seconds.
            client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.connection.close()
        client.connection, client.is_ready = None, False

    def _lose(self, client: _Client, why: str) -> None:
        self._counts["lost"] += 1
        self._error = self._error or why
        self._close(client)

    def _check_ready(self, client: _Client) -> None:
        if client.is_ready or len(client.joined) < len(client.channels):
            return
        if client.greetings < self._options.greetings:
            return
        client.is_ready = True

    # --- frames ---------------------------------------------------------------------------------------

    def _digest(self) -> None:
        pending, self._pending = self._pending, []
        for client, at, chunk in pending:
            try:
                for text in client.frames.take(chunk):
                    self._take(client, at, text)
            except ConnectionError as error:
                self._lose(client, str(error))
            else:
                self._check_ready(client)

    def _take(self, client: _Client, at: int, text: bytes) -> None:
        self._counts["frames"] += 1
        if client.greetings < self._options.greetings:
            client.greetings += 1
            return
        if self._options.channels and not self._take_message(client, text):
            return
        found = self._marker.search(text)
        if found is None:
            return
        stamp = int(found[1])
        seen = self._broadcasts.setdefault(stamp, [0, at, at])
        seen[0] += 1
        seen[2] = at
        self._latencies.append(at - stamp)
        client.broadcasts += 1

    def _take_message(self, client: _Client, text: bytes) -> bool:
        counts = self._counts
        if text.startswith(b'{"type":"block"'):
            for name, prev, seq, cursor in _CHANGE.findall(text):
                counts["gaps"] += client.seqs.get(name) != int(prev)
                client.seqs[name], client.cursors[name] = int(seq), cursor.decode()
            return True
        is_join = text.startswith(b'{"type":"subscribed"')
        if is_join or text.startswith(b'{"type":"snapshot"'):
            counts["joins" if is_join else "snapshots"] += 1
            counts["resumed"] += is_join and b'"how":"resumed"' in text
            named, cursor_found = _NAMED.search(text), _CURSOR.search(text)
            if named is None or cursor_found is None:
                counts["strangers"] += 1
                return False
            client.seqs[named[1]], client.cursors[named[1]] = int(named[2]), cursor_found[1].decode()
            if is_join:
                client.joined.add(named[1])
        elif text.startswith(b'{"type":"heartbeat"') and client.connection is not None:
            counts["heartbeats"] += 1
            client.connection.send(masked_text(b'{"type":"pong"}'))
        elif text.startswith((b'{"type":"error"', b'{"type":"bye"')):
            counts["errors"] += 1
            self._error = self._error or text.decode()[:200]
        return False

    # --- commands -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Take commands until there are no more."""
        self._epoll.register(0, select.EPOLLIN)
        while True:
            for descriptor, _ in self._epoll.poll(_POLL_S):
                if descriptor == 0:
                    words = os.read(0, 4096)
                    if not words:
                        return
                    *lines, self._commands = (self._commands + words).split(b"\n")
                    for line in lines:
                        self._obey(line.decode().split())
                elif (client := self._by_fd.get(descriptor)) is not None and client.connection is not None:
                    self._read(client, client.connection)
            self._digest()
            self._go_on()

    def _read(self, client: _Client, connection: socket.socket) -> None:
        try:
            chunk = connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(client, str(error))
            return
        if not chunk:
            self._lose(client, "the server went away")
            return
        self._counts["reads"] += 1
        self._counts["bytes"] += len(chunk)
        self._pending.append((client, time.monotonic_ns(), chunk))

    def _obey(self, words: list[str]) -> None:
        match words:
            case ["open"]:
                self._opening = time.monotonic()
                for client in self._clients:
                    if client.connection is None:
                        try:
                            self._open(client)
                        except OSError as error:
                            self._lose(client, str(error))
            case ["reset"]:
                self._reset()
                _say("reset")
            case ["wait", broadcasts, milliseconds]:
                self._waiting = int(broadcasts), time.monotonic() + int(milliseconds) / 1000
            case ["drop"]:
                for client in self._clients:
                    self._close(client)
                _say("dropped")
            case ["seqs", expected]:
                seqs = [client.seqs.get(name) for client in self._clients for name in client.channels]
                _say("seqs", channels=len(seqs), wrong=sum(1 for seq in seqs if seq != int(expected)))
            case _:
                raise ValueError(f"no command {words}")

    def _go_on(self) -> None:
        ready = sum(client.is_ready for client in self._clients) if self._opening or self._waiting else 0
        if self._opening is not None and (ready == len(self._clients) or self._counts["lost"]):
            seconds, self._opening = time.monotonic() - self._opening, None
            _say("open", clients=ready, lost=self._counts["lost"], seconds=seconds, error=self._error)
        if self._waiting is not None:
            wanted, until = self._waiting
            seen = [client.broadcasts for client in self._clients]
            is_complete = min(seen, default=0) >= wanted
            if is_complete or self._counts["lost"] or time.monotonic() > until:
                self._waiting = None
                self._report(ready, seen, is_complete)

    def _report(self, ready: int, seen: list[int], is_complete: bool) -> None:
        ordered = sorted(self._latencies)
        shares = {
            name: round(ordered[min(int(share * len(ordered)), len(ordered) - 1)] / 1e6, 4) if ordered else 0.0
            for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99), ("max_ms", 1.0))
        }
        began, cpu = self._began
        _say(
            "report",
            complete=is_complete,
            clients=ready,
            least=min(seen, default=0),
            most=max(seen, default=0),
            samples=len(ordered),
            cpu_ms=(time.process_time_ns() - cpu) / 1e6,
            wall_ms=(time.monotonic_ns() - began) / 1e6,
            error=self._error,
            broadcasts=[
                [stamp, count, (first - stamp) / 1e6, (last - stamp) / 1e6]
                for stamp, (count, first, last) in self._broadcasts.items()
            ],
            **self._counts,
            **shares,
        )


def _say(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="bench.fanout_pyload")
    for name, default in (("host", "127.0.0.1"), ("path", "/"), ("hello", ""), ("marker", '"t":'), ("channels", "")):
        parser.add_argument(f"--{name}", default=default)
    for name in ("port", "clients", "sources", "greetings", "in-flight"):
        parser.add_argument(f"--{name}", type=int, default=0)
    PyLoad(parser.parse_args()).run()


if __name__ == "__main__":
    _main()
