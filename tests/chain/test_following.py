"""The head through faults of real nodes: silence, polling, disorder, endpoints that lag or are on another fork."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from faults.actions import Answer, CallAction, Delay, Disconnect, Drop, Duplicate, Edit, Reorder
from faults.proxy import FaultProxy

from rtserver.chain.voices import Place
from rtserver.demo.lab import Lab
from rtserver.demo.market import Market
from rtserver.demo.toolchain import Toolchain
from rtserver.protocols.channels import HeadChannel

from .following import PATIENCE_S, SILENCE_S, head_of, mine_other, proxies, twin
from .world import CHAIN, World, open_world

PUSH = "eth_subscription"


@asynccontextmanager
async def followed(lab: Lab, *fronts: FaultProxy, **options: Any) -> AsyncIterator[World]:
    """Follow the chain through proxies: subscriptions, polls and the engine's reads of each."""
    settings: dict[str, Any] = {
        "http": [front.http_url for front in fronts],
        "ws_urls": [front.ws_url for front in fronts],
        "silence_s": SILENCE_S,
        "patience_s": PATIENCE_S,
        "timeout_s": 2.0,
        **options,
    }
    async with open_world(lab, **settings) as world:
        await world.open_owners()
        yield world


async def market_of(lab: Lab, seed: int) -> Market:
    market = Market(lab, seed=seed)
    for _ in range(30):
        await market.step()
    return market


def reorgs(world: World) -> int:
    return sum(update.rollback is not None for update in world.keeper.updates)


def heads(world: World) -> int:
    """Return how many heads were published; what was read of the past is published between them."""
    return sum(update.is_new_head for update in world.keeper.updates)


def asked_for(front: FaultProxy, *tags: str) -> int:
    """Return how often blocks were asked for by these tags."""
    return sum(call.method == "eth_getBlockByNumber" and call.params[0] in tags for call in front.calls)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def whole(world: World) -> None:
    """Wait for the chain's head, and compare everything with the chain."""
    await world.settled()
    await world.assert_exact()
    await world.assert_same_owners()


async def at(world: World, block_hash: str) -> None:
    """Wait until a block is the head that is followed, read or not."""
    await until(lambda: world.source.head is not None and world.source.head.hash == block_hash)


async def subscribed(world: World, count: int) -> None:
    await until(lambda: world.source.subscriptions == count)


# --- silence, polling, and back ---------------------------------------------------------------------------


async def test_a_subscription_that_goes_silent_is_noticed_and_opened_anew(lab: Lab) -> None:
    market = await market_of(lab, 41)
    async with proxies(lab.node) as (front,), followed(lab, front) as world:
        silent = front.add(Drop(), PUSH)
        opened = front.methods["eth_subscribe"]
        before = heads(world)
        for _ in range(6):
            await market.step()
        await whole(world)
        assert heads(world) - before <= 3, "what was missed is one step, or a poll came in between"
        await market.step()
        await front.asked("eth_subscribe", opened + 1)
        silent.remove()
        await subscribed(world, 1)
        for _ in range(3):
            await market.step()
            await whole(world)
        assert not reorgs(world)


async def test_heads_are_polled_while_no_subscription_can_be_had(lab: Lab) -> None:
    market = await market_of(lab, 42)
    async with proxies(lab.node) as (front,), followed(lab, front) as world:
        refused = front.add(Answer(-32601, "subscriptions are not supported"), "eth_subscribe")
        front.cut()
        await subscribed(world, 0)
        for _ in range(5):
            await market.step()
            await whole(world)
        assert world.source.subscriptions == 0
        refused.remove()
        await subscribed(world, 1)
        front.reset_counts()
        for _ in range(3):
            await market.step()
            await whole(world)
        assert not asked_for(front, "latest"), "heads are announced again"


async def test_a_subscription_that_is_never_answered_holds_nothing_up(lab: Lab) -> None:
    """The connection opens, the request for the subscription is taken, and nothing ever comes back."""
    market = await market_of(lab, 63)
    async with proxies(lab.node) as (front,):
        silent = front.add(Drop(), "eth_subscribe")
        async with followed(lab, front, connect_timeout_s=1.0, is_awaited=False) as world:
            asked = front.methods["eth_subscribe"]
            for _ in range(5):
                await market.step()
                await whole(world)
            assert world.source.subscriptions == 0
            await front.asked("eth_subscribe", asked + 2)
            silent.remove()
            await subscribed(world, 1)
            await market.step()
            await whole(world)
            assert not reorgs(world)


async def test_a_chain_without_subscriptions_is_polled(lab: Lab) -> None:
    market = await market_of(lab, 43)
    async with proxies(lab.node) as (front,), followed(lab, front, ws_urls=[], silence_s=0.2) as world:
        for _ in range(5):
            await market.step()
            await whole(world)
        await lab.node.rpc("anvil_reorg", [2, []])
        await lab.catch_up()
        await whole(world)
        assert reorgs(world) == 1


@pytest.mark.parametrize("fault", ["cut", "down", "freeze", "restart"])
async def test_what_was_missed_in_an_outage_is_one_step(lab: Lab, fault: str) -> None:
    market = await market_of(lab, 44)
    async with proxies(lab.node) as (front,), followed(lab, front) as world:
        before = heads(world)
        match fault:
            case "cut":
                front.add(Disconnect(), "eth_subscribe", times=1)
                front.cut()
                await market.steps(5)
            case "down":
                await front.down()
                await market.steps(5)
                await front.up()
            case "freeze":
                front.freeze()
                await market.steps(5)
                front.thaw()
            case "restart":
                await lab.node.restart()
                await market.steps(5)
        await whole(world)
        assert heads(world) - before <= 6
        await subscribed(world, 1)
        await market.step()
        await whole(world)
        assert not reorgs(world)


async def test_a_node_that_crashed_and_lost_blocks_is_followed_back_and_on(lab: Lab) -> None:
    market = await market_of(lab, 45)
    await lab.node.restart()  # Keeps its chain: what `kill` goes back to.
    async with proxies(lab.node) as (front,), followed(lab, front) as world:
        await market.steps(4)
        await whole(world)
        await lab.node.kill()
        await lab.node.restart()
        await lab.catch_up()
        await whole(world)
        assert reorgs(world) == 1
        await lab.mine(3)
        await whole(world)
        assert reorgs(world) == 1


async def test_a_rollback_without_a_new_block_is_believed_once_it_lasts(lab: Lab) -> None:
    market = await market_of(lab, 46)
    async with proxies(lab.node) as (front,), followed(lab, front) as world:
        await market.steps(5)
        await whole(world)
        await lab.node.rpc("anvil_rollback", [3])
        await lab.catch_up()
        await whole(world)
        (rollback,) = [update.rollback for update in world.keeper.updates if update.rollback is not None]
        assert rollback.to is not None
        assert rollback.to.hash == lab.head.hash
        assert len(rollback.dropped) == 3
        await market.steps(3)
        await whole(world)
        assert reorgs(world) == 1


@pytest.mark.parametrize("is_cut", [True, False])
async def test_a_chain_that_turns_back_to_an_orphan_is_followed(lab: Lab, toolchain: Toolchain, is_cut: bool) -> None:
    """Also where nothing new is announced: the head it turned back to was seen before."""
    market = await market_of(lab, 47)
    async with proxies(lab.node) as (front,), followed(lab, front) as world, twin(lab, toolchain) as other:
        await market.steps(2)
        await whole(world)
        ours = lab.head.hash
        theirs = (await mine_other(other, 2))["hash"]
        for http, ws, wanted in [
            (other.http_url, other.ws_url, theirs),
            (lab.node.http_url, lab.node.ws_url, ours),
            (other.http_url, other.ws_url, theirs),
            (lab.node.http_url, lab.node.ws_url, ours),
        ]:
            front.switch(http, ws)
            if is_cut:
                front.cut()
            await world.settled(wanted)
        await whole(world)
        assert reorgs(world) == 4


# --- disorder ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
async def test_disorder_of_announcements_changes_nothing(lab: Lab, seed: int) -> None:
    """Two endpoints that drop, repeat, delay and swap what they announce, through a market with reorgs."""
    rng = random.Random(seed)
    market = await market_of(lab, 100 + seed)
    async with proxies(lab.node, lab.node) as fronts, followed(lab, *fronts) as world:
        for front in fronts:
            front.rng = random.Random(rng.random())
            front.add(Drop(), PUSH, chance=0.2)
            front.add(Duplicate(), PUSH, chance=0.2)
            front.add(Reorder(rng.randint(1, 3)), PUSH, chance=0.2)
            front.add(Delay(0.05), PUSH, chance=0.2)
        for _ in range(6):
            await market.steps(rng.randint(1, 5))
            if rng.random() < 0.5:
                # A read that met mining may have been answered with the next block's state: anvil's own fault. That
                # is put right with that block, as long as it comes before it is dropped.
                await world.settled()
                await lab.node.rpc("anvil_reorg", [rng.randint(1, 5), []])
                await lab.catch_up()
            if rng.random() < 0.4:
                await whole(world)
        await whole(world)


async def test_heads_with_holes_that_repeat_and_go_backward(lab: Lab) -> None:
    market = await market_of(lab, 51)
    async with proxies(lab.node) as (front,), followed(lab, front, silence_s=30.0) as world:
        first = await head_of(lab.node)
        silent = front.add(Drop(), PUSH)
        await market.steps(4)
        silent.remove()
        last = await head_of(lab.node)
        middle = await lab.node.rpc("eth_getBlockByHash", [last["parentHash"], False])
        for header in (last, middle, last, first, middle, last, last):
            await front.announce(header)
        await whole(world)
        assert not reorgs(world)


async def test_a_head_that_no_node_knows_holds_nothing_up(lab: Lab) -> None:
    market = await market_of(lab, 52)
    async with proxies(lab.node) as (front,), followed(lab, front) as world:
        last = await head_of(lab.node)
        ghost = {**last, "number": hex(int(last["number"], 16) + 3), "hash": "0x" + "aa" * 32,
                 "parentHash": "0x" + "bb" * 32}  # fmt: skip
        await front.announce(ghost)
        await market.steps(2)
        await whole(world)
        assert not reorgs(world)


# --- several endpoints -------------------------------------------------------------------------------------


class Lagging(CallAction):
    """Makes an endpoint's head an older one."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.headers: list[dict[str, Any]] = []

    def before(self, call: Any) -> dict[str, Any] | None:
        if call.method != "eth_getBlockByNumber" or call.params[0] != "latest" or len(self.headers) <= self.blocks:
            return None
        return {"result": self.headers[-1 - self.blocks]}


@pytest.mark.parametrize("lag", [1, 10, 70])
async def test_an_endpoint_that_lags_is_no_reorganisation(lab: Lab, lag: int) -> None:
    market = await market_of(lab, 53)
    async with proxies(lab.node, lab.node) as (front, late):
        lagging = Lagging(lag)
        late.add(lagging)
        late.add(Drop(), PUSH, when=lambda call: not isinstance(call.params, dict) or "late" not in call.params)
        async with followed(lab, front, late) as world:
            for index in range(lag + 12):
                await (market.step() if index > lag else lab.mine())
                lagging.headers.append(await head_of(lab.node))
                if index > lag:
                    await world.settled()
                    # As its own announcement: through the source, since its pushes are dropped.
                    await announce_late(world, late, lagging.headers[-1 - lag])
            # Nobody says anything any more, and both are asked.
            await asyncio.wait({asyncio.create_task(late.asked("eth_getBlockByNumber", 10))})
            await whole(world)
            assert not reorgs(world)
            assert Place.HEAD in world.source.places().values()


async def announce_late(world: World, late: FaultProxy, header: dict[str, Any]) -> None:
    """Have the late endpoint announce a head past the rule that drops its own."""
    rules, late.rules = late.rules, []
    await late.announce(header)
    late.rules = rules


async def test_an_endpoint_on_another_fork_is_no_reorganisation(lab: Lab, toolchain: Toolchain) -> None:
    """It is higher, it goes on, it is asked and it announces; the reads are never of it."""
    market = await market_of(lab, 54)
    async with twin(lab, toolchain) as other, proxies(lab.node, other) as (front, astray):
        await lab.mine()
        await mine_other(other, 3)
        async with followed(lab, front, astray) as world:
            for _ in range(12):
                await market.step()
                await mine_other(other, 2)
                await world.settled()
            await whole(world)
            assert not reorgs(world)
            # Ours is gone for good, and the fork is what there is.
            await front.down()
            await mine_other(other, 1)
            await at(world, (await head_of(other))["hash"])
            # It is back, on a branch that we left: one against one.
            await front.up()
            await subscribed(world, 2)
            await market.step()
            await mine_other(other, 1)
            await at(world, (await head_of(other))["hash"])


async def test_a_deep_fork_of_another_endpoint_is_not_taken_for_a_restart(lab: Lab, toolchain: Toolchain) -> None:
    market = await market_of(lab, 55)
    async with twin(lab, toolchain) as other, proxies(lab.node, other) as (front, astray):
        await lab.mine(80)
        async with followed(lab, front, astray) as world:
            await mine_other(other, 100)
            for _ in range(5):
                await market.step()
                await mine_other(other, 1)
                await world.settled()
            await whole(world)
            assert not reorgs(world)


async def test_a_reorganisation_is_followed_while_another_endpoint_still_tells_the_old_head(lab: Lab) -> None:
    market = await market_of(lab, 56)
    async with proxies(lab.node, lab.node) as (front, late), followed(lab, front, late) as world:
        await market.steps(5)
        await world.settled()
        old = await head_of(lab.node)
        late.add(Drop(), PUSH)
        late.add(Edit(lambda _: old), "eth_getBlockByNumber", when=lambda call: call.params[0] == "latest")
        await lab.node.rpc("anvil_reorg", [3, []])
        await lab.catch_up()
        await whole(world)
        assert reorgs(world) == 1
        late.clear()
        await market.steps(2)
        await whole(world)
        assert reorgs(world) == 1


# --- pace, clocks, finality --------------------------------------------------------------------------------


async def test_a_node_slower_than_its_blocks_is_not_queued_for(lab: Lab) -> None:
    market = await market_of(lab, 57)
    async with proxies(lab.node) as (front,), followed(lab, front, silence_s=5.0, timeout_s=10.0) as world:
        slow = front.add(Delay(0.5), via="http")
        before, behind = heads(world), 0
        for _ in range(25):
            await market.step()
            # Five blocks a second; what the node takes for one read is more than two.
            await asyncio.sleep(0.2)
            behind = max(behind, world.runner.behind_blocks)
        await world.settled()
        assert behind > 1, "it is said how far behind we are"
        assert heads(world) - before < 20, "the newest head only"
        slow.remove()
        await market.step()
        await whole(world)
        assert world.runner.behind_blocks == 0
        assert not reorgs(world)


@pytest.mark.parametrize("jump_s", [3600, 365 * 24 * 3600])
async def test_the_chains_clock_jumps(lab: Lab, jump_s: int) -> None:
    market = await market_of(lab, 58)
    async with proxies(lab.node) as (front,), followed(lab, front) as world:
        await lab.node.rpc("evm_increaseTime", [hex(jump_s)])
        await market.steps(3)
        await whole(world)
        assert not reorgs(world)


async def test_the_wall_clock_jumps(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    market = await market_of(lab, 59)
    async with proxies(lab.node) as (front,), followed(lab, front) as world:
        real = time.time
        for jump_s in (-86400.0, 86400.0):
            monkeypatch.setattr(time, "time", lambda jump_s=jump_s: real() + jump_s)
            await market.steps(2)
            await whole(world)
        monkeypatch.undo()
        assert not reorgs(world)


class Final(CallAction):
    """Answers what is final by blocks behind the newest header that was put in."""

    def __init__(self, headers: Sequence[dict[str, Any]]) -> None:
        self.headers = list(headers)

    def before(self, call: Any) -> dict[str, Any] | None:
        depth = {"finalized": 6, "safe": 3}.get(call.params[0])
        return None if depth is None else {"result": self.headers[max(-1 - depth, -len(self.headers))]}


async def test_what_is_final_is_known_and_leaves_the_journal(lab: Lab) -> None:
    market = await market_of(lab, 60)
    async with proxies(lab.node) as (front,):
        final = Final([await head_of(lab.node)])
        front.add(final, "eth_getBlockByNumber")
        async with followed(lab, front, silence_s=5.0, finality_every_blocks=4) as world:
            world.source.finality._at_most_every_s = 0.0
            asked = asked_for(front, "safe", "finalized")
            for _ in range(16):
                await market.step()
                final.headers.append(await head_of(lab.node))
                await world.settled()
            assert asked_for(front, "safe", "finalized") - asked <= 2 * (16 // 4 + 1), "two calls every four blocks"
            await until(lambda: asked_for(front, "safe", "finalized") - asked >= 2 * 4)
            await until(lambda: world.source.window[0] == world.source.tags.get("finalized"))
            finalized, safe = world.source.tags["finalized"], world.source.tags["safe"]
            assert finalized.number < safe.number < world.source.window[-1].number
            # Down to what is final, a reorganisation is one; below it everything is read anew.
            await lab.node.rpc("anvil_reorg", [len(world.source.window) - 1, []])
            await lab.catch_up()
            await whole(world)
            (rollback,) = [u.rollback for u in world.keeper.updates if u.rollback is not None]
            assert rollback.to == finalized.ref
            await lab.node.rpc("anvil_reorg", [len(world.source.window) + 2, []])
            await lab.catch_up()
            await whole(world)
            rollback = next(u.rollback for u in reversed(world.keeper.updates) if u.rollback is not None)
            assert rollback.to is None
            assert (await world.fresh()).states == world.keeper.states


async def test_what_is_final_is_told_with_the_head(lab: Lab) -> None:
    """In the head's channel and in its sequence; it goes where the chain goes back behind it."""
    market = await market_of(lab, 62)
    async with proxies(lab.node) as (front,):
        final = Final([await head_of(lab.node)])
        front.add(final, "eth_getBlockByNumber")
        async with followed(lab, front, silence_s=5.0, finality_every_blocks=1) as world:
            world.source.finality._at_most_every_s = 0.0
            channel = HeadChannel(CHAIN)
            await world.open(channel)
            told: dict[str, list[int]] = {"safe": [], "finalized": []}
            for _ in range(12):
                asked = asked_for(front, "safe", "finalized")
                await market.step()
                final.headers.append(await head_of(lab.node))
                await world.settled()
                state = world.keeper.states[channel.name]
                for tag, numbers in told.items():
                    if tag in state:
                        block = await lab.node.rpc("eth_getBlockByNumber", [hex(int(str(state[tag]["number"]))), False])
                        assert (state[tag]["hash"], state[tag]["parentHash"]) == (block["hash"], block["parentHash"])
                        numbers.append(int(block["number"], 16))
                await until(lambda asked=asked: asked_for(front, "safe", "finalized") >= asked + 2)  # type: ignore[misc]
            for numbers in told.values():
                assert len(set(numbers)) > 2
                assert numbers == sorted(numbers)
            assert told["finalized"][-1] < told["safe"][-1] < lab.head.number
            await lab.node.rpc("anvil_reorg", [10, []])
            await lab.catch_up()
            await world.settled()
            assert world.keeper.states[channel.name].keys() == {"head"}, "what was final is gone, and nothing new known"


async def test_what_is_final_is_in_the_first_state(lab: Lab) -> None:
    """Nobody waits for the next block to hear of it, nor for the 16th."""
    market = await market_of(lab, 63)
    final = Final([])
    for _ in range(8):
        await market.step()
        final.headers.append(await head_of(lab.node))
    async with proxies(lab.node) as (front,):
        front.add(final, "eth_getBlockByNumber")
        async with followed(lab, front, silence_s=5.0, finality_every_blocks=16) as world:
            channel = HeadChannel(CHAIN)
            await world.open(channel)
            told = {tag: block["number"] for tag, block in world.keeper.states[channel.name].items()}
            number = lab.head.number
            assert told == {"head": number, "safe": number - 3, "finalized": number - 6}


async def test_what_is_final_is_asked_again_soon_where_nobody_answered(lab: Lab) -> None:
    """A start waits a second for it at most; the next block after five asks again, not the 16th."""
    market = await market_of(lab, 64)
    async with proxies(lab.node) as (front,):
        lost = front.add(Drop(), "eth_getBlockByNumber", when=lambda call: call.params[0] in ("safe", "finalized"))
        front.add(Final([await head_of(lab.node)]), "eth_getBlockByNumber")
        async with followed(lab, front, silence_s=5.0, finality_every_blocks=16) as world:
            channel = HeadChannel(CHAIN)
            await world.open(channel)
            assert world.keeper.states[channel.name].keys() == {"head"}
            lost.remove()
            world.source.finality._at_most_every_s = 3600.0
            await market.step()
            await world.settled()
            assert not world.source.tags, "not at each block either"
            world.source.finality._at_most_every_s = 0.0
            await market.step()
            await world.settled()
            await until(lambda: world.source.tags.keys() == {"safe", "finalized"})


async def test_a_node_without_finality_is_asked_rarely(lab: Lab) -> None:
    market = await market_of(lab, 61)
    async with proxies(lab.node) as (front,):
        front.add(Answer(-32602, "unknown block tag"), "eth_getBlockByNumber",
                  when=lambda call: call.params[0] in ("safe", "finalized"))  # fmt: skip
        async with followed(lab, front, silence_s=5.0, finality_every_blocks=1) as world:
            world.source.finality._at_most_every_s = 0.0
            for _ in range(8):
                await market.step()
                await world.settled()
            assert asked_for(front, "safe") == 1
            assert not world.source.tags
