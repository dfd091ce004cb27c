"""All routes of a process that clients connect to, whatever is behind the hub."""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from ..config import Settings
from ..hub.hub import Hub
from ..obs.metrics import Metrics
from .budgets import Budgets, local_budgets
from .docs import docs_routes
from .earnings import Earnings
from .health import Health, process_of
from .history import HistoryApi, PastReader
from .pages import page_routes
from .past_answers import PastAnswers
from .prices import PricesApi
from .problems import problem_middleware
from .proxies import Proxies
from .rest import Rest, ServedChain
from .ws import Sockets

__all__ = ["build_application"]


def build_application(
    hub: Hub,
    served: Mapping[int, ServedChain],
    settings: Settings,
    metrics: Metrics,
    version: str,
    prices: Callable[[], dict[str, Any]] = dict,
    earnings: Earnings | None = None,
    past: PastReader | None = None,
    budgets: Budgets | None = None,
) -> tuple[web.Application, Health, Sockets]:
    """Return the application, and the two parts of it that are told when it ends.

    Args:
        hub: Where the channels are.
        served: The chains; may grow.
        settings: All settings.
        metrics: What is counted.
        version: The program's.
        prices: Returns how the sources of prices are doing, where there are any.
        earnings: Who reckons what positions earned, if anyone does here.
        past: Where the past is read, if any is kept here.
        budgets: What addresses may do; None for accounts of this process alone.
    """
    budgets = budgets or local_budgets(hub.limits)
    rest = Rest(hub, served, version, settings.dashboard.owners, budgets, metrics, earnings)
    health = Health(hub, served, metrics, prices, process_of(settings))
    sockets = Sockets(hub, rest, settings.origins, budgets)
    app = web.Application(
        middlewares=[problem_middleware(metrics, settings.origins, Proxies(settings.trusted_proxies))]
    )
    app.add_routes([*rest.routes(), *PricesApi(rest).routes(), *sockets.routes(), *docs_routes(version)])
    app.add_routes(health.routes(with_metrics=settings.ops.port is None))
    app.add_routes(HistoryApi(rest, past, PastAnswers(hub.turns, metrics)).routes())
    if settings.dashboard.enabled:
        app.add_routes(page_routes())
    return app, health, sockets
