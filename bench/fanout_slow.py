"""The scenario `slow` of the fan-out bench: what the others notice of a client that does not read.

One server and the same clients for all turns; only whether one more client reads differs between a turn and its
pair. That client keeps a real copy, so that it can be told whether it converged: not from its seq alone.
"""

import argparse
import asyncio
import json
import socket
import statistics
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from bench.common_counters import resident_kib
from bench.common_ws import Frames, connect, masked_text
from bench.fanout_contenders import OURS
from bench.fanout_load import Loader
from bench.fanout_turns import WARM_UP, Seat, open_seat
from rtserver.client.replica import Replica, Verdict
from rtserver.hub.session import LAG_BYTES
from rtserver.wire.checksum import checksum_of
from rtserver.wire.messages import Block, ErrorMessage, Snapshot, decode_server

__all__ = ["measure_slow"]

# Pairs of turns: enough that one disturbed turn decides nothing.
_PAIRS: Final = 8
_CHANNEL: Final = "position:1:uniswap-v3:1"
_BYTES: Final = 2000
_INTERVAL_S: Final = 0.05
# 64 KiB lie before a lag, and some MB in the kernel before these.
_FILL_BURST: Final = 8
_FILL_BURSTS: Final = 400
_FILL_BYTES: Final = 16_000
# Small, so that it is soon full, but more than one segment of the loopback: below that the kernel all but stops.
_RECEIVE_BYTES: Final = 128 * 1024
_ANSWER_S: Final = 10.0
_LOOK_S: Final = 0.01


class _Silent:
    """A client that reads or does not, as it is told, and the copy that it keeps."""

    def __init__(self, port: int) -> None:
        self._socket, rest = connect(f"ws://127.0.0.1:{port}/ws")
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self._frames = Frames(rest)
        self._socket.sendall(masked_text(json.dumps({"type": "subscribe", "channel": _CHANNEL}).encode()))
        self._socket.setblocking(False)
        self.copy = Replica(_CHANNEL)
        self.merged = 0

    def read(self) -> None:
        """Take what comes from now on."""
        asyncio.get_running_loop().add_reader(self._socket, self._take)

    def fall_silent(self) -> None:
        """Take nothing any more."""
        asyncio.get_running_loop().remove_reader(self._socket)

    def close(self) -> None:
        """End the connection."""
        self.fall_silent()
        self._socket.close()

    def _take(self) -> None:
        chunk = self._socket.recv(1 << 18)
        if not chunk:
            raise ConnectionError("the server sent the silent client away")
        for text in self._frames.take(chunk):
            match decode_server(text):
                case Snapshot() as snapshot:
                    self._check(self.copy.take(snapshot))
                case Block() as block:
                    for change in block.changes:
                        self.merged += change.seq - change.prev > 1
                        self._check(self.copy.apply(change, block.block))
                case ErrorMessage() as error:
                    raise RuntimeError(error.message)
                case _:
                    pass

    def _check(self, verdict: Verdict) -> None:
        if verdict is not Verdict.APPLIED:
            raise RuntimeError(f"the silent client lost its place: {verdict.value}")


class _Turns:
    """One server, its clients, and the one that may fall silent."""

    def __init__(self, seat: Seat, silent: _Silent, port: int) -> None:
        self._seat = seat
        self._silent = silent
        self._port = port
        self.unsent_bytes: list[int] = []
        self.grown_kib: list[int] = []

    async def stats(self) -> dict[str, Any]:
        """Return what the server says of itself."""
        return await self._seat.server.ask('{"do":"stats"}', "stats", _ANSWER_S)

    async def turn(self, broadcasts: int, *, is_silent: bool) -> float:
        """Return the others' p99 in milliseconds; the silent client has everything again afterwards."""
        seat, pid = self._seat, self._seat.server.pid
        if is_silent:
            self._silent.fall_silent()
        for _ in range(_FILL_BURSTS):
            await seat.broadcast(count=_FILL_BURST, interval_s=0, bytes=_FILL_BYTES)
            if not is_silent or (await self.stats())["lagging_now"]:
                break
        else:
            raise RuntimeError("the silent client never lagged")
        await seat.broadcast(count=WARM_UP, interval_s=_INTERVAL_S, bytes=_BYTES)
        before = resident_kib(pid)
        report = await seat.broadcast(count=broadcasts, interval_s=_INTERVAL_S, bytes=_BYTES)
        if report["gaps"]:
            raise RuntimeError(f"{report['gaps']} changes did not continue what their client had")
        if is_silent:
            now = await self.stats()
            if now["lagging_now"] != 1:
                raise RuntimeError(f"{now['lagging_now']} clients lag, not the silent one alone")
            self.unsent_bytes.append(now["unsent"])
            self.grown_kib.append(resident_kib(pid) - before)
            self._silent.read()
        await self._converged()
        return float(report["p99_ms"])

    async def _converged(self) -> None:
        """Wait until the copy is where the server is; raise unless it is the same to the byte."""
        seq = (await self.stats())["seq"]
        deadline = time.monotonic() + _ANSWER_S
        while self._silent.copy.seq != seq:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the silent client is at {self._silent.copy.seq}, the server at {seq}")
            await asyncio.sleep(_LOOK_S)
        theirs = await asyncio.to_thread(_snapshot, self._port)
        copy = self._silent.copy
        ours = {"epoch": copy.epoch, "seq": copy.seq, "state": copy.state, "checksum": checksum_of(copy.state)}
        if ours != {name: theirs[name] for name in ours}:
            raise RuntimeError("the silent client's copy is not the server's")


def _snapshot(port: int) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}/api/v1/snapshot?channel={_CHANNEL}"
    with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


@asynccontextmanager
async def _open(loader: Loader, clients: int, folder: Path) -> AsyncIterator[_Turns]:
    everyone = folder / "channels"
    everyone.write_text(f"{_CHANNEL}\n" * clients)
    async with AsyncExitStack() as stack:
        seat = await open_seat(stack, OURS, loader, clients, folder, options=["--channels", str(everyone)])
        silent = _Silent(seat.port)
        stack.callback(silent.close)
        silent.read()
        yield _Turns(seat, silent, seat.port)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


async def measure_slow(
    options: argparse.Namespace, loader: Loader, folder: Path, tell: Callable[[str], None]
) -> tuple[dict[str, Any], str]:
    """Compare the others' latency with and without a client that does not read, in pairs of turns."""
    clients = (options.clients or [1000])[0] - 1
    pairs = options.rounds or _PAIRS
    p99: dict[bool, list[float]] = {False: [], True: []}
    async with _open(loader, clients, folder) as turns:
        for index in range(pairs):
            for is_silent in (False, True) if index % 2 == 0 else (True, False):
                p99[is_silent].append(await turns.turn(options.broadcasts, is_silent=is_silent))
            tell(f"pair {index + 1}: p99 {p99[False][-1]:.2f} ms, with the silent client {p99[True][-1]:.2f} ms")
    differences = [with_it - without for without, with_it in zip(p99[False], p99[True], strict=True)]
    result = {
        "scenario": "slow", "clients": clients + 1, "bytes": _BYTES, "pairs": pairs, "broadcasts": options.broadcasts,
        "p99_ms_without": _spread(p99[False]), "p99_ms_with": _spread(p99[True]),
        "p99_ms_difference": _spread(differences), "slower_pairs": sum(one > 0 for one in differences),
        "p99_ms_turns_without": p99[False], "p99_ms_turns_with": p99[True],
        "unsent_bytes": max(turns.unsent_bytes), "lag_bytes": LAG_BYTES,
        "grown_kib_while_lagging": max(turns.grown_kib), "converged": True,
    }  # fmt: skip
    without, with_it, difference = _spread(p99[False]), _spread(p99[True]), _spread(differences)
    text = (
        f"1 of {clients + 1} clients not reading, {pairs} pairs of turns, {options.broadcasts} broadcasts each;"
        " the others' p99, median (least to most):\n"
        f"  without it  {without['median']:6.2f} ms ({without['min']:.2f} to {without['max']:.2f})\n"
        f"  with it     {with_it['median']:6.2f} ms ({with_it['min']:.2f} to {with_it['max']:.2f})\n"
        f"  difference  {difference['median']:6.2f} ms ({difference['min']:.2f} to {difference['max']:.2f}),"
        f" slower in {result['slower_pairs']} of {pairs} pairs\n"
        f"unsent for it: {result['unsent_bytes']} bytes at most, where it lags from {LAG_BYTES} on;"
        f" the server grew by {result['grown_kib_while_lagging']} KiB at most meanwhile\n"
        "reading again, it had the server's state and checksum each time, without a gap"
    )
    return result, text
