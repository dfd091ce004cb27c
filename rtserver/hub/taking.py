"""A step taken into streams: what the hub of a single process and the ledger of an engine both begin with."""

from collections.abc import Mapping
from typing import Final

from ..domain.diff import Change, EncodedPatch
from ..domain.update import BlockUpdate
from .stream import Encoder, Stream, apply_lone, block_tag

__all__ = ["take_update"]

_NO_PATCHES: Final[dict[str, EncodedPatch]] = {}


def take_update(streams: Mapping[str, Stream], update: BlockUpdate, told: list[Stream], now: float) -> None:
    """Take a step into the streams.

    Args:
        streams: The open ones, by channel; changes of others are nobody's.
        update: The step.
        told: Takes those that have something to tell, with their fragment; whoever calls takes that off again.
        now: Monotonic seconds.
    """
    encode_once = Encoder()
    step = (block_tag(update.header.hash), now)
    rolled_back = update.rollback is not None
    patched = update.patched

    def tell(stream: Stream, change: Change | None, texts: Mapping[str, EncodedPatch]) -> None:
        stream.fragment = stream.apply(change, step, encode_once, prove=rolled_back, patched=texts)
        told.append(stream)

    for name, change in update.changes.items():
        stream = streams.get(name)
        if stream is not None and (change or rolled_back):
            tell(stream, change, patched.get(name, _NO_PATCHES))
    for name, texts in patched.items():
        stream = streams.get(name)
        if stream is not None and not stream.fragment:
            tell(stream, None, texts)
    apply_lone(streams, update.lone, step, told, prove=rolled_back)
    if rolled_back:
        # A rollback is one more sequenced message on every channel of the chain, changed or not.
        for stream in streams.values():
            if stream.chain_id == update.chain_id and not stream.fragment:
                tell(stream, None, _NO_PATCHES)
    if update.rollback is not None and update.rollback.to is not None:
        for stream in told:
            stream.note_rollback(update.rollback)
