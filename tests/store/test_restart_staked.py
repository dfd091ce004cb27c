"""A restart in the middle of staking: whose and how much is what the chain says, whatever happened meanwhile."""

from __future__ import annotations

from pathlib import Path

from chain.staking import Crowd, Staker, assert_staking
from chain.test_reorg import reorg
from chain.world import owner_channel, rewards_channel

from rtserver.demo.lab import Lab
from rtserver.demo.market import Market, MarketConfig
from rtserver.protocols.channels import Channel

from .lives import open_life


async def test_stakes_of_before_of_meanwhile_and_of_a_fork(lab: Lab, tmp_path: Path) -> None:
    await lab.mine()
    market = Market(lab, seed=5, config=MarketConfig(seconds_per_block=7))
    staker = Staker(lab)
    crowd = Crowd(staker, 5)
    channels: list[Channel] = [*map(owner_channel, lab.owners), *map(rewards_channel, lab.owners)]
    names = [channel.name for channel in channels]

    async def steps(count: int) -> None:
        for _ in range(count):
            await crowd.act()
            await market.step()

    await steps(60)
    for round_ in range(3):
        async with open_life(lab, tmp_path / "kept.db", staking=True) as life:
            if round_:
                await life.loaded(names)
            else:
                await life.open(*channels)
            await life.settled()
            await life.rewarded()
            await assert_staking(life, staker)
            await reorg(life, 3)
            await life.rewarded()
            await assert_staking(life, staker)
            await lab.mine()
            await steps(5)
            await life.settled()
            await life.rewarded()
            await assert_staking(life, staker)
            await life.kept()
        await steps(6)
