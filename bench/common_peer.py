"""The polling clients to compare with: viem, pinned by a lock file. Says what to poll, not how."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.common_install import install_packages, node
from bench.common_lab import BenchLab

__all__ = ["install_peer", "peer_settings"]

_HERE: Final = Path(__file__).parent / "viem"


async def install_peer(tell: Callable[[str], None]) -> list[str]:
    """Return the command of the polling clients, installing what they need first.

    Raises:
        RuntimeError: npm failed or took too long.
    """
    target = await install_packages(_HERE, tell)
    # Beside its node_modules, where Node looks for them.
    shutil.copyfile(_HERE / "poll.mjs", target / "poll.mjs")
    return [str(node()), str(target / "poll.mjs")]


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
