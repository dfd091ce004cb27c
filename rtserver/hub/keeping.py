"""Streams over a restart: what is kept of one, and how the next process goes on with it.

A stream may go on only where nobody can hold more of it than was kept. That is so after an orderly end: steps
stopped first, streams were kept then, and whoever takes them takes them out (see store.store). After a crash
clients may have had steps that were never kept; a seq would then stand for two things. So these begin a new
epoch. Of the ring only its newest place is kept: that is where all clients are that were listening.
"""

from collections.abc import Callable
from typing import Final

from ..domain.chain import BlockRef
from ..domain.diff import State, diff
from ..domain.ids import ChainId
from ..store.values import KeptStream
from ..wire.cursor import parse_cursor
from .stream import Encoder, Stream, block_tag

__all__ = ["continued", "kept"]

_HEX: Final = "0x"


def kept(stream: Stream) -> KeptStream:
    """Return what the next process needs of a stream."""
    place = parse_cursor(stream.cursor)
    assert place is not None
    return KeptStream(epoch=stream.epoch, seq=stream.seq, tag=place.block_tag, state=stream.state)


def continued(
    name: str, chain_id: ChainId, before: KeptStream, state: State, block: BlockRef, clock: Callable[[], float]
) -> Stream:
    """Return the stream of an earlier process with one more change, which leads to the state of now.

    Args:
        name: The channel.
        chain_id: Its chain.
        before: The stream as it was kept.
        state: The state at `block`.
        block: The head.
        clock: Monotonic seconds.
    """
    stream = Stream(name, chain_id, before.epoch, before.state, _HEX + before.tag, clock, before.seq)
    change = diff(before.state, state)
    if change:
        stream.apply(change, (block_tag(block.hash), clock()), Encoder(), prove=True)
    return stream
