"""What positions have earned over time: a port that is joined at the start; what books and prices say of it, and what
an engine elsewhere says.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeAlias

from ..broker.asks import AskKind, ask_key
from ..domain.diff import JsonValue
from ..domain.ids import ChainId, TokenId
from ..protocols.base import Book, Prices
from ..protocols.channels import Channel
from ..worth.earnings import earnings_view, glance_view

__all__ = ["UNKNOWN", "BookEarnings", "Earned", "Earnings", "EngineEarnings", "NoEarnings", "PositionKey"]

# Each of these is null rather than wrong.
UNKNOWN: Final[Mapping[str, JsonValue]] = {
    "apr": None,
    "aprs": None,
    "poolApr": None,
    "pnl": None,
    "earned": None,
    "earnedAmountUSD": None,
}
# Reckoning a position takes up to 0.1 ms: blocks don't wait for more than ten.
_RECKONED_AT_ONCE: Final = 100

# How long the first answer about a position waits for prices of then: one read of an old block, or some.
_FIRST_S: Final = 1.0
# Positions that are remembered as waited for; one that is forgotten is waited for once more.
_WAITED: Final = 10_000

# A position: protocol and token id.
PositionKey: TypeAlias = tuple[str, TokenId]
# What is known of one, by the names in UNKNOWN; those that are missing are not known.
Earned: TypeAlias = Mapping[str, JsonValue]


class Earnings(Protocol):
    """Reckons what positions have earned."""

    async def earned(self, channel: Channel, keys: Sequence[PositionKey], *, is_brief: bool) -> Sequence[Earned]:
        """Return what is known of positions that an open channel shows, in their order.

        `apr` is the rate of one window as text ("15.5%"), `aprs` the windows by name, `poolApr` the pool's own,
        `pnl` profit and loss, `earned` and `earnedAmountUSD` fees and rewards over life. All of it is as of the head at
        the time of return, unless the head moved while so many were reckoned. `is_brief` asks for `apr` and
        `earnedAmountUSD` alone. Waits for seconds at most.
        """


class NoEarnings:
    """Knows nothing."""

    async def earned(self, channel: Channel, keys: Sequence[PositionKey], *, is_brief: bool) -> Sequence[Earned]:
        """Return nothing of each."""
        return [{} for _ in keys]


class BookEarnings:
    """What the books know, at the prices of the same block.

    Args:
        books: By chain and protocol.
        prices: Returns a chain's prices.
        price_past: Has a position's own events priced, and returns once they are, as far as they can be.
    """

    def __init__(
        self,
        books: Mapping[ChainId, Mapping[str, Book]],
        prices: Callable[[ChainId], Prices],
        price_past: Callable[[ChainId, str, TokenId], Awaitable[None]],
    ) -> None:
        self._books = books
        self._prices = prices
        self._price_past = price_past
        # Positions whose prices of then somebody waited for.
        self._waited: OrderedDict[tuple[ChainId, str, TokenId], None] = OrderedDict()

    async def earned(self, channel: Channel, keys: Sequence[PositionKey], *, is_brief: bool) -> Sequence[Earned]:
        """Return what is known; see the port. Of up to a hundred positions without letting anything else happen.

        Who asks first for all of one position waits a moment for what its payments were worth.
        """
        if not is_brief and len(keys) == 1 and (first := self.first(channel.chain_id, *keys[0])) is not None:
            await first
        found = []
        for index, (protocol, token_id) in enumerate(keys):
            if index and index % _RECKONED_AT_ONCE == 0:
                await asyncio.sleep(0)
            found.append(self.of(channel.chain_id, protocol, token_id, is_brief=is_brief))
        return found

    def first(self, chain_id: ChainId, protocol: str, token_id: TokenId) -> Coroutine[Any, Any, None] | None:
        """Return what whoever asks first for all of a position waits for, a moment; None for those who come later."""
        key = chain_id, protocol, token_id
        if key in self._waited:
            return None
        self._waited[key] = None
        while len(self._waited) > _WAITED:
            self._waited.popitem(last=False)
        return self._wait_for(key)

    async def _wait_for(self, key: tuple[ChainId, str, TokenId]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await self._price_past(*key)

    def of(self, chain_id: ChainId, protocol: str, token_id: TokenId, *, is_brief: bool) -> Earned:
        """Return what is known of a position; who asks for all of it has prices of then looked up for the next time."""
        book, prices = self._books[chain_id][protocol], self._prices(chain_id)
        earnings = book.earnings(token_id)
        if is_brief:
            return glance_view(earnings, prices)
        book.want_prices(token_id)
        return earnings_view(earnings, book.life(token_id), prices)


class Asked(Protocol):
    """Answers of an engine; see broker.asking."""

    async def get(self, keys: Sequence[str]) -> Mapping[str, Any]:
        """Return the answers that are to be had, all of the head on return."""


class EngineEarnings:
    """What the engines say that compute a chain.

    Args:
        asked: Returns who asks the engine that a channel comes from; None where there is none.
    """

    def __init__(self, asked: Callable[[Channel], Asked | None]) -> None:
        self._asked = asked

    async def earned(self, channel: Channel, keys: Sequence[PositionKey], *, is_brief: bool) -> Sequence[Earned]:
        """Return what the engine says; see the port. Nothing of those that it doesn't answer for in time."""
        asked = self._asked(channel)
        if asked is None or not keys:
            return [{} for _ in keys]
        kind: AskKind = "brief" if is_brief else "full"
        names = [ask_key(kind, *key) for key in keys]
        found = await asked.get(names)
        return [found.get(name, {}) for name in names]
