"""What the contracts really paid, from receipts alone: token transfers out of pools, burns, and the staker's own books.

Shares nothing with the server: fees are what left a pool for a position's owner, less what its burns freed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rtserver.demo.contracts import topic_of
from rtserver.demo.lab import Lab

from .staking import Staker
from .world import World

_TRANSFER = topic_of("Transfer(address,address,uint256)")
_MINT = topic_of("Mint(address,address,int24,int24,uint128,uint256,uint256)")
_BURN = topic_of("Burn(address,int24,int24,uint128,uint256,uint256)")
_INCREASE = topic_of("IncreaseLiquidity(uint256,uint128,uint256,uint256)")
_DECREASE = topic_of("DecreaseLiquidity(uint256,uint128,uint256,uint256)")
_COLLECT = topic_of("Collect(uint256,address,uint256,uint256)")
_UNSTAKED = topic_of("TokenUnstaked(uint256,bytes32)")


@dataclass
class Paid:
    """What moved for one position, by token."""

    deposited: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    withdrawn: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    collected: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def fees(self, token: str) -> int:
        """Return what was paid beyond what was withdrawn; less than nothing while principal is owed."""
        return self.collected[token] - self.withdrawn[token]


def _address(word: str) -> str:
    return "0x" + word[-40:].lower()


def _words(data: str) -> list[int]:
    return [int(data[start : start + 64], 16) for start in range(2, len(data), 64)]


async def receipts_of(lab: Lab) -> list[list[Mapping[str, Any]]]:
    """Return the receipts of every block of the chain as it is, oldest first."""
    head = int(await lab.node.rpc("eth_blockNumber", []), 16)
    return [await lab.node.rpc("eth_getBlockReceipts", [hex(number)]) or [] for number in range(head + 1)]


def payments(lab: Lab, blocks: Iterable[list[Mapping[str, Any]]]) -> dict[int, Paid]:
    """Return what moved for each position."""
    manager = lab.deployment.position_manager.lower()
    pools = {pool.address.lower(): (pool.token0.address.lower(), pool.token1.address.lower()) for pool in lab.pools}
    paid: dict[int, Paid] = defaultdict(Paid)
    for receipts in blocks:
        for receipt in receipts:
            minted: dict[str, int] = {}
            burned: dict[str, int] = {}
            out: dict[str, int] = defaultdict(int)
            for log in receipt["logs"]:
                at, kind = log["address"].lower(), log["topics"][0]
                if at in pools and kind == _MINT:
                    minted = dict(zip(pools[at], _words(log["data"])[2:], strict=True))
                elif at in pools and kind == _BURN:
                    burned = dict(zip(pools[at], _words(log["data"])[1:], strict=True))
                elif kind == _TRANSFER and len(log["topics"]) == 3 and _address(log["topics"][1]) in pools:
                    out[at] += _words(log["data"])[0]
                elif at == manager and kind in (_INCREASE, _DECREASE, _COLLECT):
                    one = paid[int(log["topics"][1], 16)]
                    if kind == _INCREASE:
                        into, moved = one.deposited, minted
                    elif kind == _DECREASE:
                        into, moved = one.withdrawn, burned
                    else:
                        into, moved = one.collected, out
                    for token, amount in moved.items():
                        into[token] += amount
                    minted, burned = {}, {}
                    out = defaultdict(int)
    return paid


async def credits_of(world: World, staker: Staker, blocks: list[list[Mapping[str, Any]]]) -> tuple[dict[int, int], int]:
    """Return what the staker credited for each position of which that can be told from its books, and how many can't.

    It books by owner, so two positions of one owner that were unstaked in one block can't be told apart.
    """
    owners = {staker.incentive_id(incentive): incentive for incentive in staker.incentives}
    credited: dict[int, int] = defaultdict(int)
    unclear: set[int] = set()
    for number, receipts in enumerate(blocks):
        here: dict[tuple[str, str], list[int]] = defaultdict(list)
        for receipt in receipts:
            for log in receipt["logs"]:
                if log["address"].lower() == staker.at.lower() and log["topics"][0] == _UNSTAKED:
                    incentive = owners[log["topics"][2]]
                    here[receipt["from"].lower(), incentive.reward_token].append(int(log["topics"][1], 16))
        for (owner, token), token_ids in here.items():
            data = "0x" + staker.contract.call("rewards", token, owner).hex()
            before, after = [
                int(await world.lab.node.rpc("eth_call", [{"to": staker.at, "data": data}, hex(at)]), 16)
                for at in (number - 1, number)
            ]
            if len(token_ids) > 1:
                unclear.update(token_ids)
            else:
                credited[token_ids[0]] += after - before
    return {token_id: amount for token_id, amount in credited.items() if token_id not in unclear}, len(unclear)
