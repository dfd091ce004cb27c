"""What one owner costs beside delivering: computing its positions, and the memory of its state.

On the real book, engine and mirrors, in one process; owners have five positions (bench.recompute).
"""

import gc
import statistics
import time
import tracemalloc
from dataclasses import dataclass
from typing import Final

import orjson

from bench.common_chain import InMemoryChain
from bench.recompute import World, measure
from rtserver.broker.steps import Held, Snapshot
from rtserver.domain.ids import ChainId
from rtserver.hub.mirror import Mirror
from rtserver.protocols.channels import Channel, OwnerChannel

__all__ = ["POSITIONS", "OwnerCosts", "owner_costs"]

# Of an owner.
POSITIONS: Final = 5
_OWNERS: Final = 400
_BLOCKS: Final = 16
_CHAIN: Final = ChainId(31337)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerCosts:
    """Microseconds of CPU to read in and recompute a position; an owner's state as JSON, and as a gateway's mirror."""

    compute_us: float
    state_bytes: float
    mirror_bytes: float


def owner_costs() -> OwnerCosts:
    """Measure."""
    positions = _OWNERS * POSITIONS
    row = measure("owners", positions=positions, blocks=_BLOCKS, in_range=0.7, owners=True, seed=1)
    chain = InMemoryChain(positions=positions, owners=_OWNERS, in_range=0.7, seed=1)
    channels: list[Channel] = [OwnerChannel(_CHAIN, owner) for owner in chain.owners]
    kept = World(chain, channels, 1).hub.kept_streams(_CHAIN)
    snapshots = {
        name: Snapshot(epoch=one.epoch, seq=one.seq, tag="0" * 16, at_ms=0, state=orjson.dumps(one.state))
        for name, one in kept.items()
    }
    gc.collect()
    tracemalloc.start()
    mirrors = [
        Mirror(name, _CHAIN, Held(snapshot=snapshot, entries=[]), 0, time.monotonic)
        for name, snapshot in snapshots.items()
    ]
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return OwnerCosts(
        compute_us=statistics.median(row.read) + statistics.median(row.compute),
        state_bytes=statistics.fmean(len(snapshot.state) for snapshot in snapshots.values()),
        mirror_bytes=taken / len(mirrors),
    )
