"""Price feeds on the lab's chain: contracts of the real shape, whose answers tests set."""

from __future__ import annotations

from rtserver.demo.actions import Tx
from rtserver.demo.lab import Lab
from rtserver.domain.ids import Address
from rtserver.worth.chainlink import Feed

__all__ = ["LabFeed", "deploy_feed"]


class LabFeed:
    """One token's feed: a proxy, and the aggregator that is behind it now."""

    def __init__(self, lab: Lab, token: str, proxy: str, aggregator: str) -> None:
        self._lab = lab
        self.token = Address(token.lower())
        self.proxy = Address(proxy.lower())
        self.aggregator = aggregator

    def feed(self, max_age_s: int = 3600) -> Feed:
        """Return it as settings name it."""
        return Feed(token=self.token, address=self.proxy, max_age_s=max_age_s)

    async def transmit(self, answer: int, updated_at: int = 0) -> None:
        """Send an answer, of the next block's time where none is given."""
        code = self._lab.contracts.aggregator.call("transmit", answer, updated_at)
        await self._lab.send(Tx("transmit", self._lab.deployment.house, self.aggregator, code))

    async def break_down(self, is_broken: bool) -> None:
        """Make it revert, or end that; tells nobody."""
        code = self._lab.contracts.aggregator.call("breakDown", is_broken)
        await self._lab.send(Tx("break", self._lab.deployment.house, self.aggregator, code))

    async def upgrade(self, decimals: int) -> None:
        """Put another aggregator behind the proxy and mine; it has no answer yet."""
        self.aggregator = await _create(self._lab, self._lab.contracts.aggregator.creation(decimals))
        code = self._lab.contracts.feed_proxy.call("upgrade", self.aggregator)
        await self._lab.send(Tx("upgrade", self._lab.deployment.house, self.proxy, code))
        await self._lab.mine()


async def deploy_feed(lab: Lab, token: str, decimals: int = 8) -> LabFeed:
    """Deploy a feed without an answer, and mine."""
    aggregator = await _create(lab, lab.contracts.aggregator.creation(decimals))
    proxy = await _create(lab, lab.contracts.feed_proxy.creation(aggregator))
    return LabFeed(lab, token, proxy, aggregator)


async def _create(lab: Lab, code: bytes) -> str:
    tx_hash = await lab.send(Tx("deploy feed", lab.deployment.house, None, code))
    receipts = (await lab.mine()).receipts
    return str(next(r["contractAddress"] for r in receipts if r["transactionHash"] == tx_hash)).lower()
