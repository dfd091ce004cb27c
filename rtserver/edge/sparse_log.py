"""What goes wrong with clients, in the log: one short line each, and never more lines than anyone can read."""

import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import structlog

from .admission import Bucket

__all__ = ["SparseLog", "failure"]

# Strangers decide how often these lines are due: so many at once, then one each second; the rest is counted.
_BURST: Final = 20
_PER_S: Final = 1.0
# A field is a hint, not an archive.
_FIELD_CHARS: Final = 200
# Innermost calls that a failure names.
_CALLS: Final = 4


class SparseLog:
    """A log with a rate."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = structlog.get_logger(__name__)
        self._clock = clock
        self._bucket = Bucket(_PER_S, _BURST, clock())
        self._left_out = 0

    def info(self, event: str, **fields: Any) -> None:
        """Log what a client did wrong."""
        self._write(self._log.info, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log what went wrong here."""
        self._write(self._log.error, event, fields)

    def _write(self, write: Callable[..., Any], event: str, fields: dict[str, Any]) -> None:
        if self._bucket.take(self._clock()):
            self._left_out += 1
            return
        if self._left_out:
            fields["left_out"] = self._left_out
            self._left_out = 0
        write(
            event, **{key: value[:_FIELD_CHARS] if isinstance(value, str) else value for key, value in fields.items()}
        )


def failure(error: BaseException) -> dict[str, str]:
    """Return the fields that tell one failure from another: its kind, its text, and the innermost calls."""
    calls = [
        f"{call.filename.rpartition('/')[2]}:{call.lineno} {call.name}"
        for call in traceback.extract_tb(error.__traceback__)[-_CALLS:]
    ]
    return {"error": type(error).__name__, "text": str(error), "calls": " > ".join(calls)}
