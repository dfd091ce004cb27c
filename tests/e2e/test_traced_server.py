"""The bench's traced server wraps the server's methods by name: a name that has gone is seen here."""

from __future__ import annotations

import json
import os
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from pathlib import Path

from bench.traced_server import TRACE_VARIABLE


async def test_all_stations_are_still_there(tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    process = await create_subprocess_exec(
        sys.executable, "-m", "bench.traced_server", "--help", env=os.environ | {TRACE_VARIABLE: str(trace)},
        stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    assert b"serve" in out
    assert json.loads(trace.read_text()) == {}
