"""What operators are told of all processes at one address: who lives, who is ready, and all metrics."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from ..edge.problems import json_response
from ..obs.metrics import Metrics
from .child import Child

__all__ = ["Overview", "merged"]

# A process that takes longer is told of as one that does not answer.
_ANSWER_S: Final = 2.0


class Overview:
    """Health and metrics of the supervisor and its processes.

    Args:
        children: The processes.
        session: How they are asked.
        metrics: The supervisor's own.
    """

    def __init__(self, children: Sequence[Child], session: aiohttp.ClientSession, metrics: Metrics) -> None:
        self._children = children
        self._session = session
        self._metrics = metrics
        self.is_draining = False

    def routes(self) -> list[web.RouteDef]:
        """Return all routes."""
        return [
            web.get("/health/live", self.live),
            web.get("/health/ready", self.ready),
            web.get("/metrics", self.metrics),
        ]

    async def live(self, request: web.Request) -> web.Response:
        """Answer that the supervisor's loop turns. What its processes do is its own business."""
        return json_response({"status": "live"})

    async def ready(self, request: web.Request) -> web.Response:
        """Answer 200 while some gateway is ready: the kernel sends clients to those that listen."""
        reports = await asyncio.gather(*map(self._report, self._children))
        ready = not self.is_draining and any(one["ready"] and one["role"] == "gateway" for one in reports)
        body = {"status": "ready" if ready else "not ready", "processes": reports}
        if self.is_draining:
            body["reason"] = "shutting down"
        return json_response(body, status=200 if ready else 503)

    async def _report(self, child: Child) -> dict[str, Any]:
        report: dict[str, Any] = {
            "name": child.name, "role": child.role, "ready": False, "state": child.state,
            "pid": child.pid, "restarts": child.restarts, "url": child.ops_url,
        }  # fmt: skip
        if child.ops_url is None:
            return {**report, "reason": "it is being started"}
        answer = await self._ask(f"{child.ops_url}/health/ready")
        if answer is None:
            return {**report, "reason": "it does not answer"}
        status, text = answer
        said = orjson.loads(text)
        chains = [
            {key: chain[key] for key in ("chainId", "name", "ready", "ageMs", "inCharge", "reason") if key in chain}
            for chain in said.get("chains", ())
        ]
        reason = {"reason": said["reason"]} if "reason" in said else {}
        return {**report, "ready": status == 200, **reason, "chains": chains}

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer the metrics of all processes, each with its name as the label `process`."""
        asked = [child for child in self._children if child.ops_url is not None]
        answers = await asyncio.gather(*(self._ask(f"{child.ops_url}/metrics") for child in asked))
        texts = {child.name: answer[1] for child, answer in zip(asked, answers, strict=True) if answer is not None}
        body = await asyncio.to_thread(merged, {"supervisor": self._metrics.render(), **texts})
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _ask(self, url: str) -> tuple[int, bytes] | None:
        try:
            async with asyncio.timeout(_ANSWER_S), self._session.get(url) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return None


class _Families:
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def merged(texts: dict[str, bytes]) -> bytes:
    """Return the metrics of several processes as one text: a family once, its samples with their process."""
    families: dict[str, Metric] = {}
    for process, text in texts.items():
        for family in text_string_to_metric_families(text.decode()):
            whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            # Its own metrics of processes say whose they are.
            whole.samples += [
                sample._replace(labels={"process": process, **sample.labels}) for sample in family.samples
            ]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(list(families.values())))
    return generate_latest(registry)
