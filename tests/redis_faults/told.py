"""What clients may be told, as checks that rows share. No time is compared anywhere."""

from __future__ import annotations

from faults_table.watcher import Seen

from .stage import Outcome

__all__ = ["everyone", "frames_or_new_epochs", "is_new_epochs", "new_epochs", "only_frames"]


def _stayed(seen: Seen) -> None:
    """The connection was never lost, and nothing was taken back."""
    assert (seen.reconnects, seen.rollbacks, seen.mismatches) == (0, 0, 0), seen


def is_new_epochs(seen: Seen) -> None:
    """On the open connection every channel gets a snapshot under a new epoch, and none that was not needed."""
    _stayed(seen)
    assert seen.snapshots == seen.epochs > 1, seen


def is_only_frames(seen: Seen, blocks: int) -> None:
    """What was missed comes as frames, fewer than blocks perhaps; nothing is sent anew."""
    _stayed(seen)
    assert (seen.snapshots, seen.epochs, seen.resumed) == (0, 0, 0), seen
    assert 1 <= seen.frames <= blocks, (seen, blocks)


def only_frames(outcome: Outcome) -> None:
    """Frames for all clients."""
    for seen in outcome.seen:
        is_only_frames(seen, outcome.blocks)


def new_epochs(outcome: Outcome) -> None:
    """New epochs for all clients."""
    for seen in outcome.seen:
        is_new_epochs(seen)


def everyone(outcome: Outcome) -> bool:
    """Return whether all clients were told of new epochs; some and some not can't be."""
    told = {seen.epochs > 0 for seen in outcome.seen}
    assert len(told) == 1, outcome.seen
    return told.pop()


def frames_or_new_epochs(outcome: Outcome) -> None:
    """The same for all: who was in charge goes on, or came back too late (on a busy machine), and the standby leads."""
    (new_epochs if everyone(outcome) else only_frames)(outcome)
