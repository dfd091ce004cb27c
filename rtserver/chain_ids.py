"""Which chains the settings mean: asked of every endpoint, before anything starts."""

import asyncio
from typing import Final

from .chain.reader import ChainReader
from .chain.rpc import endpoint_name, make_endpoint
from .config import ChainSettings, Settings
from .domain.errors import ConfigError, RtserverError
from .domain.ids import ChainId
from .obs.metrics import Metrics

__all__ = ["fetch_chain_ids", "reported_id"]

# Before anything starts: an endpoint that takes longer is asked for its chain by nobody.
_ASK_ID_S: Final = 5.0


async def fetch_chain_ids(settings: Settings) -> list[ChainId]:
    """Return every chain's id; each endpoint that answers has to report the same.

    A chain whose id the settings name may have no endpoint that answers yet.

    Raises:
        ConfigError: An endpoint reports another chain, none answers for a chain without an id, or two are one.
    """
    ids = [ChainId(chain_id) for chain_id in await asyncio.gather(*map(_chain_id, settings.chains))]
    if len(set(ids)) != len(ids):
        raise ConfigError(f"each chain may be named once; got {', '.join(map(str, ids))}")
    return ids


async def _chain_id(chain: ChainSettings) -> int:
    answers = await asyncio.gather(*(reported_id(url, chain) for url in chain.urls))
    known = chain.id
    reasons = []
    for url, answer in zip(chain.urls, answers, strict=True):
        if isinstance(answer, RtserverError):
            reasons.append(str(answer))
        elif known is None:
            known = answer
        elif answer != known:
            said = "the settings say" if chain.id is not None else "another endpoint says"
            raise ConfigError(f"{endpoint_name(url)} is an endpoint of chain {answer}, {said} {known}")
    if known is None:
        names = ", ".join(map(endpoint_name, chain.urls))
        raise ConfigError(f"{names}: asked for its chain id, got no answer ({reasons[0]})")
    return known


async def reported_id(url: str, chain: ChainSettings) -> int | RtserverError:
    """Return what an endpoint says of which chain it is, or why it does not."""
    endpoint = make_endpoint(url, timeout_s=min(chain.rpc_timeout_s, _ASK_ID_S))
    # With metrics of its own: this reader is gone before anybody looks, and what it is a reader of is not known yet.
    reader = ChainReader(chain.name or "?", [endpoint], Metrics())
    try:
        return await reader.chain_id()
    except RtserverError as error:
        return error
    finally:
        await reader.close()
