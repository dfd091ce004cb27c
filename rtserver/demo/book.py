"""What stands in the pools and who owns which NFT, folded from the logs of mined blocks.

The market chooses from it and the tests name things by it. It is the activity's own memory, not an oracle:
values to compare with come from the contracts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from .contracts import topic_of

__all__ = ["Book", "Nft", "PoolState"]

_TRANSFER: Final = topic_of("Transfer(address,address,uint256)")
_INCREASE: Final = topic_of("IncreaseLiquidity(uint256,uint128,uint256,uint256)")
_DECREASE: Final = topic_of("DecreaseLiquidity(uint256,uint128,uint256,uint256)")
_MINT: Final = topic_of("Mint(address,address,int24,int24,uint128,uint256,uint256)")
_SWAP: Final = topic_of("Swap(address,address,int256,int256,uint160,uint128,int24)")
_INITIALIZE: Final = topic_of("Initialize(uint160,int24)")
_NOBODY: Final = "0x" + "0" * 40
# Enough to look up what any test or the demo's beginning minted; older answers are forgotten.
_REMEMBERED_MINTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Nft:
    """A position NFT. `owner` is the staker contract while it is deposited there."""

    token_id: int
    owner: str
    pool: str
    lower: int
    upper: int
    liquidity: int


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool's price, Q64.96, and its own tick."""

    sqrt_price: int
    tick: int


class Book:
    """The NFTs and pool prices after the blocks applied so far."""

    def __init__(self, position_manager: str, staker: str) -> None:
        self._manager = position_manager.lower()
        self._staker = staker.lower()
        self.nfts: dict[int, Nft] = {}
        self.pools: dict[str, PoolState] = {}
        # Who put an NFT into the staker: they alone can take it back.
        self.depositors: dict[int, str] = {}
        self._minted: dict[str, list[int]] = {}

    def owned_by(self, owner: str) -> list[int]:
        """Return the token ids that an address holds, in order of id; staked ones are the staker's."""
        owner = owner.lower()
        return sorted(nft.token_id for nft in self.nfts.values() if nft.owner == owner)

    def minted_in(self, tx_hash: str) -> list[int]:
        """Return the token ids that a transaction minted, in order."""
        return list(self._minted.get(tx_hash, ()))

    def apply(self, receipts: Iterable[Mapping[str, Any]]) -> None:
        """Fold one block's receipts, in order."""
        for receipt in receipts:
            # The pool's Mint log comes before the manager's own, and says what the NFT stands for.
            place: tuple[str, int, int] | None = None
            for log in receipt["logs"]:
                topics = log["topics"]
                if not topics:
                    continue
                address, kind, data = log["address"].lower(), topics[0], log["data"]
                if address == self._manager:
                    self._apply_manager(receipt["transactionHash"], kind, topics, data, place)
                elif kind == _SWAP:
                    self.pools[address] = PoolState(_word(data, 2), _signed(_word(data, 4)))
                elif kind == _INITIALIZE:
                    self.pools[address] = PoolState(_word(data, 0), _signed(_word(data, 1)))
                elif kind == _MINT and _address(topics[1]) == self._manager:
                    place = (address, _signed(int(topics[2], 16)), _signed(int(topics[3], 16)))

    def _apply_manager(
        self, tx: str, kind: str, topics: list[str], data: str, place: tuple[str, int, int] | None
    ) -> None:
        if kind == _TRANSFER:
            before, after, token_id = _address(topics[1]), _address(topics[2]), int(topics[3], 16)
            if before == _NOBODY and place is not None:
                self.nfts[token_id] = Nft(token_id, after, *place, liquidity=0)
                self._minted.setdefault(tx, []).append(token_id)
                if len(self._minted) > _REMEMBERED_MINTS:
                    del self._minted[next(iter(self._minted))]
            elif after == _NOBODY:
                self.nfts.pop(token_id, None)
                self.depositors.pop(token_id, None)
            elif token_id in self.nfts:
                self.nfts[token_id] = replace(self.nfts[token_id], owner=after)
                if after == self._staker:
                    self.depositors[token_id] = before
                else:
                    self.depositors.pop(token_id, None)
        elif kind in (_INCREASE, _DECREASE):
            token_id = int(topics[1], 16)
            if (nft := self.nfts.get(token_id)) is not None:
                change = _word(data, 0) if kind == _INCREASE else -_word(data, 0)
                self.nfts[token_id] = replace(nft, liquidity=nft.liquidity + change)


def _word(data: str, index: int) -> int:
    start = 2 + 64 * index
    return int(data[start : start + 64], 16)


def _signed(word: int) -> int:
    return word - (1 << 256) if word >> 255 else word


def _address(topic: str) -> str:
    return "0x" + topic[-40:].lower()
