"""Who is believed when nodes disagree: every rule by example, and random worlds of nodes against what must hold."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.chain.linker import Linker
from rtserver.chain.source import ChainSource
from rtserver.chain.voices import Place
from rtserver.domain.chain import ChainEvent, Committed, Header, Reorged
from rtserver.domain.errors import RetryableError
from rtserver.domain.ids import BlockHash, ChainId
from rtserver.obs.metrics import Metrics

SILENCE_S = 10.0
PATIENCE_S = 20.0
DEPTH = 8
FAR = 30


class Tree:
    """Blocks by name: `main` and its forks, and a reader that has them all."""

    def __init__(self) -> None:
        self.blocks: dict[str, Header] = {}
        self.canonical: list[Header] = []
        self.fetched = 0
        self.is_down = False

    def grow(self, prefix: str, count: int, onto: Header | None = None) -> list[Header]:
        """Return `count` new blocks prefix<number> on top of a block, or from block 100 on."""
        made = []
        for _ in range(count):
            number = 100 if onto is None else onto.number + 1
            parent = BlockHash("genesis") if onto is None else onto.hash
            header = Header(
                number=number, hash=BlockHash(f"{prefix}{number}"), parent_hash=parent, timestamp=number, logs_bloom=0
            )
            onto = self.blocks[header.hash] = header
            made.append(header)
        return made

    async def latest(self) -> Header:
        return self.canonical[-1]

    async def header(self, block_hash: BlockHash) -> Header | None:
        self._count()
        return self.blocks.get(block_hash)

    async def headers(self, first: int, last: int) -> list[Header]:
        self._count()
        return [header for header in self.canonical if first <= header.number <= last]

    def _count(self) -> None:
        self.fetched += 1
        if self.is_down:
            raise RetryableError("down")


class World:
    """A source that hears what nodes say, on a clock that only tests move."""

    def __init__(self, tree: Tree, nodes: Sequence[str]) -> None:
        self.now = 1000.0
        self.tree = tree
        self.chain: list[Header] = []
        self.events: list[ChainEvent] = []
        self.source = ChainSource(
            chain_id=ChainId(1),
            name="model",
            ws_urls=[f"ws://{node}" for node in nodes],
            reader=tree,  # type: ignore[arg-type]
            silence_s=SILENCE_S,
            connect_timeout_s=1,
            metrics=Metrics(),
            linker=Linker(depth=DEPTH, max_gap=FAR),
            nodes=dict.fromkeys(nodes, tree),
            patience_s=PATIENCE_S,
            clock=lambda: self.now,
        )
        self._next: asyncio.Task[ChainEvent] | None = None

    @property
    def head(self) -> Header:
        head = self.source.head
        assert head is not None
        return head

    @property
    def reorgs(self) -> list[Reorged]:
        return [event for event in self.events if isinstance(event, Reorged)]

    async def start(self) -> None:
        await self.source.start()
        self.chain = list(self.source.window)

    async def say(self, node: str, *headers: Header, take_s: float = 0.1) -> None:
        """Have a node say heads, one after the other, and follow each."""
        for header in headers:
            self.now += take_s
            self.source.hear(node, header)
            await self._follow()

    async def keep_saying(self, words: dict[str, Header], seconds: float) -> None:
        """Have nodes repeat themselves for some time, as polls make them."""
        until = self.now + seconds
        while self.now < until:
            self.now += SILENCE_S / 2
            for node, header in words.items():
                self.source.hear(node, header)
            await self._follow()

    async def _follow(self) -> None:
        while True:
            if self._next is None:
                self._next = asyncio.create_task(self.source.next_event())
            # The reader never waits, so whatever can be decided is decided within a few turns.
            for _ in range(6):
                await asyncio.sleep(0)
            if not self._next.done():
                return
            event = self._next.result()
            self._next = None
            self._apply(event)

    def _apply(self, event: ChainEvent) -> None:
        """Keep a copy of the chain by events alone, as the engine does."""
        self.events.append(event)
        if isinstance(event, Reorged):
            if event.ancestor is None:
                self.chain = list(self.source.window)
                return
            assert self.chain[-len(event.dropped) :] == list(event.dropped)
            del self.chain[-len(event.dropped) :]
            assert self.chain[-1].ref == event.ancestor
        elif isinstance(event, Committed):
            assert event.blocks[0].parent_hash == self.chain[-1].hash
        self.chain += event.blocks
        assert all(child.parent_hash == parent.hash for parent, child in pairwise(self.chain))
        assert self.chain[-1] == event.head

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})


async def world_of(*nodes: str, blocks: int = 12) -> tuple[World, Tree, list[Header]]:
    """Return a world whose chain is m100 … and whose nodes have all said its head."""
    tree = Tree()
    tree.canonical = tree.grow("m", blocks)
    world = World(tree, nodes)
    await world.start()
    for node in nodes:
        await world.say(node, tree.canonical[-1])
    assert not world.events
    return world, tree, tree.canonical


async def test_one_node_is_followed_wherever_it_goes() -> None:
    world, tree, main = await world_of("a")
    fork = tree.grow("f", 3, main[-4])
    await world.say("a", *fork)
    assert world.head == fork[-1]
    # Back to the branch that was left: seen before, and followed all the same.
    await world.say("a", main[-1])
    assert world.head == main[-1]
    assert [len(event.dropped) for event in world.reorgs] == [3, 3]
    await world.close()


async def test_one_node_that_went_back_is_believed_once_it_stays() -> None:
    world, tree, main = await world_of("a")
    await world.say("a", main[-4])
    assert world.head == main[-1], "may be a late announcement"
    await world.keep_saying({"a": main[-4]}, PATIENCE_S / 2)
    assert not world.events
    await world.keep_saying({"a": main[-4]}, PATIENCE_S)
    assert world.head == main[-4]
    (event,) = world.reorgs
    assert event.blocks == (main[-4],), "taken again, so that it is read at itself"
    assert event.dropped == tuple(main[-4:])
    await world.say("a", *tree.grow("n", 2, main[-4]))
    assert world.head.hash == "n110"
    assert len(world.reorgs) == 1
    await world.close()


async def test_late_and_repeated_heads_change_nothing() -> None:
    world, tree, main = await world_of("a")
    more = tree.grow("m", 5, main[-1])
    tree.canonical = main + more
    await world.say("a", more[0], more[2], more[1], more[2], more[4], more[3], more[4])
    assert world.head == more[4]
    assert not world.reorgs
    await world.close()


@pytest.mark.parametrize("lag", [1, 5, 10])
async def test_a_node_that_lags_moves_nobody(lag: int) -> None:
    world, tree, main = await world_of("a", "b")
    more = tree.grow("m", 40, main[-1])
    tree.canonical = whole = main + more
    for index in range(len(main), len(whole)):
        await world.say("a", whole[index], take_s=2.0)
        await world.say("b", whole[index - lag])
    assert world.head == whole[-1]
    assert not world.reorgs
    assert tree.fetched <= 2, "nothing is asked because of it"
    # The other one falls silent: the laggard goes on, and is not taken for a step back.
    for index in range(len(whole) - lag, len(whole)):
        await world.say("b", whole[index], take_s=PATIENCE_S / 3)
    assert not world.reorgs
    await world.say("b", *tree.grow("m", 1, whole[-1]))
    assert world.head.number == whole[-1].number + 1
    assert not world.reorgs
    await world.close()


async def test_a_stuck_laggard_that_is_alone_is_not_followed_back() -> None:
    world, tree, main = await world_of("a", "b")
    await world.say("b", main[0])
    more = tree.grow("m", 12, main[-1])
    await world.say("a", *more)
    world.now += 10 * PATIENCE_S
    await world.keep_saying({"b": more[0]}, 5 * PATIENCE_S)
    assert world.head == more[-1], "it never was that high: it has nothing to go back from"
    await world.say("b", *more, *tree.grow("m", 1, more[-1]))
    assert world.head.number == more[-1].number + 1
    assert not world.reorgs
    await world.close()


@pytest.mark.parametrize("below", [1, 5, 10])
@pytest.mark.parametrize("above", [-5, 0, 5, 25])
async def test_a_node_on_a_fork_of_its_own_moves_nobody(below: int, above: int) -> None:
    """Whatever its depth and height, as long as somebody vouches for our head."""
    tree = Tree()
    tree.canonical = main = tree.grow("m", 12)
    world = World(tree, ["a", "b"])
    await world.start()
    await world.say("a", main[-1])
    fork = tree.grow("f", below + above + 10, main[-1 - below])
    more = tree.grow("m", 10, main[-1])
    tree.canonical = main + more
    for index, header in enumerate(more):
        await world.say("a", header, take_s=2.0)
        await world.say("b", fork[min(max(below + above, 0) + index, len(fork) - 1)])
    assert world.head == more[-1]
    assert not world.reorgs
    assert world.source.places()["a"] is Place.HEAD
    await world.close()


async def test_an_only_survivor_on_another_branch_is_followed_after_the_patience() -> None:
    world, tree, main = await world_of("a", "b", "c")
    fork = tree.grow("f", 30, main[-3])
    await world.say("b", *fork[:2])
    assert world.head == fork[1], "it had been at our head, and is as high: a reorganisation"
    await world.say("a", *tree.grow("m", 1, main[-1]))
    assert world.head == fork[1], "one against one: we stay"
    for header in fork[2:]:
        await world.say("b", header, take_s=2.0)
    other = tree.grow("x", 3, fork[-2])
    await world.say("c", other[0])
    assert world.head == fork[-1]
    await world.keep_saying({"c": other[1]}, PATIENCE_S + SILENCE_S)
    assert world.head == other[1]
    await world.close()


async def test_a_reorganisation_is_followed_with_the_first_who_tells_it() -> None:
    world, tree, main = await world_of("a", "b", "c")
    fork = tree.grow("f", 4, main[-3])
    await world.say("b", fork[0])
    assert world.head == main[-1], "lower than what the others vouch for"
    await world.say("b", fork[1])
    assert world.head == fork[1]
    # The others say the old head again, late, and then come along.
    await world.say("a", main[-1])
    await world.say("c", main[-2], main[-1])
    await world.say("c", *fork)
    await world.say("a", *fork)
    assert world.head == fork[-1]
    assert len(world.reorgs) == 1
    await world.close()


async def test_the_many_overrule_the_one_that_left() -> None:
    world, tree, main = await world_of("a", "b", "c")
    fork = tree.grow("f", 3, main[-2])
    more = tree.grow("m", 3, main[-1])
    await world.say("a", fork[0])
    assert world.head == fork[0]
    await world.say("b", more[0])
    assert world.head == fork[0]
    await world.say("c", more[0])
    assert world.head == more[0], "two against one"
    await world.say("a", fork[1], fork[2])
    await world.say("b", more[1])
    await world.say("a", *tree.grow("f", 3, fork[2]))
    assert world.head == more[1], "it had its say"
    assert len(world.reorgs) == 2
    await world.close()


async def test_a_deep_reorganisation_begins_anew() -> None:
    world, tree, main = await world_of("a")
    fork = tree.grow("f", 14, main[0])
    tree.canonical = [main[0], *fork]
    await world.say("a", *fork)
    assert world.head == fork[-1]
    assert [event.ancestor for event in world.reorgs] == [None]
    assert len(world.source.window) == DEPTH + 1, "what comes next can be undone"
    await world.close()


async def test_a_leap_is_taken_from_a_node_that_made_it_and_from_others_later() -> None:
    world, tree, main = await world_of("a", "b")
    more = tree.grow("m", 2 * FAR, main[-1])
    tree.canonical = main + more
    await world.keep_saying({"a": main[-1], "c": more[-1]}, PATIENCE_S / 2)
    assert world.head == main[-1]
    await world.keep_saying({"a": main[-1], "c": more[-1]}, PATIENCE_S)
    assert world.head == more[-1]
    await world.close()
    world, tree, main = await world_of("a", "b")
    more = tree.grow("m", 2 * FAR, main[-1])
    tree.canonical = main + more
    await world.say("a", more[-1])
    assert world.head == more[-1]
    await world.close()


async def test_a_head_that_can_not_be_linked_does_not_hold_up_others() -> None:
    world, tree, main = await world_of("a", "b")
    more = tree.grow("m", 3, main[-1])
    unknown = Header(
        number=main[-1].number + 9, hash=BlockHash("x"), parent_hash=BlockHash("y"), timestamp=0, logs_bloom=0
    )
    tree.is_down = True
    await world.say("b", unknown)
    assert world.head == main[-1]
    await world.say("a", *more)
    assert world.head == more[-1]
    await world.close()


async def test_headers_that_refer_to_each_other_end_nothing() -> None:
    world, _, main = await world_of("a")
    ring = [
        Header(number=140 + index, hash=BlockHash(f"r{index}"), parent_hash=BlockHash(f"r{(index + 1) % 3}"),
               timestamp=0, logs_bloom=0)
        for index in range(3)
    ]  # fmt: skip
    await world.say("a", *ring, *ring)
    await world.keep_saying({"a": main[-1]}, 2 * PATIENCE_S)
    assert world.head == main[-1]
    await world.close()


def words() -> st.SearchStrategy[list[tuple[int, int, bool]]]:
    """Return who moves, how, and whether time passes."""
    return st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.booleans()), min_size=5, max_size=60)


@settings(max_examples=150, deadline=None)
@given(words(), st.integers(0, 2**16))
def test_laggards_in_any_order_are_no_reorganisation(moves: list[tuple[int, int, bool]], start: int) -> None:
    """Nodes that walk up one chain, each at its own pace and with repeats, never make anything but blocks."""

    async def run() -> None:
        tree = Tree()
        tree.canonical = main = tree.grow("m", 60)
        full = list(main)
        tree.canonical = full[: 5 + start % 20]
        world = World(tree, ["a", "b", "c"])
        await world.start()
        tree.canonical = full
        at = dict.fromkeys("abc", 0)
        for who, how, does_wait in moves:
            node = "abc"[who]
            at[node] = min(at[node] + how, len(full) - 1)
            await world.say(node, full[at[node]], take_s=PATIENCE_S * 1.5 if does_wait else 0.5)
        assert not world.reorgs
        assert world.head.number == max(full[max(at.values())].number, 104 + start % 20)
        await world.close()

    asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(words(), st.integers(1, 7), st.integers(1, 3))
def test_nodes_that_agree_in_the_end_are_followed(moves: list[tuple[int, int, bool]], fork_at: int, nodes: int) -> None:
    """Whatever was said before, in whatever order: all nodes say one head for a while, and it is ours."""

    async def run() -> None:
        tree = Tree()
        tree.canonical = main = tree.grow("m", 12)
        world = World(tree, list("abc"[:nodes]))
        await world.start()
        tips = [main[-1]]
        for who, how, does_wait in moves:
            base = tips[how % len(tips)]
            if how % 3 == 0:
                base = main[-1 - fork_at]
            (tip,) = tree.grow(f"{'abc'[who]}{len(tips)}.", 1, base)
            tips.append(tip)
            said = tips[(how * 7) % len(tips)] if how % 2 else tip
            await world.say("abc"[who % nodes], said, take_s=PATIENCE_S if does_wait else 0.5)
        final = tips[len(moves) // 2]
        await world.keep_saying(dict.fromkeys("abc"[:nodes], final), 3 * PATIENCE_S)
        was_deep = any(event.ancestor is None for event in world.reorgs)
        is_below = final.number < world.source.window[0].number
        assert world.head == final or is_below, (world.head, final, was_deep)
        await world.close()

    asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(words(), st.integers(1, 7), st.integers(-3, 20))
def test_one_liar_moves_nobody(moves: list[tuple[int, int, bool]], depth: int, lead: int) -> None:
    """Two nodes walk up the chain, a third says whatever it likes of a branch that it was always on."""

    async def run() -> None:
        tree = Tree()
        tree.canonical = main = tree.grow("m", 12)
        world = World(tree, ["a", "b", "liar"])
        await world.start()
        full = main + tree.grow("m", 400, main[-1])
        fork = tree.grow("f", 450, main[-1 - depth])
        tree.canonical = full
        at = dict.fromkeys("ab", 11)
        for who, how, _ in moves:
            if who == 2:
                await world.say("liar", fork[max(0, max(at.values()) - 11 + depth + lead - how)], take_s=0.5)
            else:
                node = "ab"[who]
                at[node] = at[node] + how % 3
                await world.say(node, full[at[node]], take_s=0.5)
        assert not world.reorgs
        assert world.head == full[max(at.values())]
        await world.close()

    asyncio.run(run())
