"""Every verdict on a new head, and random trees of blocks in which the window always stays linked."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.chain.linker import Duplicate, Gap, Linker, Next, Reorg, TooDeep
from rtserver.domain.chain import Header
from rtserver.domain.ids import BlockHash


def block(name: str, number: int, parent: str) -> Header:
    """Return a header with readable hashes."""
    return Header(number=number, hash=BlockHash(name), parent_hash=BlockHash(parent), timestamp=number, logs_bloom=0)


def run(prefix: str, first: int, last: int, parent: str) -> list[Header]:
    """Return linked blocks prefix<number>, the first on top of `parent`."""
    blocks = []
    for number in range(first, last + 1):
        blocks.append(block(f"{prefix}{number}", number, parent))
        parent = f"{prefix}{number}"
    return blocks


A = run("a", 10, 20, "a9")


@pytest.fixture
def linker() -> Linker:
    """Return a linker that has seen a10 to a15."""
    made = Linker(depth=8, max_gap=20)
    made.restart(A[0])
    for header in A[1:6]:
        verdict = made.classify([header])
        assert isinstance(verdict, Next)
        made.accept(verdict)
    return made


def test_before_the_first_block_nothing_links() -> None:
    linker = Linker()
    assert linker.head is None
    assert linker.classify([A[0]]) == TooDeep(())
    assert linker.restart(A[0]) == ()
    assert linker.head == A[0]


def test_next(linker: Linker) -> None:
    assert linker.head == A[5]
    assert linker.classify([A[6]]) == Next((A[6],))
    assert linker.classify(A[6:9]) == Next(tuple(A[6:9]))


def test_duplicate_of_the_head_or_of_an_ancestor(linker: Linker) -> None:
    assert linker.classify([A[5]]) == Duplicate()
    assert linker.classify([A[1]]) == Duplicate()


def test_gap_names_the_block_to_fetch_and_how_many(linker: Linker) -> None:
    assert linker.classify([A[8]]) == Gap(BlockHash("a17"), 17, 2)
    assert linker.classify(A[7:9]) == Gap(BlockHash("a16"), 16, 1)
    assert linker.classify(A[6:9]) == Next(tuple(A[6:9]))


def test_an_unknown_block_at_a_known_height_is_a_gap_of_one(linker: Linker) -> None:
    fork = run("b", 13, 15, "a12")
    assert linker.classify([fork[2]]) == Gap(BlockHash("b14"), 14, 1)
    assert linker.classify(fork[1:]) == Gap(BlockHash("b13"), 13, 1)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_reorg(linker: Linker, depth: int) -> None:
    ancestor = A[5 - depth]
    fork = run("b", ancestor.number + 1, 16, ancestor.hash)
    verdict = linker.classify(fork)
    assert verdict == Reorg(ancestor.ref, tuple(A[6 - depth : 6]), tuple(fork))
    assert isinstance(verdict, Reorg)
    linker.accept(verdict)
    assert linker.head == fork[-1]
    assert not linker.holds(A[5].hash)
    assert linker.holds(ancestor.hash)


def test_a_head_that_goes_backward_is_a_reorg(linker: Linker) -> None:
    sibling = block("b13", 13, "a12")
    verdict = linker.classify([sibling])
    assert verdict == Reorg(A[2].ref, tuple(A[3:6]), (sibling,))


def test_below_the_window_is_too_deep(linker: Linker) -> None:
    fork = run("b", 10, 16, "a9")
    assert linker.classify(fork) == TooDeep(tuple(A[:6]))
    assert linker.classify([block("c5", 5, "c4")]) == TooDeep(tuple(A[:6]))


def test_too_many_missing_blocks_are_not_fetched(linker: Linker) -> None:
    assert isinstance(linker.classify([block("far", 15 + 20, "x")]), Gap)
    assert isinstance(linker.classify([block("far", 15 + 21, "x")]), TooDeep)
    assert isinstance(linker.classify(run("b", 16, 40, "x")), TooDeep)


def test_the_window_is_bounded_and_tells_what_it_let_go(linker: Linker) -> None:
    verdict = linker.classify(A[6:11])
    assert isinstance(verdict, Next)
    assert linker.accept(verdict) == tuple(A[:2])
    assert linker.blocks == tuple(A[2:11])
    assert len(linker.blocks) == 8 + 1, "eight blocks can be undone onto the ninth"


def test_a_restart_keeps_only_ancestors_that_link(linker: Linker) -> None:
    new = run("n", 30, 34, "n29")
    assert linker.restart(new[4], [A[0], *new[1:4]]) == tuple(A[:6])
    assert linker.blocks == tuple(new[1:])
    assert linker.restart(A[5], A[:3]) == tuple(new[1:])
    assert linker.blocks == (A[5],)


@settings(max_examples=150)
@given(st.data())
def test_random_trees(data: st.DataObject) -> None:
    """Announce blocks of a growing tree in any order; fetch what the linker asks for."""
    linker = Linker(depth=6, max_gap=12)
    tree = {"0": block("0", 100, "-")}
    linker.restart(tree["0"])
    undoable = {"0"}
    for index in range(1, data.draw(st.integers(1, 30)) + 1):
        parent = data.draw(st.sampled_from(sorted(tree)[-8:] + sorted(tree)[:1]))
        name = f"{index:03d}"
        tree[name] = block(name, tree[parent].number + 1, parent)
        if data.draw(st.booleans()):
            continue  # not announced: a later one leaves a gap
        ancestry = [tree[name]]
        before = linker.blocks
        verdict = linker.classify(ancestry)
        while isinstance(verdict, Gap):
            assert verdict.hash == ancestry[0].parent_hash
            assert verdict.number == ancestry[0].number - 1
            assert verdict.count >= 1
            assert linker.blocks == before
            ancestry.insert(0, tree[verdict.hash])
            assert len(ancestry) <= 30
            verdict = linker.classify(ancestry)
        match verdict:
            case Duplicate():
                assert linker.holds(tree[name].hash)
            case TooDeep(dropped):
                assert dropped == before
                undoable.difference_update(header.hash for header in linker.restart(tree[name]))
                undoable.add(name)
            case Next() | Reorg():
                for header in verdict.dropped if isinstance(verdict, Reorg) else ():
                    undoable.remove(header.hash)
                undoable.update(header.hash for header in verdict.blocks)
                undoable.difference_update(header.hash for header in linker.accept(verdict))
        if not isinstance(verdict, Duplicate):
            assert linker.head == tree[name]
        window = linker.blocks
        assert all(child.parent_hash == elder.hash for elder, child in pairwise(window))
        assert len(window) <= 7
        assert {header.hash for header in window} == undoable, "what was let go was told"
        assert all(linker.holds(header.hash) for header in window)
