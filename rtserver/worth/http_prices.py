"""Keeps what one HTTP source says of watched tokens fresh, in the background: never in a block's way.

Decides which tokens to ask for, and when: what is fresh is not asked again, what the source doesn't know is not asked
again for an hour. How it is asked is `http_asker`'s. Never decides whether a price is believed.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import structlog

from ..domain.errors import RetryableError
from ..domain.ids import Address, ChainId
from .http_asker import Denied, FetchLimits, HttpAsker, Refused
from .http_source import HttpSource
from .quotes import Quote

__all__ = ["PriceFetcher"]

log = structlog.get_logger(__name__)

# Between two looks at what is wanted while nothing is due: a new token waits no longer.
_IDLE_S: Final = 1.0
# A batch that was refused is halved; after so many good ones it may double again.
_GROW_AFTER: Final = 20


class PriceFetcher:
    """Asks one source for prices of now.

    Args:
        source: Its interface.
        asker: Who asks it.
        wanted: Tokens by chain, those without any price first; asked anew at each step.
        offer: Takes the answers.
        limits: The budget.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        source: HttpSource,
        asker: HttpAsker,
        *,
        wanted: Callable[[], Iterable[tuple[ChainId, Sequence[Address]]]],
        offer: Callable[[ChainId, Mapping[Address, Quote]], None],
        limits: FetchLimits,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._asker = asker
        self._wanted = wanted
        self._offer = offer
        self._limits = limits
        self._clock = clock
        self._ask_again: dict[tuple[ChainId, Address], float] = {}
        self._last_chain: ChainId | None = None
        self._batch = limits.tokens_per_request
        self._good = 0

    @property
    def is_away(self) -> bool:
        """Return whether the source has failed so often that it is paused for longer and longer."""
        return self._asker.is_away

    def describe(self) -> dict[str, Any]:
        """Return how the source is doing, for an operator; nothing in it is secret."""
        return self._asker.describe()

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                await asyncio.sleep(await self.step())
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._asker.close()

    async def step(self) -> float:
        """Send the request that is due, if one is; return the seconds until the next may be."""
        if self._asker.rest_s > 0:
            return self._asker.rest_s
        due = self._due(self._clock())
        if due is None:
            return _IDLE_S
        chain_id, tokens = due
        try:
            quotes = await self._asker.get(
                self._source.ask(chain_id, tokens), partial(self._source.read, chain_id, tokens)
            )
        except Refused as error:
            self._shrink(chain_id, tokens, error)
        except (Denied, RetryableError):
            self._good = 0  # it is paused
        else:
            self._succeed(chain_id, tokens, quotes)
        return self._asker.rest_s

    def _due(self, now: float) -> tuple[ChainId, list[Address]] | None:
        """Return the next request's chain and tokens; chains take turns."""
        wanted = {chain_id: tokens for chain_id, tokens in self._wanted() if self._source.serves(chain_id)}
        if len(self._ask_again) > 2 * sum(map(len, wanted.values())):
            kept = {(chain_id, token) for chain_id, tokens in wanted.items() for token in tokens}
            self._ask_again = {key: at for key, at in self._ask_again.items() if key in kept}
        chain_ids = sorted(wanted)
        if self._last_chain in chain_ids:
            turn = chain_ids.index(self._last_chain) + 1
            chain_ids = chain_ids[turn:] + chain_ids[:turn]
        for chain_id in chain_ids:
            tokens = [token for token in wanted[chain_id] if self._ask_again.get((chain_id, token), now) <= now]
            if tokens:
                self._last_chain = chain_id
                return chain_id, tokens[: self._batch]
        return None

    def _succeed(self, chain_id: ChainId, tokens: Sequence[Address], quotes: Mapping[Address, Quote]) -> None:
        now = self._clock()
        self._good += 1
        if self._good % _GROW_AFTER == 0:
            self._batch = min(self._batch * 2, self._limits.tokens_per_request)
        for token in tokens:
            wait_s = self._limits.refresh_s if token in quotes else self._limits.unknown_s
            self._ask_again[chain_id, token] = now + wait_s
        self._offer(chain_id, quotes)

    def _shrink(self, chain_id: ChainId, tokens: Sequence[Address], error: Refused) -> None:
        """Ask for less at a time: one address in a batch may be wrong, or the account allows for fewer."""
        self._good = 0
        if len(tokens) > 1:
            self._batch = max(len(tokens) // 2, 1)
            log.info("price source takes fewer tokens", source=self._source.name, tokens=self._batch, error=str(error))
        else:
            self._ask_again[chain_id, tokens[0]] = self._clock() + self._limits.unknown_s
