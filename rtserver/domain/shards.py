"""Which channels of a chain are whose, where several engines share it.

By the channel's name and not by its pool: an owner's channel spans pools, and is one sequence with one proof.
"""

from dataclasses import dataclass
from typing import Final
from zlib import crc32

__all__ = ["ONE", "Shards", "is_in", "label_of", "named", "parse_shards", "shard_of"]

# Each costs every gateway a subscription, and every block a frame; more than this is a typing error.
_MAX_SHARDS: Final = 64


@dataclass(frozen=True, slots=True)
class Shards:
    """An engine's part of a chain: the numbers of its shards, of `count` in all, from 0."""

    mine: tuple[int, ...]
    count: int

    @property
    def label(self) -> str:
        """Return how what is kept of this part is named, as `label_of`; of whichever shards are free, `any/4`."""
        return label_of(self.mine[0], self.count) if len(self.mine) == 1 else f"any/{self.count}"


ONE: Final = Shards((0,), 1)


def parse_shards(text: str) -> Shards:
    """Return what `2/4` (one shard), or `any/4` (whichever has no engine) means.

    Raises:
        ValueError: It is neither.
    """
    which, _, of = text.partition("/")
    if not (of.isascii() and of.isdigit() and 1 <= int(of) <= _MAX_SHARDS):
        raise ValueError(f"a shard is one of a number, such as 0/4, up to {_MAX_SHARDS}; or any/4")
    count = int(of)
    if which == "any":
        return Shards(tuple(range(count)), count)
    if not (which.isascii() and which.isdigit() and int(which) < count):
        raise ValueError(f"of {count} shards there are 0/{count} to {count - 1}/{count}; or any/{count}")
    return Shards((int(which),), count)


def shard_of(channel: str, count: int) -> int:
    """Return the number of a channel's shard.

    What a name says behind its kind decides: an owner's positions and claims are with the same engine, and so are a
    chain's head and its prices.
    """
    return crc32(channel.partition(":")[2].encode()) % count if count > 1 else 0


def label_of(shard: int, count: int) -> str:
    """Return how frames name a shard; empty where there is but one."""
    return f"{shard}/{count}" if count > 1 else ""


def named(whole: str, label: str) -> str:
    """Return what a shard's part of something is called; as the whole where there are no shards.

    So names are told apart of what each shard's engine keeps, writes and logs for itself, as each follows the chain for
    itself. A position may be in several: in one by its own channel, in another by its owner's.
    """
    return f"{whole} {label}" if label else whole


def is_in(channel: str, label: str) -> bool:
    """Return whether a channel is of the shard that a frame names; raises ValueError where that is no label."""
    shard, _, count = label.partition("/")
    return shard_of(channel, int(count)) == int(shard)
