"""The protocols that there are: every folder beside this file that offers an `ADAPTER`."""

import importlib
import pkgutil
from functools import cache

from . import __path__ as _folders
from .base import Adapter

__all__ = ["adapters"]


@cache
def adapters() -> dict[str, Adapter]:
    """Return all adapters by kind. Adding a protocol is adding its folder."""
    found: dict[str, Adapter] = {}
    for module in pkgutil.iter_modules(_folders):
        if module.ispkg:
            adapter = getattr(importlib.import_module(f"{__package__}.{module.name}"), "ADAPTER", None)
            if isinstance(adapter, Adapter):
                found[adapter.kind] = adapter
    return found
