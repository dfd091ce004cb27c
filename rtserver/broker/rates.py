"""Accounts that gateways share: how often each party may do something, counted in Redis by its clock.

The same sum as in a single process (GCRA): of each party one time, at which it will have everything back; the key
expires then. One call of a script a try, so two gateways can't both give away the last one. Which party an address is,
and what happens while Redis is away, is decided by whoever asks.
"""

import asyncio
from typing import Final

from .redis_link import RedisBroker
from .scripts import Script

__all__ = ["RedisRates"]

# Calls at once, each on a connection of its own: a crowd that comes together waits for these, not for new connections.
_AT_ONCE: Final = 8

# KEYS: the account. ARGV: microseconds that one costs, and that all at once may cost. Returns microseconds to wait.
_TAKE: Final = Script("""
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local cost, reach = tonumber(ARGV[1]), tonumber(ARGV[2])
local whole = tonumber(redis.call('GET', KEYS[1]) or now)
-- Another Redis may have another clock: nobody is owed more than all there is.
whole = math.min(math.max(whole, now), now + reach)
local after = whole + cost
local over = after - now - reach
if over > 0 then return string.format('%.0f', over) end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return '0'
""")


class RedisRates:
    """All accounts of one installation. They have no hash tag: on a cluster they are spread over all nodes.

    Args:
        broker: Where they are.
    """

    def __init__(self, broker: RedisBroker) -> None:
        self._prefix = broker.prefix
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._nodes = broker.nodes

    async def take(self, name: str, key: str, per_minute: float, burst: int) -> float:
        """Take one of an account.

        Args:
            name: What is limited.
            key: Whose account.
            per_minute: How many a minute come back.
            burst: How many there are at once.

        Returns:
            0 where there was one, else the seconds until there is.

        Raises:
            BrokerAway: Redis does not answer.
        """
        cost_us = max(round(60e6 / per_minute), 1)
        async with self._turns:
            account = f"{self._prefix}:limit:{name}:{key}"
            answer = await self._nodes.run(_TAKE, [account], cost_us, cost_us * burst)
        return int(answer) / 1e6
