"""What `verify` prints: a progress line, each difference, and the summary. Decides nothing."""

from typing import Any, Final, Self

import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ..client.events import Stats
from .audit import Tally
from .compare import Difference

__all__ = ["Report"]

# Without a terminal: a line now and then, so that a log shows that it lives.
_PLAIN_EVERY: Final = 25


class Report:
    """The output of one run, as a context manager around its progress line.

    Args:
        out: Where the summary goes, and the differences unless it is JSON.
        err: Where the progress goes.
        blocks: How many blocks there will be; None for no end.
        as_json: Whether the summary is JSON, and nothing else goes to `out`.
    """

    def __init__(self, out: Console, err: Console, blocks: int | None, *, as_json: bool) -> None:
        self._out, self._err, self._as_json = out, err, as_json
        self._blocks = blocks
        self._last_plain = 0
        self._progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), MofNCompleteColumn(),
            TimeElapsedColumn(), console=err, disable=not err.is_terminal, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("connecting", total=blocks)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line about the run itself."""
        self._err.print(escape(text), highlight=False, soft_wrap=True)

    def progress(self, tally: Tally, number: int, backlog: int) -> None:
        """Show how far it is."""
        text = f"block {number:,} · {tally.values:,} values · {tally.differences:,} differences"
        if tally.skipped:
            text += f" · {tally.skipped} skipped"
        if backlog > 1:
            text += f" · {backlog} behind"
        self._progress.update(self._task, completed=tally.blocks, description=text)
        if not self._err.is_terminal and tally.blocks >= self._last_plain + _PLAIN_EVERY:
            self._last_plain = tally.blocks
            of = f"/{self._blocks}" if self._blocks else ""
            self.say(f"{tally.blocks}{of} blocks: {text}")

    def difference(self, difference: Difference) -> None:
        """Print a difference."""
        console = self._err if self._as_json else self._out
        console.print(
            f"DIFFERENCE block {difference.block} {difference.block_hash[:10]}… {escape(difference.what)} "
            f"[bold]{escape(difference.field)}[/bold]: ours {escape(difference.ours)}, "
            f"the chain's {escape(difference.chain)}",
            highlight=False,
            soft_wrap=True,
        )

    def summary(self, tally: Tally, stats: Stats, seconds: float, calls: int, *, is_whole: bool) -> None:
        """Print the outcome; `is_whole` says whether it went to its end."""
        if self._as_json:
            self._out.file.write(
                orjson.dumps(_as_json(tally, stats, seconds, calls), option=orjson.OPT_INDENT_2).decode()
            )
            self._out.file.write("\n")
            return
        good = "[green]✔[/green]" if is_whole else "[yellow]?[/yellow]"
        mark = "[red]✘[/red]" if tally.differences else good
        self._out.print(
            f"{mark} {tally.blocks:,} blocks, {tally.positions:,} positions, {tally.values:,} values compared, "
            f"{tally.differences:,} differences, {tally.skipped:,} skipped, {stats.rollbacks:,} rollbacks seen",
            highlight=False,
            soft_wrap=True,
        )
        notes = [f"{stats.proofs:,} checksums proved", f"{tally.ownership_checks:,} ownership checks"]
        notes += [
            f"{count:,} {words}"
            for count, words in (
                (stats.mismatches, "checksums wrong"),
                (stats.resyncs, "resyncs"),
                (stats.reconnects, "reconnects"),
                (tally.late, "captures not checked: the chain was faster"),
                (tally.unsteady, "answers that the node took back when asked again"),
                (tally.unanswered, "values without an answer: the chain's own call reverts"),
            )
            if count
        ]
        notes.append(f"{calls:,} calls in {seconds:.0f} s")
        self._out.print("  " + ", ".join(notes), highlight=False, soft_wrap=True)


def _as_json(tally: Tally, stats: Stats, seconds: float, calls: int) -> dict[str, Any]:
    return {
        **tally.as_json(),
        "rollbacks": stats.rollbacks,
        "checksums": stats.proofs,
        "checksum_mismatches": stats.mismatches,
        "resyncs": stats.resyncs,
        "reconnects": stats.reconnects,
        "seconds": round(seconds, 1),
        "calls": calls,
    }
