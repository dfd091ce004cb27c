"""Finding an owner's NFTs through the enumerable interface, restarted whenever a transfer moves the ground."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ...domain.ids import Address, TokenId
from ..base import Call
from .reads import balance_call, decode_uint, token_of_owner_call

__all__ = ["OwnerWatch"]

# Indexes asked for together with the balance: most owners have fewer, and save a round trip.
_FIRST_GUESS: Final = 16


@dataclass(slots=True, eq=False)
class OwnerWatch:
    """One watched owner: how far its enumeration got, and which of its positions are still being read.

    Enumeration is consistent only if no NFT enters or leaves the owner between its reads: `restart` on
    any transfer. `wishes` counts who wants this owner; `urgent` says that its positions were told to someone
    before, so that the next step has to wait for the enumeration.
    """

    owner: Address
    wishes: int = 0
    discovered: bool = False
    urgent: bool = False
    balance: int | None = None
    found: dict[int, TokenId] = field(default_factory=dict)
    awaiting: set[TokenId] = field(default_factory=set)

    def restart(self) -> None:
        """Begin the enumeration again."""
        self.urgent = self.urgent or self.discovered
        self.discovered = False
        self.balance = None
        self.found.clear()

    def calls(self, manager: Address, budget: int) -> list[tuple[int, Call]]:
        """Return the next reads as (index, call); index -1 is the balance."""
        if self.discovered:
            return []
        if self.balance is None:
            guesses = range(min(_FIRST_GUESS, max(budget - 1, 0)))
            return [(-1, balance_call(manager, self.owner))] + [
                (index, token_of_owner_call(manager, self.owner, index)) for index in guesses
            ]
        missing = [index for index in range(self.balance) if index not in self.found][: max(budget, 0)]
        return [(index, token_of_owner_call(manager, self.owner, index)) for index in missing]

    def take(self, index: int, result: bytes | None) -> None:
        """Take one answer. Indexes past the end revert and are passed over."""
        value = decode_uint(result)
        if index < 0:
            self.balance = value or 0
        elif value is not None:
            self.found[index] = TokenId(value)

    def settle(self) -> Sequence[TokenId] | None:
        """Return all ids once the enumeration is whole, else None."""
        if self.discovered or self.balance is None or len(self.found) < self.balance:
            return None
        self.discovered = True
        ids = [self.found[index] for index in sorted(self.found)]
        self.found.clear()
        return ids
