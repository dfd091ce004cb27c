"""A restart in the middle of earning: what was paid before, meanwhile and in a fork is all there, to the unit."""

from __future__ import annotations

from pathlib import Path

from chain.test_earnings import assert_earned, samples_of, start
from chain.test_reorg import reorg
from chain.world import owner_channel

from rtserver.demo.lab import Lab
from rtserver.protocols.channels import Channel

from .lives import open_life


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
