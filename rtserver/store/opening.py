"""Finding and opening the store at the start: what is fatal then, what is only said, and where it is by default."""

from collections.abc import Mapping
from pathlib import Path

import structlog

from ..domain.errors import ConfigError
from .database import Database, Foreign, StoreError, sqlite_url
from .store import Store

__all__ = ["default_path", "open_store"]

log = structlog.get_logger(__name__)


def default_path(environment: Mapping[str, str]) -> Path | None:
    """Return where the store is unless a setting says otherwise: the user's state folder, if there is one.

    Source: XDG Base Directory Specification, XDG_STATE_HOME. A relative path there is to be ignored.
    """
    folder = Path(environment.get("XDG_STATE_HOME", ""))
    if not folder.is_absolute():
        home = environment.get("HOME", "")
        if not Path(home).is_absolute():
            return None
        folder = Path(home, ".local", "state")
    return folder / "rtserver" / "store.sqlite3"


async def open_store(
    url: str | None, path: Path | None, environment: Mapping[str, str], label: str = ""
) -> Store | None:
    """Return the store, or None where nothing will be kept; says why.

    Args:
        url: A database, as SQLAlchemy names it.
        path: An SQLite file, in place of a URL.
        environment: For the default.
        label: Which part of each chain is kept, where engines share them.

    Raises:
        ConfigError: What was asked for by name can't be written. Whatever is wrong with what it holds is no reason
            not to start: a store makes a start faster, and nothing else.
    """
    is_asked_for = url is not None or path is not None
    path = path or default_path(environment)
    if url is None:
        if path is None:
            log.info("nothing is kept over restarts: there is no folder for it", set="store.path")
            return None
        url = sqlite_url(path)
    database = Database(url)
    try:
        database.check_writable()
        await database.open()
    except ConfigError as error:
        if is_asked_for:
            raise
        log.info("nothing is kept over restarts", reason=str(error))
        await database.close()
        return None
    except Foreign as error:
        log.warning("nothing is kept over restarts", reason=str(error))
        await database.close()
        return None
    except StoreError as error:
        # Someone may hold it for a moment: checkpoints go on trying.
        log.warning("store can't be used yet", reason=str(error))
    return Store(database, label=label)
