"""One row of the table "fault → what the client sees → time to be right again"."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .stage import Outcome, Setup, Stage, nothing

__all__ = ["Row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A fault, and what a client is told of it.

    Args:
        key: Its name, as the test's.
        fault: What breaks, for the table.
        sees: What the client sees, for the table; `check` holds it to that.
        run: Breaks it and returns what came of it. May be called again on the same stage.
        check: Asserts what the client was told.
        setup: What the stage needs.
        prepare: Awaited before the server starts.
    """

    key: str
    fault: str
    sees: str
    run: Callable[[Stage], Awaitable[Outcome]]
    check: Callable[[Outcome], None]
    setup: Setup = field(default_factory=Setup)
    prepare: Callable[[Stage], Awaitable[None]] = nothing
