"""What `tail` shows, and how it starts, ends and fails."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from client.messages import Told, block_frame, block_json
from client.scripted import ScriptedServer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rtserver.client.events import Update
from rtserver.domain.diff import Change, State
from rtserver.tools.addresses import BadUrl, http_base, ws_url
from rtserver.tools.render import HeadLine, amount_text, plain_lines, table, view_of
from rtserver.tools.tail import run_tail
from rtserver.wire.messages import BlockRefMessage, RollbackMessage, RollbackTo

OWNER = "owner:31337:0xAbCd000000000000000000000000000000000001"
POSITION: dict[str, Any] = {
    "tokenId": "12", "pair": "WETH/[red]USDC", "feePips": 500, "tickLower": -10, "tickUpper": 20, "liquidity": "5",
    "isActive": True, "isStaked": False, "amount0": "1234567890123456789", "amount1": "1500000",
    "fees0": "0", "fees1": None, "valueUSD": "12.50", "feesUSD": None,
    "token0": {"symbol": "WETH", "decimals": 18}, "token1": {"symbol": "[red]USDC", "decimals": 6},
}  # fmt: skip


def update_of(state: State, change: Change | None = None, *, channel: str = OWNER, **parts: Any) -> Update:
    return Update(
        channel=channel, kind="change" if change else "snapshot", epoch="e", seq=3, state=state, change=change,
        block=BlockRefMessage(number=1234, hash="0x" + "ab" * 32, timestamp=1), **parts,
    )  # fmt: skip


@given(raw=st.integers(0, 2**256 - 1), decimals=st.integers(0, 77))
def test_amounts_are_exact(raw: int, decimals: int) -> None:
    whole, _, part = amount_text(str(raw), decimals).partition(".")
    assert int(whole + part.ljust(decimals, "0")) == raw
    cut = amount_text(str(raw), decimals, digits=10)
    assert amount_text(str(raw), decimals).startswith(cut.removesuffix("…"))


@pytest.mark.parametrize(
    ("raw", "decimals", "shown"),
    [
        ("1234567890123456789", 18, "1.23456789…"),
        ("1500000", 6, "1.5"),
        ("5", 18, "0.000000000000000005"),
        ("123456789012345678901", 18, "123.456789…"),
        ("7", None, "7 raw"),
        (None, 18, "–"),
        ("0", 18, "0"),
    ],
)
def test_amounts_as_a_table_shows_them(raw: str | None, decimals: int | None, shown: str) -> None:
    assert amount_text(raw, decimals, digits=10) == shown


def test_a_position_is_a_row() -> None:
    view = view_of(update_of({"u:12": POSITION, "u:9": POSITION}, Change(patch={"u:12": {"amount0": "1"}})))
    assert view.marks == {1}  # by number: 9 before 12
    row = view.rows[1]
    assert row[:5] == ("12", "WETH/[red]USDC", "0.05%", "-10 … 20", "yes")
    assert row[5] == "1.23456789… WETH + 1.5 [red]USDC"
    assert row[6:] == ("$12.50", "0 WETH + – [red]USDC –")


def test_lines_name_what_changed_and_what_went() -> None:
    rollback = RollbackMessage(to=RollbackTo(number=1232, hash="0x1"), dropped=["0x2", "0x3"])
    change = Change(patch={"u:12": {"amount0": "1"}}, remove=["u:7"])
    lines = plain_lines(update_of({"u:12": POSITION}, change, rollback=rollback))
    assert lines[0].endswith(f"seq 3 change: {OWNER} (rollback: 2 blocks dropped, back to 1232)")
    assert lines[1] == "  - u:7"
    assert "1.234567890123456789 WETH + 1.5 [red]USDC = $12.50" in lines[2]


def test_a_pool_is_its_fields_and_a_head_is_a_line() -> None:
    pool = update_of({"0x1": {"tick": 5, "price": None, "token0": {"symbol": "A"}}}, channel="pool:1:0x1")
    assert view_of(pool).rows == (("tick", "5"), ("price", "–"), ("token0", "A"))
    head = update_of({"head": {"number": 1234, "timestamp": 99}}, channel="head:1")
    assert [line.split()[-2:] for line in plain_lines(head)] == [["timestamp", "99"]]
    final = update_of({**head.state, "finalized": {"number": 1200, "timestamp": 55}}, channel="head:1")
    assert [line.split()[-4:] for line in plain_lines(final)] == [["finalized", "1200", "timestamp", "99"]]


def test_a_table_shows_text_as_text() -> None:
    out = io.StringIO()
    line = HeadLine(channel=OWNER, url="ws://x", connection="live", age_s=3.2, is_live=True, rollbacks=2)
    Console(file=out, width=200).print(table(update_of({"u:12": POSITION}), line))
    shown = out.getvalue()
    assert "WETH/[red]USDC" in shown and "block 1,234 0xabababab…, 3 s ago · seq 3 · live · 2 rollbacks" in shown
    out = io.StringIO()
    Console(file=out, width=200).print(table(update_of({}), line))
    assert "nothing here at this block" in out.getvalue()


@pytest.mark.parametrize(
    ("url", "socket", "base"),
    [
        ("http://h:1", "ws://h:1/ws", "http://h:1"),
        ("https://h/", "wss://h/ws", "https://h"),
        ("ws://h:1/ws", "ws://h:1/ws", "http://h:1"),
        ("wss://h/api/ws", "wss://h/api/ws", "https://h/api"),
        ("http://h/api", "ws://h/api/ws", "http://h/api"),
        ("ws://h/ws/positions/7", "ws://h/ws/positions/7", "http://h"),
    ],
)
def test_a_server_has_two_addresses(url: str, socket: str, base: str) -> None:
    assert (ws_url(url), http_base(url)) == (socket, base)


@pytest.mark.parametrize("url", ["h:1", "ftp://h", "http://", ""])
def test_what_is_no_server(url: str) -> None:
    with pytest.raises(BadUrl):
        ws_url(url)


async def test_tail_from_first_state_to_the_last_update() -> None:
    out = io.StringIO()
    told = Told(OWNER, {"u:12": POSITION})
    async with ScriptedServer() as server, asyncio.TaskGroup() as group:
        task = group.create_task(run_tail(server.url, OWNER.lower(), updates=3, console=Console(file=out, width=250)))
        peer = await server.next()
        await peer.join(told)
        block = block_json(2)
        await peer.send(block_frame(block, told.change(block, patch={"u:12": {"amount1": "2500000"}})))
        peer.cut()
        peer = await server.next()
        request = await peer.expect("subscribe")
        await peer.send(told.subscribed(request["id"], "resumed"))
        assert await task == 0
    lines = out.getvalue().splitlines()
    assert "snapshot" in lines[0] and "+ 1.5 [red]USDC" in lines[1]
    assert "change" in lines[2] and "+ 2.5 [red]USDC" in lines[3]
    assert lines[4].startswith("disconnected (the connection broke), again in")
    assert lines[5] == "connected again" and "resumed" in lines[6]


async def test_tail_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer() as server, asyncio.TaskGroup() as group:
        url = server.url
        task = group.create_task(run_tail(url, "nonsense"))
        peer = await server.next()
        request = await peer.expect("subscribe")
        await peer.send({"type": "error", "id": request["id"], "code": "bad_channel", "message": "channels are …"})
        assert await task == 2
    assert "nonsense: channels are … (bad_channel)" in capsys.readouterr().err
    assert await run_tail(url, OWNER) == 2
    said = capsys.readouterr().err
    assert url in said and "Is the server running" in said
    assert await run_tail("what?", OWNER) == 2
