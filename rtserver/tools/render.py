"""What `tail` shows of a channel: rows and lines out of its state. Pure; amounts stay exact, never a float."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..client.events import Update
from ..domain.diff import JsonObject, JsonValue
from ..domain.text import decimal_text

__all__ = ["HeadLine", "View", "amount_text", "plain_lines", "view_of"]

# Digits of an amount that a table shows; `plain_lines` shows all of them.
_SHOWN_DIGITS: Final = 10
_NOTHING: Final = "–"

POSITION_COLUMNS: Final = ("position", "pair", "fee", "range", "in range", "amounts", "value", "fees")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLine:
    """What is said above a table."""

    channel: str
    url: str
    connection: str
    age_s: float | None
    is_live: bool
    rollbacks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A state as a table; `marks` are the rows that the newest update changed."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: frozenset[int]


def amount_text(raw: JsonValue, decimals: JsonValue, *, digits: int | None = None) -> str:
    """Return a raw amount in its token's unit, exactly; cut (never rounded up) to `digits` significant ones.

    Where the token tells no decimals it stays raw and says so.
    """
    if not isinstance(raw, str) or not raw.isdigit():
        return _NOTHING
    if not isinstance(decimals, int):
        return f"{raw} raw"
    text = decimal_text(int(raw), -decimals)
    whole, _, part = text.partition(".")
    if digits is None or not part:
        return text
    zeros = len(part) - len(part.lstrip("0")) if whole == "0" else 0
    kept = part[: max(digits - (0 if whole == "0" else len(whole)), 2) + zeros]
    cut = kept.rstrip("0")
    shown = f"{whole}.{cut}" if cut else whole
    return shown if len(kept) == len(part) else f"{shown}…"


def fee_text(fee_pips: JsonValue) -> str:
    """Return a fee in hundredths of a basis point as per cent: 3000 → 0.3%."""
    return f"{decimal_text(fee_pips, -4)}%" if isinstance(fee_pips, int) else _NOTHING


def view_of(update: Update, *, digits: int | None = _SHOWN_DIGITS) -> View:
    """Return a channel's state as a table."""
    changed = set() if update.change is None else {*update.change.set, *update.change.patch}
    keys = sorted(update.state, key=_by_number)
    marks = frozenset(index for index, key in enumerate(keys) if key in changed)
    if update.channel.startswith(("owner:", "position:")):
        rows = tuple(_position_row(update.state[key], digits) for key in keys)
        return View(columns=POSITION_COLUMNS, rows=rows, marks=marks)
    if len(keys) == 1:
        entry = update.state[keys[0]]
        named = update.change.patch.get(keys[0], {}) if update.change is not None else {}
        fields = tuple((name, _field_text(value)) for name, value in entry.items())
        return View(
            columns=("field", "value"),
            rows=fields,
            marks=frozenset(index for index, (name, _) in enumerate(fields) if name in named),
        )
    names = tuple(dict.fromkeys(name for key in keys for name in update.state[key]))
    rows = tuple((key, *(_field_text(update.state[key].get(name)) for name in names)) for key in keys)
    return View(columns=("key", *names), rows=rows, marks=marks)


def _by_number(key: str) -> tuple[str, int, str]:
    head, _, tail = key.rpartition(":")
    return (head, int(tail), "") if tail.isdigit() else (head, 0, tail)


def _field_text(value: JsonValue) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, dict):
        return " ".join(_field_text(inner) for inner in value.values())
    if isinstance(value, list):
        return " ".join(map(_field_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _token(entry: JsonObject, name: str) -> tuple[str, JsonValue]:
    token = entry.get(name)
    if not isinstance(token, dict):
        return "?", None
    return str(token.get("symbol") or "?"), token.get("decimals")


def _position_row(entry: JsonObject, digits: int | None) -> tuple[str, ...]:
    (symbol0, decimals0), (symbol1, decimals1) = _token(entry, "token0"), _token(entry, "token1")

    def two(name0: str, name1: str) -> str:
        first = amount_text(entry.get(name0), decimals0, digits=digits)
        second = amount_text(entry.get(name1), decimals1, digits=digits)
        return f"{first} {symbol0} + {second} {symbol1}"

    return (
        str(entry.get("tokenId")),
        str(entry.get("pair")),
        fee_text(entry.get("feePips")),
        f"{entry.get('tickLower')} … {entry.get('tickUpper')}",
        _state_text(entry),
        two("amount0", "amount1"),
        _usd(entry.get("valueUSD")),
        f"{two('fees0', 'fees1')} {_usd(entry.get('feesUSD'))}",
    )


def _state_text(entry: JsonObject) -> str:
    state = "closed" if entry.get("liquidity") == "0" else "yes" if entry.get("isActive") is True else "no"
    return f"{state}, staked" if entry.get("isStaked") is True else state


def _usd(value: JsonValue) -> str:
    return f"${value}" if isinstance(value, str) else _NOTHING


def table(update: Update, line: HeadLine) -> RenderableType:
    """Return the whole picture of a channel for a terminal that is redrawn."""
    view = view_of(update)
    grid = Table(expand=False, pad_edge=False, box=None, header_style="dim")
    for column in view.columns:
        grid.add_column(column, justify="right" if column in ("position", "value", "fee") else "left")
    for index, row in enumerate(view.rows):
        grid.add_row(*map(Text, row), style="bold" if index in view.marks else None)
    head = Text()
    head.append(f"{line.channel}\n", style="bold")
    age = "" if line.age_s is None else f", {line.age_s:.0f} s ago"
    head.append(f"block {update.block.number:,} {update.block.hash[:10]}…{age} · seq {update.seq} · ")
    head.append(line.connection, style="green" if line.is_live else "red")
    if line.rollbacks:
        head.append(f" · {line.rollbacks} rollbacks", style="yellow")
    if update.rollback is not None:
        head.append(f" · {_rollback_text(update)}", style="yellow bold")
    empty = () if view.rows else (Text("nothing here at this block", style="dim"),)
    return Group(head, Text(), grid, *empty)


def _rollback_text(update: Update) -> str:
    rollback = update.rollback
    if rollback is None:
        return ""
    dropped = f"{len(rollback.dropped)} block{'s' if len(rollback.dropped) != 1 else ''} dropped"
    return f"rollback: {dropped}, back to {rollback.to.number}"


def plain_lines(update: Update) -> Sequence[str]:
    """Return an update for a log: one line of what, and one for each thing that changed, in full."""
    place = f"block {update.block.number} {update.block.hash[:10]}… seq {update.seq}"
    lines = [f"{place} {update.kind}: {update.channel}"]
    if update.rollback is not None:
        lines[0] += f" ({_rollback_text(update)})"
    if update.kind == "resumed":
        return lines
    view = view_of(update, digits=None)
    if update.change is not None:
        lines += [f"  - {key}" for key in update.change.remove]
    if update.channel.startswith("head:"):
        tags = [f"{tag} {entry.get('number')}" for tag, entry in update.state.items() if tag != "head"]
        return [" ".join([lines[0], *tags, f"timestamp {update.state.get('head', {}).get('timestamp')}"])]
    shown = view.rows if update.change is None else [view.rows[index] for index in sorted(view.marks)]
    if view.columns == POSITION_COLUMNS:
        for token_id, pair, fee, ticks, state, amounts, value, fees in shown:
            lines.append(f"  {token_id} {pair} {fee} [{ticks}] in range: {state}; {amounts} = {value}; fees {fees}")
    else:
        lines += [f"  {' '.join(row)}" for row in shown]
    return lines
