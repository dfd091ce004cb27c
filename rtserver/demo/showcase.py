"""The people of the demo: one owner for every way a position can stand, minted before the market opens."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .deployment import Pool
from .lab import Lab
from .ranges import RangeKind, choose_range

__all__ = ["Exhibit", "mint_exhibits"]

_EACH: Final = 5


@dataclass(frozen=True, slots=True)
class Exhibit:
    """An owner to look at, what to look for, and the NFTs that show it."""

    owner: str
    word: str
    token_ids: tuple[int, ...]


async def mint_exhibits(lab: Lab, *, seed: int) -> list[Exhibit]:
    """Mint for the lab's owners in turn, mine, and return who shows what.

    With fewer owners than kinds, the later kinds are left out; with more, the first kinds come again.
    """
    shows: list[tuple[str, Callable[[Lab, str, random.Random], Coroutine[Any, Any, list[str]]]]] = [
        ("in-range", _in_range),
        ("out-of-range", _out_of_range),
        ("full-range", _full_range),
        ("shared", _shared),
        ("closed", _in_range),
        ("staked", _staked),
    ]
    rng = random.Random(seed)
    sent: list[tuple[str, str, list[str]]] = []
    for index, owner in enumerate(lab.owners):
        word, show = shows[index % len(shows)]
        sent.append((owner, word, await show(lab, owner, rng)))
    await lab.mine()
    exhibits = [
        Exhibit(owner, word, tuple(lab.token_id(tx_hash) for tx_hash in hashes)) for owner, word, hashes in sent
    ]
    await _give_fees(lab)
    for exhibit in exhibits:
        if exhibit.word == "closed":
            await _close_most(lab, exhibit.token_ids)
        elif exhibit.word == "staked":
            for token_id in exhibit.token_ids[:-1]:
                await lab.stake(token_id)
    await lab.mine()
    return exhibits


async def _give_fees(lab: Lab) -> None:
    """Trade both ways once in every pool, so that nobody starts at zero."""
    for pool in lab.deployment.pools:
        await lab.swap(pool, True, pool.token0.raw_of_usd(4_000))
        await lab.swap(pool, False, pool.token1.raw_of_usd(4_000))
    await lab.mine()


async def _close_most(lab: Lab, token_ids: Sequence[int]) -> None:
    """Withdraw from all but one; every second one is collected too, the others keep what they are owed."""
    for index, token_id in enumerate(token_ids[:-1]):
        await lab.decrease(token_id)
        if index % 2:
            await lab.collect(token_id)


async def _mint(lab: Lab, owner: str, pool: Pool, ticks: tuple[int, int], usd: float) -> str:
    return await lab.mint(owner, pool, *ticks, pool.token0.raw_of_usd(usd), pool.token1.raw_of_usd(usd))


async def _of_kinds(
    lab: Lab, owner: str, rng: random.Random, kinds: Sequence[RangeKind], pools: Sequence[Pool]
) -> list[str]:
    hashes = []
    for index in range(_EACH):
        pool = pools[index % len(pools)]
        ticks = choose_range(rng, pool, lab.pool_state(pool).tick, kinds[index % len(kinds)])
        hashes.append(await _mint(lab, owner, pool, ticks, rng.uniform(2_000, 40_000)))
    return hashes


async def _in_range(lab: Lab, owner: str, rng: random.Random) -> list[str]:
    return await _of_kinds(lab, owner, rng, (RangeKind.WIDE, RangeKind.TIGHT), lab.deployment.pools)


async def _out_of_range(lab: Lab, owner: str, rng: random.Random) -> list[str]:
    return await _of_kinds(lab, owner, rng, (RangeKind.ABOVE, RangeKind.BELOW), lab.deployment.pools)


async def _full_range(lab: Lab, owner: str, rng: random.Random) -> list[str]:
    return await _of_kinds(lab, owner, rng, (RangeKind.FULL,), lab.deployment.pools)


async def _shared(lab: Lab, owner: str, rng: random.Random) -> list[str]:
    """Mint pairs of NFTs on the same ticks: this owner's and the next one's beside it."""
    others = [other for other in lab.owners if other != owner] or [owner]
    hashes = []
    for pool in lab.deployment.pools[:_EACH]:
        ticks = choose_range(rng, pool, lab.pool_state(pool).tick, RangeKind.WIDE)
        hashes.append(await _mint(lab, owner, pool, ticks, 10_000))
        await _mint(lab, rng.choice(others), pool, ticks, 7_000)
    return hashes


async def _staked(lab: Lab, owner: str, rng: random.Random) -> list[str]:
    with_incentive = {incentive.pool for incentive in lab.deployment.incentives}
    pools = [pool for pool in lab.deployment.pools if pool.address in with_incentive]
    return await _of_kinds(lab, owner, rng, (RangeKind.WIDE, RangeKind.TIGHT), pools)
