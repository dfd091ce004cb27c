"""The server's settings for a local deployment, as the file that `rtserver serve --config` reads. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from eth_utils.address import to_checksum_address

from .deployment import Deployment

__all__ = ["settings_toml"]


def settings_toml(
    deployment: Deployment,
    *,
    ws_url: str,
    http_url: str,
    name: str = "local",
    owners: Sequence[str] = (),
    block_time_s: float = 1.0,
    store: Path | None = None,
) -> str:
    """Return the TOML text: one chain, its two endpoints, its dollars and hop, its Uniswap v3; owners for the page.

    `store` is a file for what is to outlive the server; None for nothing.
    """
    kept = "enabled = false" if store is None else f"path = {json.dumps(str(store))}"
    dollars = ", ".join(f'"{to_checksum_address(address)}"' for address in deployment.stablecoins)
    shown = ", ".join(f'"{to_checksum_address(owner)}"' for owner in owners)
    return f"""\
[[chains]]
id = {deployment.chain_id}
name = "{name}"
rpc = ["{ws_url}", "{http_url}"]
stablecoins = [{dollars}]
hops = ["{to_checksum_address(deployment.weth)}"]
block_time_s = {block_time_s}

[[chains.protocols]]
kind = "uniswap-v3"
factory = "{to_checksum_address(deployment.factory)}"
position_manager = "{to_checksum_address(deployment.position_manager)}"
staker = "{to_checksum_address(deployment.staker)}"

[store]
{kept}

[history]
every_s = 10

[dashboard]
owners = [{shown}]
"""
