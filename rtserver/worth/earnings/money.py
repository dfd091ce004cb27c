"""Cents as dollars, and ratios of them as percentages. Integers throughout; None where something is unknown."""

from ...domain.text import cents_text

__all__ = ["percent_text", "usd_text"]


def usd_text(cents: int | None) -> str | None:
    """Return cents as dollars, None as it is."""
    return None if cents is None else cents_text(cents)


def percent_text(part: int | None, whole: int | None, places: int = 2) -> str | None:
    """Return a ratio as a percentage, halves away from zero: (31, 200) → "15.50%"; None where there is none."""
    if part is None or not whole or whole < 0:
        return None
    unit = 10**places
    scaled = (2 * abs(part) * 100 * unit + whole) // (2 * whole)
    sign = "-" if part < 0 and scaled else ""
    digits = f"{scaled // unit}.{scaled % unit:0{places}d}" if places else str(scaled)
    return f"{sign}{digits}%"
