"""One row of the table "what breaks between engine and gateways → what clients see → time to be right again"."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic

from .stage import Outcome, S

__all__ = ["Row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Generic[S]):
    """A fault, and what clients are told of it.

    Args:
        key: Its name, as the test's.
        fault: What breaks, for the table.
        sees: What a client sees, for the table; `check` holds it to that.
        run: Breaks it and returns what came of it; called on a stage where everything is right, and leaves it so.
        check: Asserts what the clients were told.
    """

    key: str
    fault: str
    sees: str
    run: Callable[[S], Awaitable[Outcome]]
    check: Callable[[Outcome], None]
