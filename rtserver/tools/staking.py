"""What v3-staker itself says of staked positions: whose they are, how often staked, and what they have earned.

The oracle's part for staking, and the comparison with it. Rewards are `getRewardInfo`'s own answers: nothing is
computed here. An incentive's key is the server's word, but the contract knows incentives by the key's hash, so
a wrong key finds no stake.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from eth_utils.crypto import keccak

from ..domain.diff import JsonObject, JsonValue
from ..domain.ids import Address, TokenId
from ..protocols.uniswap_v3.reads import balance_call, decode_uint, token_of_owner_call
from ..protocols.uniswap_v3.staker.events import decode_deposit, deposit_call
from .compare import Findings
from .truth import Truth

__all__ = ["Held", "StakerTruth", "compare_rewards"]

_REWARD_INFO: Final = bytes(keccak(text="getRewardInfo((address,address,uint256,uint256,address),uint256)")[:4])


@dataclass(frozen=True, slots=True)
class Held:
    """A position that the staker holds: for whom, None where for nobody, and how often it is staked."""

    owner: Address | None
    stakes: int


class StakerTruth:
    """The reads of one staker.

    Args:
        truth: The oracle that sends them.
        manager: NonfungiblePositionManager.
        staker: The v3-staker.
    """

    def __init__(self, truth: Truth, manager: Address, staker: Address) -> None:
        self.at: Final = staker
        self._truth = truth
        self._manager = manager

    async def held(self, token_ids: Iterable[TokenId], block_hash: str) -> dict[TokenId, Held]:
        """Return what the staker says of positions at a block; of those that it doesn't hold, nothing of worth."""
        ids = list(dict.fromkeys(token_ids))
        answers = await self._truth.ask([deposit_call(self.at, token_id) for token_id in ids], block_hash)
        deposits = map(decode_deposit, answers)
        return {token_id: Held(each.owner, each.stakes) for token_id, each in zip(ids, deposits, strict=True)}

    async def deposited_by(self, block_hash: str) -> dict[Address, frozenset[TokenId]]:
        """Return all positions in the staker at a block by whom they are held for; the staker's own under itself."""
        (balance,) = await self._truth.ask([balance_call(self._manager, self.at)], block_hash)
        calls = [token_of_owner_call(self._manager, self.at, index) for index in range(decode_uint(balance) or 0)]
        found = await self._truth.ask(calls, block_hash)
        ids = [TokenId(value) for value in map(decode_uint, found) if value is not None]
        owners: dict[Address, set[TokenId]] = {}
        for token_id, held in (await self.held(ids, block_hash)).items():
            owners.setdefault(held.owner or self.at, set()).add(token_id)
        return {owner: frozenset(each) for owner, each in owners.items()}

    async def rewards(self, entry: JsonObject, block_hash: str) -> dict[str, int | None]:
        """Return what getRewardInfo answers at a block for each place that a served position names.

        None where it reverts; a place whose terms are no key at all is left out.
        """
        calls, names = [], []
        for place in _places(entry):
            token, terms = place.get("token"), [place.get(name) for name in ("startTime", "endTime")]
            try:
                words = [
                    int(str(token["address"] if isinstance(token, dict) else token), 16),
                    int(str(entry["pool"]), 16),
                    *(int(str(term)) for term in terms),
                    int(str(place["refundee"]), 16),
                    int(str(entry["tokenId"])),
                ]
                data = b"".join(word.to_bytes(32, "big") for word in words)
            except (KeyError, ValueError, OverflowError):
                continue
            calls.append((self.at, _REWARD_INFO + data))
            names.append(str(place.get("incentive")))
        answers = await self._truth.ask(calls, block_hash)
        return dict(zip(names, map(decode_uint, answers), strict=True))


def _places(entry: JsonObject) -> list[dict[str, JsonValue]]:
    rewards = entry.get("rewards")
    places = rewards.get("places") if isinstance(rewards, dict) else None
    return [place for place in places if isinstance(place, dict)] if isinstance(places, list) else []


def compare_rewards(
    entry: JsonObject, stakes: int, answers: Mapping[str, int | None], timestamp: int, findings: Findings
) -> None:
    """Add what differs between a position's served rewards and the staker's answers at a block.

    Amounts are compared where they are of that very block: they are told at a pace, with the time they are of.
    """
    rewards = entry.get("rewards")
    if rewards is None:
        return  # not known yet, or not staked
    if not isinstance(rewards, dict):
        findings.wrong("rewards", rewards, "an object")
        return
    places = _places(entry)
    findings.check("rewards.places", len(places), stakes)
    if rewards.get("asOf") != timestamp:
        return
    for place in places:
        name = str(place.get("incentive"))
        if name not in answers:
            findings.wrong(f"rewards.{name}", "no key", "terms of which the key is made")
        elif (amount := answers[name]) is None:
            findings.unanswered += 1
        else:
            findings.check(f"rewards.{name}", place.get("amount"), str(amount))
