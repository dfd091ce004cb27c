"""Several reorganisations as the one that a merged change tells of."""

from collections.abc import Iterable, Sequence
from typing import Final

from ..domain.chain import Rollback

__all__ = ["MAX_DROPPED", "merged_rollback", "tells_too_much"]

# Hashes in one frame, 17 KiB. A client that missed more of the chain's changes of mind than that starts anew.
MAX_DROPPED: Final = 256


def merged_rollback(rollbacks: Iterable[Rollback]) -> Rollback | None:
    """Return the rollback that covers all of these: the deepest `to`, and every block that was dropped.

    Each has a `to`: where the chain turned too deep for one, streams begin anew and remember nothing. A block that
    came back stays among the dropped: whoever has it in what was merged had to leave it.
    """
    known = list(dict.fromkeys(rollbacks))
    if len(known) < 2:
        return known[0] if known else None
    deepest = min((rollback.to for rollback in known if rollback.to is not None), key=lambda at: at.number)
    return Rollback(to=deepest, dropped=tuple(dict.fromkeys(one for rollback in known for one in rollback.dropped)))


def tells_too_much(rollbacks: Sequence[Rollback]) -> bool:
    """Return whether a snapshot has to take the place of a change that covers these."""
    return len({one for rollback in rollbacks for one in rollback.dropped}) > MAX_DROPPED
