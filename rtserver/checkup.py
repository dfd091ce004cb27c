"""`rtserver check`: what the settings come to, without secrets, and whether what they name is there. Starts nothing."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from .broker.checks import look_at_redis, shown_url
from .chain.rpc import endpoint_name
from .chain_ids import reported_id
from .config import LOCAL_REDIS, ChainSettings, Settings
from .domain.errors import RtserverError
from .domain.ids import ChainId
from .open_files import raise_open_files
from .protocols.registry import adapters
from .store.opening import default_path

__all__ = ["run_checkup", "shown_settings"]

# So long a database may take to answer.
_STORE_S: Final = 5.0


async def run_checkup(settings: Settings, out: TextIO) -> int:
    """Print the settings and what was found.

    Returns:
        The exit status: 0 where all is in order, else 2.
    """
    for line in shown_settings(settings):
        out.write(line + "\n")
    out.write("\n")
    is_fine = True
    async for ok, said in _findings(settings):
        is_fine &= ok
        out.write(f"{'ok   ' if ok else 'WRONG'}  {said}\n")
        out.flush()
    return 0 if is_fine else 2


def shown_settings(settings: Settings) -> Iterator[str]:
    """Yield each setting on a line, with its default where it is another; of secrets only what is none."""
    defaults = dict(_flat(Settings.model_construct()))
    for key, shown in _flat(settings):
        default = defaults.get(key)
        yield f"{key} = {shown}" + (f"   # default: {default}" if default not in (None, shown) else "")


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _flat(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for number, one in enumerate(value):
            yield from _flat(one, f"{key}[{number}]")
    else:
        yield key, json.dumps(value, default=_public) if value is not None else "(not set)"


def _public(value: Any) -> str:
    """Return of a secret what is none: of a URL scheme and host, as keys stand in paths; of anything else nothing."""
    if not isinstance(value, SecretStr):
        return str(value)
    parts = urlsplit(value.get_secret_value())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else "(hidden)"


async def _findings(settings: Settings) -> AsyncIterator[tuple[bool, str]]:
    """Yield what was looked at: whether it is in order, and what is said of it."""
    if settings.role != "gateway":
        for chain in settings.chains:
            async for finding in _chain(chain):
                yield finding
    # A gateway reads the past from a store that is named, and has none otherwise.
    if settings.role != "gateway" or settings.store.url is not None or settings.store.path is not None:
        yield await _store(settings)
    if settings.role != "all" or settings.gateways:
        async for finding in _redis(settings):
            yield finding
    if settings.role != "engine":
        yield True, f"open files: {raise_open_files():,}, one for each socket"
    if settings.gateways:
        cores = os.cpu_count() or 1
        # The engine has one of its own; more than that only wait for each other.
        hint = f", more than its {cores} cores carry" if settings.gateways + 1 > cores else ""
        yield True, f"gateways: {settings.gateways} and an engine on this machine{hint}"


async def _chain(chain: ChainSettings) -> AsyncIterator[tuple[bool, str]]:
    answers = await asyncio.gather(*(reported_id(url, chain) for url in chain.urls))
    found = chain.id
    for url, answer in zip(chain.urls, answers, strict=True):
        name = endpoint_name(url)
        if isinstance(answer, RtserverError):
            yield False, f"{name}: {answer}"
        elif found is not None and answer != found:
            yield False, f"{name}: an endpoint of chain {answer}, not of {found}"
        else:
            found = answer
            yield True, f"{name}: an endpoint of chain {answer}"
    if found is None or chain.protocols is not None:
        return
    known = [kind for kind, adapter in adapters().items() if adapter.deployments.get(ChainId(found))]
    if known:
        yield True, f"chain {found}: known ({', '.join(known)})"
    else:
        yield False, f"chain {found}: not known; name its contracts in [[chains.protocols]]"


async def _store(settings: Settings) -> tuple[bool, str]:
    if not settings.store.enabled:
        return True, "store: none, nothing is kept over restarts"
    # SQLAlchemy takes a third of a second.
    from .store.database import Database, sqlite_url

    url, path = settings.store.url, settings.store.path or default_path(os.environ)
    if url is None and path is None:
        return True, "store: none, as there is no folder for it; set store.path"
    database = None
    try:
        database = Database(url.get_secret_value() if url is not None else sqlite_url(path or Path()))
        database.check_writable()
        async with asyncio.timeout(_STORE_S):
            await database.ping()
    except TimeoutError:
        return False, f"store: no answer within {_STORE_S:.0f} s"
    except RtserverError as error:
        return False, f"store: {error}"
    finally:
        if database is not None:
            await database.close()
    return True, f"store: {database.name} answers"


async def _redis(settings: Settings) -> AsyncIterator[tuple[bool, str]]:
    url = settings.redis.url.get_secret_value() if settings.redis.url is not None else LOCAL_REDIS
    try:
        about = await look_at_redis(url)
    except RtserverError as error:
        yield False, str(error)
        return
    memory = f"{about.maxmemory >> 20} MiB at most, {about.policy}" if about.maxmemory else "no limit on memory"
    # Where it keeps nothing each restart of it is a new beginning for every client; right, but not cheap.
    kept = "keeps its data over restarts (appendonly)" if about.is_append_only else "no append-only file"
    yield True, f"redis: {shown_url(url)} is {about.version}; {memory}; {kept}"
    for finding in about.findings:
        yield not finding.is_fatal, f"redis: {finding.text}"
