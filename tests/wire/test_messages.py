"""Messages there and back, and what is refused."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtserver.wire import messages as m
from rtserver.wire.codes import PROTOCOL, CloseCode, ErrorCode

BLOCK = m.BlockRefMessage(number=5, hash="0xab", parent_hash="0xaa", timestamp=1700)
HEAD = m.HeadMessage(number=5, hash="0xab", timestamp=1700, age_ms=12)
CHANGE = m.ChangeMessage(
    channel="c", epoch="e", prev=3, seq=5, cursor="e.5.ab", set={"k": {"a": None}}, patch={"p": {"b": "1"}},
    remove=["r"], checksum=2**32 - 1,
)  # fmt: skip

CLIENT: list[m.ClientMessage] = [
    m.Auth(token="t"),
    m.Subscribe(channel="head:1", id=1),
    m.Subscribe(channel="head:1", id="x", cursor="e.1.ab", mode="latest"),
    m.Unsubscribe(channel="head:1"),
    m.Resync(channel="head:1", reason="gap"),
    m.Refresh(token="t", id=2),
    m.Pong(),
]
SERVER: list[m.ServerMessage] = [
    m.Welcome(session="s", protocol=PROTOCOL, limits={"channels": 1}, heartbeat_ms=15000, heads={"1": HEAD}),
    m.Snapshot(
        channel="c", epoch="e", seq=0, block=BLOCK, state={"k": {"a": 1}}, checksum=7, cursor="x", part=1, parts=2
    ),
    m.Subscribed(channel="c", how="resumed", epoch="e", seq=1, cursor="x", id=9),
    m.Unsubscribed(channel="c"),
    m.Block(chain_id=1, block=BLOCK, changes=[CHANGE]),
    m.Block(
        chain_id=1,
        block=BLOCK,
        changes=[],
        rollback=m.RollbackMessage(to=m.RollbackTo(number=4, hash="0xaa"), dropped=["0xab"]),
    ),
    m.Heartbeat(time=1, heads={"1": HEAD}, seqs={"c": 4}),
    m.ErrorMessage(code="rate", message="slow", retry_after_ms=5),
    m.Bye(code=4001, reconnect=True, after_ms=100),
]


@pytest.mark.parametrize("message", CLIENT, ids=lambda message: type(message).__name__)
def test_client_messages_round_trip(message: m.ClientMessage) -> None:
    assert m.decode_client(m.encode(message)) == message


@pytest.mark.parametrize("message", SERVER, ids=lambda message: type(message).__name__)
def test_server_messages_round_trip(message: m.ServerMessage) -> None:
    assert m.decode_server(m.encode(message)) == message


def test_names_on_the_wire_are_camel_case() -> None:
    text = m.encode(m.Block(chain_id=1, block=BLOCK, changes=[CHANGE]))
    assert b'"chainId":1' in text
    assert b'"parentHash":"0xaa"' in text
    assert b'"type":"block"' in text
    assert b'"rollback"' not in text
    assert m.encode(m.Bye(code=4001, reconnect=True, after_ms=3)).count(b'"afterMs":3') == 1


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "1", '"subscribe"', "{}", '{"type":"nothing"}', '{"type":"subscribe"}', '{"type":null}',
        '{"type":"subscribe","channel":5}', '{"type":"subscribe","channel":"c","mode":"fast"}',
        '{"type":"subscribe","channel":"c","id":1.5}', '{"type":"subscribe","channel":"c","id":[]}',
        '{"type":"snapshot"}', '{"type":"auth"}', "\x00", '{"type":"pong"}x',
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        m.decode_client(text)
    assert str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(msgspec.DecodeError):
        assert isinstance(m.decode_client(data), m.ClientMessage)


def test_unknown_fields_are_for_later_versions() -> None:
    assert m.decode_client('{"type":"pong","new":1}') == m.Pong()


def test_codes_say_whether_to_come_back() -> None:
    for code in CloseCode:
        assert 4000 <= code < 5000
        assert code.reconnect == (code < 4500)
    assert {code.value for code in CloseCode} >= {4001, 4005, 4008, 4012, 4013, 4500, 4501, 4503, 4504}
    assert {code.value for code in ErrorCode} == {
        "unauthorized", "bad_channel", "bad_request", "limit", "rate", "token_expired", "unrecoverable",
        "chain_unavailable", "load_timeout",
    }  # fmt: skip
