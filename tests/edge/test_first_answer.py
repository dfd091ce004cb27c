"""The first answer about a position waits a moment for prices of then; no other one does, and none for long."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from rtserver.domain.ids import ChainId, TokenId
from rtserver.edge.earnings import BookEarnings
from rtserver.protocols.base import Book
from rtserver.protocols.channels import PositionChannel

CHAIN, KIND = ChainId(1), "uniswap-v3"


class Unread:
    """A book that knows nothing yet, as far as details go."""

    def __init__(self) -> None:
        self.wanted: list[TokenId] = []

    def earnings(self, token_id: TokenId) -> None:
        return None

    def life(self, token_id: TokenId) -> None:
        return None

    def want_prices(self, token_id: TokenId) -> bool:
        self.wanted.append(token_id)
        return True


class Asking:
    """Earnings whose prices of then come when the test says so."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.known = asyncio.Event()
        self.book = Unread()
        self.earnings = BookEarnings({CHAIN: {KIND: cast(Book, self.book)}}, lambda chain_id: {}, self._price)

    async def _price(self, chain_id: ChainId, kind: str, token_id: TokenId) -> None:
        self.asked.append((chain_id, kind, token_id))
        await self.known.wait()

    async def details(self, token_id: int, *, is_brief: bool = False) -> None:
        channel = PositionChannel(CHAIN, KIND, TokenId(token_id))
        (found,) = await self.earnings.earned(channel, [(KIND, TokenId(token_id))], is_brief=is_brief)
        assert set(found.values()) == {None}


async def test_the_first_one_waits_until_they_are_known_and_only_that() -> None:
    asking = Asking()
    first = asyncio.create_task(asking.details(1))
    await asyncio.sleep(0)
    # A list, and whoever asks again meanwhile, wait for nothing.
    await asking.details(1)
    await asking.details(2, is_brief=True)
    assert not first.done()
    asking.known.set()
    await first
    assert asking.asked == [(CHAIN, KIND, TokenId(1))]


async def test_what_is_not_known_in_time_is_answered_without() -> None:
    asking = Asking()
    await asking.details(1)  # ends by itself
    assert asking.asked == [(CHAIN, KIND, TokenId(1))]
