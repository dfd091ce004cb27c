"""What a client may be told, as checks that rows share. No time is compared anywhere."""

from __future__ import annotations

from .stage import Outcome

__all__ = ["a_frame_a_block", "at_most_a_frame_a_block", "new_epochs", "one_rollback", "resumed", "started_anew"]


def _stayed(outcome: Outcome) -> None:
    """The connection was never lost, and nothing was sent anew."""
    seen = outcome.seen
    assert (seen.reconnects, seen.snapshots, seen.epochs, seen.resumed) == (0, 0, 0, 0), seen


def a_frame_a_block(outcome: Outcome) -> None:
    """The client notices nothing: each block is a frame, and there are no others."""
    _stayed(outcome)
    assert (outcome.seen.frames, outcome.seen.rollbacks) == (outcome.blocks, 0), outcome


def at_most_a_frame_a_block(outcome: Outcome) -> None:
    """What was missed comes as one step: fewer frames than blocks, and no rollback among them."""
    _stayed(outcome)
    assert 1 <= outcome.seen.frames <= outcome.blocks, outcome
    assert outcome.seen.rollbacks == 0, outcome


def one_rollback(outcome: Outcome) -> None:
    """A reorganisation is one frame with `rollback`."""
    _stayed(outcome)
    assert outcome.seen.rollbacks == 1, outcome


def resumed(outcome: Outcome) -> None:
    """The client comes back and goes on where it was: no snapshot, the same epochs."""
    seen = outcome.seen
    assert seen.reconnects == 1, seen
    assert seen.resumed and (seen.snapshots, seen.epochs) == (0, 0), seen


def started_anew(outcome: Outcome) -> None:
    """The client comes back to a snapshot of every channel, under new epochs."""
    seen = outcome.seen
    assert seen.reconnects == 1, seen
    assert seen.resumed == 0 and seen.snapshots == seen.epochs > 1, seen


def new_epochs(outcome: Outcome) -> None:
    """On the open connection every channel gets a snapshot under a new epoch."""
    seen = outcome.seen
    assert (seen.reconnects, seen.rollbacks) == (0, 0), seen
    assert seen.snapshots == seen.epochs > 1, seen
