"""A restart in the middle of earning: what was paid before, meanwhile and in a fork is all there, to the unit."""

from __future__ import annotations

import asyncio
from pathlib import Path

from chain.paid import payments, receipts_of
from chain.test_earnings import assert_earned, samples_of, start
from chain.test_reorg import reorg
from chain.world import owner_channel

from rtserver.demo.lab import Lab
from rtserver.demo.rpc import RpcError
from rtserver.history.build import Kept
from rtserver.protocols.channels import Channel

from .conftest import Place
from .lives import Life, open_life


async def test_what_was_earned_outlives_processes_and_forks(lab: Lab, tmp_path: Path) -> None:
    market, staker = await start(lab, 7)
    owners = (*lab.owners, lab.deployment.staker)
    channels: list[Channel] = [*map(owner_channel, owners)]
    names = [channel.name for channel in channels]
    for round_ in range(3):
        async with open_life(lab, tmp_path / "kept.db", staking=True) as life:
            if round_:
                await life.loaded(names)
            else:
                await life.open(*channels)
            await life.settled()
            await life.rewarded()
            await assert_earned(life, staker)
            for _ in range(6):
                await market.step()
                await life.settled()
            await reorg(life, 3)
            await life.rewarded()
            await assert_earned(life, staker)
            await lab.mine()
            for _ in range(5):
                await market.step()
                await life.settled()
            await life.remembered()
            await life.kept()
            said = samples_of(life)
        async with open_life(lab, tmp_path / "kept.db", staking=True) as again:
            await again.loaded(names)
            await again.settled()
            # It was kept, so nobody waits for the past to be read.
            for token_id, sample in samples_of(again).items():
                assert (sample.earned0, sample.earned1) == (said[token_id].earned0, said[token_id].earned1)
        await market.steps(6)


async def test_windows_go_on_from_what_was_recorded(lab: Lab, place: Place) -> None:
    """Hours of one process, then another: its day begins in the first one, and is to the unit what was paid since."""
    market, _ = await start(lab, 8)
    kept = Kept(every_s=60, keep_minutes_h=48, keep_hours_d=90, keep_days_d=0, queue_rows=50_000)
    owners = lab.owners
    async with open_life(lab, place.url, kept=kept) as life:
        await life.open(*map(owner_channel, owners))
        await life.remembered()
        for _ in range(12):
            await market.step()
            await life.settled()
        await life.remembered()
        await life.recorded()
        await life.kept()
        began = await earned_by_block(lab, life)
    await market.steps(4)
    async with open_life(lab, place.url, kept=kept) as again:
        await again.loaded([owner_channel(owner).name for owner in owners])
        await again.settled()
        await again.remembered()
        book = again.book
        assert book is not None
        for _ in range(4):
            await market.step()
            await again.settled()
        async with asyncio.timeout(60):
            # What is recorded is proved beside the blocks; with the first block after that, windows are continued.
            while book.unseeded(1):
                await market.step()
                await again.settled()
        await again.remembered()
        continued = 0
        for sample in samples_of(again).values():
            earnings = book.earnings(sample.token_id)
            assert earnings is not None
            for window in earnings.windows:
                start_at = lab.head.timestamp - window.covered_s
                before = began.get((start_at, sample.token_id))
                if before is None or window.length_s != 86_400:
                    continue
                continued += 1
                assert sample.earned0 is not None and sample.earned1 is not None
                assert (window.fees0, window.fees1) == (sample.earned0 - before[0], sample.earned1 - before[1])
        assert continued > 5


async def earned_by_block(lab: Lab, life: Life) -> dict[tuple[int, int], tuple[int, int]]:
    """Return what each position had earned at each block's time, by receipts and by what a collect would have paid."""
    blocks = await receipts_of(lab)
    found = {}
    for number in range(len(blocks)):
        block = await lab.node.rpc("eth_getBlockByNumber", [hex(number), False])
        paid = payments(lab, blocks[: number + 1])
        for view in life.positions():
            token_id = int(view["tokenId"])
            try:
                due = await lab.collectable(token_id, block=block["hash"])
            except RpcError:
                continue  # not minted yet
            tokens = [view[side]["address"].lower() for side in ("token0", "token1")]
            found[int(block["timestamp"], 16), token_id] = (
                paid[token_id].fees(tokens[0]) + due[0],
                paid[token_id].fees(tokens[1]) + due[1],
            )
    return found
