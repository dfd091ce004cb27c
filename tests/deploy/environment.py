"""Which variables rtserver knows, and what it makes of those that a deployment sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from rtserver.config import Settings

__all__ = ["ROOT", "image_environment", "interpolated", "known_variables"]

ROOT = Path(__file__).parents[2]


def known_variables() -> frozenset[str]:
    """Return the names of all variables that are read."""
    return frozenset({"RTSERVER_CACHE_DIR", *_names(Settings, "RTSERVER_")})


def _names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        variable = prefix + name.upper()
        yield variable
        for group in (field.annotation, *get_args(field.annotation)):
            if isinstance(group, type) and issubclass(group, BaseModel):
                yield from _names(group, variable + "__")


def image_environment() -> dict[str, str]:
    """Return what the server's image sets, of what a process of rtserver reads."""
    text = (ROOT / "Dockerfile").read_text()
    stages = "FROM " + text.partition("AS base\n")[2].partition("FROM base AS demo")[0]
    stages += text.partition("FROM base AS server\n")[2]
    found = re.findall(r"\b(RTSERVER_\w+|XDG_STATE_HOME)=(\S+)", stages)
    assert found, "the image sets host and port"
    return dict(found)


def interpolated(value: Any, given: Mapping[str, str]) -> Any:
    """Return a value of a compose file with its variables: `${NAME:-default}`."""
    if isinstance(value, str):
        return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1]) or found[2], value)
    if isinstance(value, list):
        return [interpolated(one, given) for one in value]
    if isinstance(value, dict):
        return {key: interpolated(one, given) for key, one in value.items()}
    return value
