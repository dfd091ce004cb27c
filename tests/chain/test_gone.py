"""What clients are told of reorganisations: only what they knew, however the chain came to be as it is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rtserver.chain.linker import Gap, Linker, Next, Reorg, TooDeep
from rtserver.domain.chain import Committed, Header, Reorged
from rtserver.domain.ids import BlockHash, ChainId
from rtserver.engine.gone import Gone

CHAIN = ChainId(1)


def block(number: int, branch: int, parent: Header | None) -> Header:
    return Header(
        number=number,
        hash=BlockHash(f"{branch}.{number}"),
        parent_hash=BlockHash("0") if parent is None else parent.hash,
        timestamp=number,
        logs_bloom=0,
    )


def test_nothing_is_told_of_blocks_that_were_never_published() -> None:
    gone = Gone()
    first, mine, other = block(1, 0, None), block(2, 0, block(1, 0, None)), block(2, 1, block(1, 0, None))
    gone.take(Committed(chain_id=CHAIN, blocks=(mine,)))
    gone.take(Reorged(chain_id=CHAIN, ancestor=first.ref, dropped=(mine,), blocks=(other,)))
    assert gone.rollback() is None


def test_a_chain_that_came_back_to_where_it_was_has_lost_nothing() -> None:
    gone = Gone()
    first, mine, other = block(1, 0, None), block(2, 0, block(1, 0, None)), block(2, 1, block(1, 0, None))
    gone.take(Reorged(chain_id=CHAIN, ancestor=first.ref, dropped=(mine,), blocks=(other,)))
    gone.take(Reorged(chain_id=CHAIN, ancestor=first.ref, dropped=(other,), blocks=(mine,)))
    assert gone.rollback() is None


def test_where_no_ancestor_is_known_there_is_none_to_go_back_to() -> None:
    gone = Gone()
    old, new = block(1, 0, None), block(9, 1, None)
    gone.take(Reorged(chain_id=CHAIN, ancestor=None, dropped=(old,), blocks=(new,)))
    gone.take(Committed(chain_id=CHAIN, blocks=(block(10, 1, new),)))
    rollback = gone.rollback()
    assert rollback is not None
    assert (rollback.to, rollback.dropped) == (None, (old.hash,))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 4), st.booleans()), min_size=1, max_size=40))
def test_it_is_the_difference_between_two_chains(moves: list[tuple[int, int, bool]]) -> None:
    """Random trees, several moves a step: what is told is what the published chain has and the new one lacks."""
    tree = [block(0, 0, None)]
    by_hash = {tree[0].hash: tree[0]}
    linker = Linker(depth=100)
    linker.restart(tree[0])
    published, gone = linker.blocks, Gone()
    for index, (onto, count, is_published) in enumerate(moves):
        parent = tree[onto % len(tree)]
        for _ in range(count):
            parent = block(parent.number + 1, index + 1, parent)
            tree.append(parent)
            by_hash[parent.hash] = parent
        ancestry = [parent if index % 3 else tree[(onto * 7) % len(tree)]]
        while isinstance(verdict := linker.classify(ancestry), Gap):
            ancestry.insert(0, by_hash[verdict.hash])
        if isinstance(verdict, Reorg) or linker.holds(ancestry[-1].hash):
            if not isinstance(verdict, Reorg):
                if ancestry[-1] == linker.head:
                    continue
                back = linker.retreat(ancestry[-1].hash)
                if isinstance(back, TooDeep):
                    continue
                verdict = back
            linker.accept(verdict)
            gone.take(
                Reorged(chain_id=CHAIN, ancestor=verdict.ancestor, dropped=verdict.dropped, blocks=verdict.blocks)
            )
        elif isinstance(verdict, Next):
            linker.accept(verdict)
            gone.take(Committed(chain_id=CHAIN, blocks=verdict.blocks))
        if not is_published:
            continue
        now = linker.blocks
        lost = [header for header in published if header not in now]
        rollback = gone.rollback()
        if lost:
            assert rollback is not None
            assert rollback.dropped == tuple(header.hash for header in lost)
            assert rollback.to == [header for header in published if header in now][-1].ref
        else:
            assert rollback is None
        published, gone = now, Gone()


def test_what_is_final_can_be_let_go_and_the_rest_still_be_undone() -> None:
    linker = Linker(depth=8)
    blocks = [block(0, 0, None)]
    for number in range(1, 6):
        blocks.append(block(number, 0, blocks[-1]))
    linker.restart(blocks[-1], blocks[:-1])
    assert linker.settle(BlockHash("unknown")) == ()
    assert linker.settle(blocks[2].hash) == tuple(blocks[:2])
    assert linker.base == blocks[2]
    assert linker.settle(blocks[2].hash) == ()
    fork = block(3, 1, blocks[2])
    assert isinstance(linker.classify([fork]), Reorg)
    below = block(2, 1, blocks[1])
    assert isinstance(linker.classify([below]), TooDeep)
    assert isinstance(linker.retreat(blocks[2].hash), TooDeep)
    back = linker.retreat(blocks[4].hash)
    assert isinstance(back, Reorg)
    assert (back.ancestor, back.dropped, back.blocks) == (blocks[3].ref, tuple(blocks[4:]), (blocks[4],))
