"""Each row of the table in the README: what the client is told, and that it is right again."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtserver.demo.lab import Lab
from rtserver.demo.toolchain import Toolchain

from .row import Row
from .stage import open_stage
from .table import ROWS

# How old the client hears that the head is: long enough that everything gave up waiting once.
OUTAGE_MS = 3000


README = Path(__file__).parents[2] / "README.md"


def test_the_readme_has_these_rows() -> None:
    """Its figures are `python -m bench.faults`; its faults, and what clients see of them, are proved here."""
    lines = README.read_text().partition("### What happens when things fail")[2].partition("\n##")[0].splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert [(each[0], each[1]) for each in cells[1:]] == [(row.fault, row.sees) for row in ROWS]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.key) for row in ROWS])
async def test_row(row: Row, lab: Lab, toolchain: Toolchain, tmp_path: Path) -> None:
    async with open_stage(lab, toolchain, tmp_path, row.setup, outage_ms=OUTAGE_MS, prepare=row.prepare) as stage:
        outcome = await row.run(stage)
        row.check(outcome)
