"""The shell against a server on a real socket: reconnects, resumes, byes, ends, slow listeners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from rtserver.client import (
    Backoff,
    Connected,
    ConnectFailed,
    ConnectionEnded,
    Disconnected,
    Event,
    EventFeed,
    RtClient,
    SubscribeTimeout,
)
from rtserver.domain.errors import ClientError

from .messages import CHAIN_ID, Told, block_frame, block_json, heartbeat
from .scripted import ScriptedServer

A = "owner:31337:0xAbCd000000000000000000000000000000000001"
B = "pool:31337:0xAbCd000000000000000000000000000000000002"
T = TypeVar("T")


class Sleeps:
    """Waits between attempts that take no time, taken down."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as started:
        yield started


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


@pytest.fixture
def told() -> Told:
    return Told(A, {"u:1": {"amount0": "5"}})


def client_of(
    server: ScriptedServer, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, **options: Any
) -> RtClient:
    return RtClient(server.url, backoff=Backoff(random_unit=lambda: 0.5), sleep=sleep, **options)


async def both(one: Coroutine[Any, Any, Any], other: Coroutine[Any, Any, T]) -> T:
    """Run the server's part and the client's, and return what the client got."""
    async with asyncio.TaskGroup() as group:
        group.create_task(one)
        task = group.create_task(other)
    return task.result()


async def until(feed: EventFeed[Event], kind: type[T]) -> T:
    """Return the feed's next event of a kind."""
    async with asyncio.timeout(10):
        async for event in feed:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the feed ended before a {kind.__name__}")


async def test_a_channel_as_an_iterator(server: ScriptedServer, told: Told) -> None:
    async with client_of(server) as client:
        peer = await server.next()
        subscription = await both(peer.join(told, parts=2), client.subscribe(A.lower()))
        assert subscription.channel == A and client.is_connected and client.checksum_ok
        block = block_json(2)
        await peer.send(block_frame(block, told.change(block, patch={"u:1": {"amount0": "6"}}, prove=True)))
        first = await anext(subscription)
        second = await anext(subscription)
        assert [first.kind, second.kind] == ["snapshot", "change"]
        assert second.state == {"u:1": {"amount0": "6"}} == subscription.state == client.states[A]
        assert client.stats.proofs == 2


async def test_blocks_hold_the_changes_of_all_channels(server: ScriptedServer, told: Told) -> None:
    pool = Told(B, {"p": {"tick": 1}})
    async with client_of(server) as client:
        peer = await server.next()
        blocks = client.blocks()
        await both(peer.join(told), client.subscribe(A))
        await both(peer.join(pool), client.subscribe(B))
        block = block_json(2)
        changes = told.change(block, patch={"u:1": {"amount0": "6"}}), pool.change(block, patch={"p": {"tick": 2}})
        await peer.send(block_frame(block, *changes))
        frame = await anext(blocks)
        assert (frame.chain_id, frame.block.number) == (CHAIN_ID, 2)
        assert [update.channel for update in frame.changes] == [A, B]
        blocks.close()
        with pytest.raises(StopAsyncIteration):
            await anext(blocks)


async def test_two_listeners_of_one_channel_ask_once(server: ScriptedServer, told: Told) -> None:
    async with client_of(server) as client:
        peer = await server.next()
        one = await both(peer.join(told), client.subscribe(A))
        other = await client.subscribe(A.lower())
        assert (await anext(other)).state == told.state
        one.close()
        assert [update.kind async for update in one] == ["snapshot"]
        other.close()
        assert (await peer.expect("unsubscribe"))["channel"] == A


async def test_a_drop_is_healed_from_the_cursor(server: ScriptedServer, told: Told, sleeps: Sleeps) -> None:
    async with client_of(server, sleeps) as client:
        peer = await server.next()
        feed = client.events()
        subscription = await both(peer.join(told), client.subscribe(A))
        cursor = told.cursor
        peer.cut()
        gone = await until(feed, Disconnected)
        assert gone.retry_in_s == 0.75 and gone.code in (None, 1006)
        peer = await server.next()
        assert (await until(feed, Connected)).again
        request = await peer.expect("subscribe")
        assert request["cursor"] == cursor
        block = block_json(4)
        await peer.send(block_frame(block, told.change(block, patch={"u:1": {"amount0": "9"}})))
        await peer.send(told.subscribed(request["id"], "resumed"))
        kinds = [(await anext(subscription)).kind for _ in range(3)]
        assert kinds == ["snapshot", "change", "resumed"]
        assert subscription.state == told.state
        assert sleeps.taken == [0.75] and client.stats.reconnects == 1


async def test_bye_says_when_to_come_back(server: ScriptedServer, told: Told, sleeps: Sleeps) -> None:
    async with client_of(server, sleeps) as client:
        peer = await server.next()
        feed = client.events()
        await peer.send({"type": "bye", "code": 4001, "reconnect": True, "afterMs": 1234})
        gone = await until(feed, Disconnected)
        assert (gone.code, gone.retry_in_s) == (4001, 1.234)
        await server.next()
        await until(feed, Connected)
        assert sleeps.taken == [1.234]


@pytest.mark.parametrize("code", [4001, 4008, 4012, 1011])
async def test_these_codes_come_back(server: ScriptedServer, sleeps: Sleeps, code: int) -> None:
    async with client_of(server, sleeps) as client:
        feed = client.events()
        await (await server.next()).close(code)
        assert (await until(feed, Disconnected)).code == code
        await server.next()


@pytest.mark.parametrize("code", [4500, 4503, 4999])
async def test_these_codes_do_not(server: ScriptedServer, told: Told, sleeps: Sleeps, code: int) -> None:
    async with client_of(server, sleeps) as client:
        peer = await server.next()
        subscription = await both(peer.join(told), client.subscribe(A))
        feed = client.events()
        await peer.close(code, "no")
        assert (await anext(subscription)).kind == "snapshot"  # what came before is still told
        with pytest.raises(ConnectionEnded) as ended:
            await anext(subscription)
        assert (ended.value.code, ended.value.reason) == (code, "no")
        with pytest.raises(ConnectionEnded):
            async for _ in feed:
                pass
        with pytest.raises(ConnectionEnded):
            await client.subscribe(B)
        assert sleeps.taken == []


async def test_a_bye_for_good(server: ScriptedServer, sleeps: Sleeps) -> None:
    async with client_of(server, sleeps) as client:
        feed = client.events()
        await (await server.next()).send({"type": "bye", "code": 4500, "reconnect": False})
        with pytest.raises(ConnectionEnded):
            async for _ in feed:
                pass


async def test_a_silent_server_is_left(told: Told, sleeps: Sleeps) -> None:
    async with ScriptedServer(heartbeat_ms=50) as server, client_of(server, sleeps, grace_s=0.05) as client:
        feed = client.events()
        first = await server.next()
        await until(feed, Disconnected)
        second = await server.next()
        assert second is not first


async def test_a_lost_last_message_is_found_by_the_heartbeat(server: ScriptedServer, told: Told) -> None:
    async with client_of(server) as client:
        peer = await server.next()
        subscription = await both(peer.join(told), client.subscribe(A))
        told.change(block_json(2), patch={"u:1": {"amount0": "6"}})
        await peer.send(heartbeat({A: told.seq}))
        request = await peer.expect("resync")
        await peer.send(*told.snapshot(request["id"]))
        assert [(await anext(subscription)).state["u:1"]["amount0"] for _ in range(2)] == ["5", "6"]


async def test_a_refused_channel_raises_where_it_was_asked_for(server: ScriptedServer) -> None:
    async with client_of(server) as client:
        peer = await server.next()

        async def refuse() -> None:
            request = await peer.expect("subscribe")
            await peer.send({"type": "error", "id": request["id"], "code": "bad_channel", "message": "no such"})

        async def ask() -> str:
            with pytest.raises(ClientError) as refused:
                await client.subscribe("owner:nobody")
            return refused.value.code

        assert await both(refuse(), ask()) == "bad_channel"


async def test_a_subscribe_without_an_answer_times_out(server: ScriptedServer) -> None:
    async with client_of(server, subscribe_timeout_s=0.05) as client:
        with pytest.raises(SubscribeTimeout, match=r"0\.05 s"):
            await client.subscribe(A)
        assert client.states == {}


async def test_a_slow_listener_gets_the_newest_state_once(server: ScriptedServer, told: Told) -> None:
    async with client_of(server) as client:
        peer = await server.next()
        blocks = client.blocks(limit=3)
        subscription = await both(peer.join(told), client.subscribe(A, queue_limit=3))
        rollback = {"to": {"number": 1, "hash": "0x1"}, "dropped": ["0x2"]}
        for number in range(2, 6):
            block = block_json(number)
            change = told.change(block, patch={"u:1": {"amount0": str(number)}})
            await peer.send(block_frame(block, change, rollback=rollback if number == 3 else None))
        await peer.send(heartbeat({A: told.seq}))
        await peer.socket.recv()  # the pong: everything before it was taken
        update = await anext(subscription)
        assert (update.kind, update.block.number, update.change, subscription.conflated) == ("snapshot", 4, None, 3)
        assert update.rollback is not None
        assert (await anext(subscription)).kind == "change"
        frame = await anext(blocks)
        assert (frame.block.number, frame.missed, blocks.missed) == (3, 1, 1)
        assert (await anext(blocks)).missed == 0


async def test_no_server_is_said_at_once() -> None:
    async with ScriptedServer() as server:
        url = server.url
    with pytest.raises(ConnectFailed, match="connection refused") as failed:
        async with RtClient(f"{url}?token=secret"):
            pass
    assert "secret" not in str(failed.value)


async def test_a_server_that_does_not_welcome() -> None:
    async with ScriptedServer(greet=False) as server:
        with pytest.raises(ConnectFailed, match="no welcome"):
            async with RtClient(server.url, open_timeout_s=0.1):
                pass


async def test_a_body_that_fails_raises_its_own_error(server: ScriptedServer) -> None:
    with pytest.raises(ZeroDivisionError):
        async with client_of(server):
            raise ZeroDivisionError


async def test_closing_ends_the_iterators(server: ScriptedServer, told: Told) -> None:
    async with client_of(server) as client:
        peer = await server.next()
        subscription = await both(peer.join(told), client.subscribe(A))
        feed = client.events()
    assert [update.kind async for update in subscription] == ["snapshot"]
    assert [event async for event in feed] == []


async def test_attempts_grow_until_the_server_is_back(told: Told, sleeps: Sleeps) -> None:
    async with ScriptedServer(greet=False) as server, client_of_greeted(server, sleeps) as client:
        feed = client.events()
        (await server.next()).cut()
        for _ in range(5):
            (await server.next()).cut()
        delays = [(await until(feed, Disconnected)).retry_in_s for _ in range(6)]
    assert delays == [0.75, 0.75, 0.75, 0.8125, 1.015625, 1.26953125]


def client_of_greeted(server: ScriptedServer, sleeps: Sleeps) -> RtClient:
    """A client whose first connection alone is welcomed."""
    server.greet_next()
    return client_of(server, sleeps)
