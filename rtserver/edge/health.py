"""Health at a glance: alive, ready or why not, and the metrics."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aiohttp import web

from ..config import Settings
from ..domain.chain import Header
from ..domain.ids import ChainId
from ..obs.metrics import Metrics
from .problems import json_response
from .rest import ServedChain

__all__ = ["Heads", "Health", "process_of"]


def process_of(settings: Settings) -> dict[str, Any]:
    """Return what a process says of itself."""
    return {"name": settings.name or settings.role, "role": settings.role, "pid": os.getpid()}


class Heads(Protocol):
    """Where each chain is; the hub, or an engine's ledgers."""

    def head(self, chain_id: ChainId) -> Header | None:
        """Return the newest block that was published."""

    def head_age_ms(self, chain_id: ChainId) -> int | None:
        """Return how long ago that was."""


class Health:
    """Answers for orchestrators and operators.

    `prices` returns how the price sources are doing; without them values are null, and that is no reason to send
    traffic elsewhere. `process` says who answers: behind one address there may be several.
    """

    def __init__(
        self,
        heads: Heads,
        chains: Mapping[int, ServedChain],
        metrics: Metrics,
        prices: Callable[[], dict[str, Any]] = dict,
        process: Mapping[str, Any] | None = None,
    ) -> None:
        self._process = dict(process or {})
        self._heads = heads
        self._chains = chains
        self._metrics = metrics
        self._prices = prices
        self.is_draining = False

    def routes(self, *, with_metrics: bool = True) -> list[web.RouteDef]:
        """Return all routes; without metrics for a port of clients, where operators have one of their own."""
        health = [web.get("/health/live", self.live), web.get("/health/ready", self.ready)]
        return [*health, web.get("/metrics", self.metrics)] if with_metrics else health

    async def live(self, request: web.Request) -> web.Response:
        """Answer that the event loop turns."""
        return json_response({"status": "live"})

    def _chain(self, chain: ServedChain) -> dict[str, Any]:
        header = self._heads.head(ChainId(chain.chain_id))
        report: dict[str, Any] = {"chainId": chain.chain_id, "name": chain.name, "ready": False, **chain.following()}
        if header is None:
            return {**report, "reason": "no head yet: no endpoint has answered"}
        age_s = (self._heads.head_age_ms(chain.chain_id) or 0) / 1000
        report |= {
            "head": {"number": header.number, "hash": header.hash, "timestamp": header.timestamp},
            "ageMs": int(age_s * 1000),
            "behindMs": max(int((time.time() - header.timestamp) * 1000), 0),
            "limitMs": int(chain.head_limit_s * 1000),
        }
        if age_s > chain.head_limit_s:
            return {**report, "reason": f"no new head for {age_s:.0f} s, the limit is {chain.head_limit_s:.0f} s"}
        return {**report, "ready": True}

    async def ready(self, request: web.Request) -> web.Response:
        """Answer 200 when every chain's head is fresh, else 503 with the reason."""
        reports = [self._chain(chain) for chain in self._chains.values()]
        ready = not self.is_draining and bool(reports) and all(report["ready"] for report in reports)
        body: dict[str, Any] = {
            "status": "ready" if ready else "not ready",
            **({"process": self._process} if self._process else {}),
            "chains": reports,
            "prices": self._prices(),
        }
        if self.is_draining:
            body["reason"] = "shutting down"
        elif not reports:
            body["reason"] = "no engine has said yet which chains it follows"
        return json_response(body, status=200 if ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer all metrics in the Prometheus text format."""
        return web.Response(
            body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )
