"""The AsyncAPI document is valid, complete, and what really goes over the wire."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import msgspec
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from sim.simulation import Simulation
from sim.wire import Wire, payload_of

from rtserver.edge.docs import docs_routes
from rtserver.wire import messages as message_module
from rtserver.wire.asyncapi import CLOSE_MEANINGS, ERROR_MEANINGS, asyncapi_document
from rtserver.wire.asyncapi_examples import EXAMPLES
from rtserver.wire.codes import CloseCode, ErrorCode
from rtserver.wire.messages import ClientMessage, ServerMessage, decode_client, decode_server

from .parser import check

# Enough of each for every field to have been there and to have been left out.
_FRAMES_A_KIND = 400


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return asyncapi_document("1.2.3", "rtserver.example")


def _shape(frame: dict[str, Any]) -> str:
    inner = sorted({key for change in frame.get("changes", ()) for key in change})
    return f"{sorted(frame)} {inner}"


def _real_frames(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what the real hub wrote and real clients sent in some simulated runs, some of each shape."""
    frames: list[bytes] = []
    counts: Counter[str] = Counter()
    write = Wire.write

    def note(payload: bytes) -> None:
        shape = _shape(orjson.loads(payload))
        counts[shape] += 1
        if counts[shape] <= _FRAMES_A_KIND:
            frames.append(payload)

    def written(wire: Wire, data: bytes) -> None:
        note(payload_of(data))
        write(wire, data)

    def sent(text: bytes) -> ClientMessage:
        note(orjson.dumps(orjson.loads(text)))
        return decode_client(text)

    monkeypatch.setattr(Wire, "write", written)
    monkeypatch.setattr("sim.server.decode_client", sent)
    for seed in range(40):
        Simulation(seed).run()
    return frames


async def test_is_valid_and_true(document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = _real_frames(monkeypatch)
    (tmp_path / "asyncapi.json").write_bytes(orjson.dumps(document))
    (tmp_path / "frames.jsonl").write_bytes(b"\n".join(frames))
    report = await check(tmp_path / "asyncapi.json", tmp_path / "frames.jsonl")
    assert report["problems"] == []
    assert report["wrong"] == []
    assert set(report["seen"]) >= {
        "welcome", "snapshot", "subscribed", "unsubscribed", "block", "heartbeat", "error", "bye",
        "subscribe", "unsubscribe", "resync", "pong",
    }  # fmt: skip
    assert {"push", "subscribe", "subscribeOfPosition"} <= set(report["operations"])


async def test_a_wrong_frame_is_found(document: dict[str, Any], tmp_path: Path) -> None:
    """The check itself: a field too many, one too few, one of another type."""
    bye = {"type": "bye", "code": 4001, "reconnect": True}
    wrong = [{**bye, "extra": 1}, {"type": "bye", "code": 4001}, {**bye, "code": "4001"}, {"type": "hello"}]
    (tmp_path / "asyncapi.json").write_bytes(orjson.dumps(document))
    (tmp_path / "frames.jsonl").write_text("\n".join(map(json.dumps, [bye, *wrong])))
    report = await check(tmp_path / "asyncapi.json", tmp_path / "frames.jsonl")
    assert len(report["wrong"]) == len(wrong)


async def test_an_invalid_document_is_found(document: dict[str, Any], tmp_path: Path) -> None:
    broken = {**document, "operations": {"push": {"action": "shout", "channel": {"$ref": "#/channels/nowhere"}}}}
    (tmp_path / "asyncapi.json").write_bytes(orjson.dumps(broken))
    (tmp_path / "frames.jsonl").write_text("")
    report = await check(tmp_path / "asyncapi.json", tmp_path / "frames.jsonl")
    assert report["problems"]


def test_every_message_type_is_in_it(document: dict[str, Any]) -> None:
    schemas, messages = document["components"]["schemas"], document["components"]["messages"]
    types = [
        value
        for name in message_module.__all__
        if isinstance(value := getattr(message_module, name), type) and issubclass(value, msgspec.Struct)
    ]
    assert {one.__name__ for one in types} == set(schemas)
    on_the_wire = {*get_args(ServerMessage), *get_args(ClientMessage)}
    assert {one.__struct_config__.tag for one in on_the_wire} == set(messages)
    assert on_the_wire == set(EXAMPLES)
    for one in types:
        assert set(one.__struct_encode_fields__) == set(schemas[one.__name__]["properties"]) - {"type"}
        assert schemas[one.__name__]["description"]
    for channel in document["channels"].values():
        assert set(channel["messages"]) == set(messages)


def test_every_code_is_in_it(document: dict[str, Any]) -> None:
    assert set(CLOSE_MEANINGS) == set(CloseCode)
    assert set(ERROR_MEANINGS) == set(ErrorCode)
    errors = document["components"]["schemas"]["ErrorMessage"]["properties"]["code"]["description"]
    assert all(f"| {code} |" in errors for code in ErrorCode)
    for channel in document["channels"].values():
        assert all(f"| {code.value} |" in channel["description"] for code in CloseCode)


def test_examples_are_messages(document: dict[str, Any]) -> None:
    servers = {one.__struct_config__.tag for one in get_args(ServerMessage)}
    for tag, message in document["components"]["messages"].items():
        for example in message["examples"]:
            decode = decode_server if tag in servers else decode_client
            assert decode(orjson.dumps(example["payload"])) in EXAMPLES[type(decode(orjson.dumps(example["payload"])))]


async def test_is_served_for_the_address_it_was_asked_at() -> None:
    app = web.Application()
    app.add_routes(docs_routes("1.2.3"))
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/asyncapi.json", headers={"Host": "rtserver.example:8443"})
        assert response.status == 200
        assert response.content_type == "application/json"
        body = await response.json()
    assert body["asyncapi"] == "3.0.0"
    assert body["info"]["version"] == "1.2.3"
    assert body["servers"]["here"] == {"host": "rtserver.example:8443", "protocol": "ws"}
    assert body["channels"]["position"]["address"] == "/ws/positions/{tokenId}"
