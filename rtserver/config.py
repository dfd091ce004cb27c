"""Settings: a TOML file, environment variables over it, the command line over both. Parsed once.

A wrong setting is reported with its key, its value and what is allowed, before anything starts. Endpoint
URLs carry keys: they are shown without them.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from .domain.errors import ClientError, ConfigError
from .domain.ids import Address
from .protocols.addresses import parse_address
from .protocols.registry import adapters

__all__ = ["ChainSettings", "ProtocolSettings", "Settings", "load_settings"]

_STRICT = ConfigDict(extra="forbid", frozen=True)


def _address(value: str) -> str:
    try:
        return parse_address(value)
    except ClientError as error:
        raise ValueError(error.message) from error


def _rpc_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
        raise ValueError("an endpoint is ws://, wss://, http:// or https:// with a host")
    return value


def _kind(value: str) -> str:
    if value not in adapters():
        raise ValueError(f"allowed are {', '.join(sorted(adapters()))}")
    return value


def _split(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.startswith("[") else value.split(",")


AddressText = Annotated[str, AfterValidator(_address)]
RpcUrl = Annotated[SecretStr, AfterValidator(_rpc_url)]


class ProtocolSettings(BaseModel):
    """One protocol deployment on a chain."""

    model_config = _STRICT

    kind: Annotated[str, AfterValidator(_kind)]
    factory: AddressText
    position_manager: AddressText
    init_code_hash: Annotated[str, Field(pattern="^0x[0-9a-fA-F]{64}$")] | None = None


class ChainSettings(BaseModel):
    """One chain: its endpoints, and what lives on it. Known chains need endpoints only."""

    model_config = _STRICT

    id: Annotated[int, Field(ge=1)] | None = None
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,31}$")] | None = None
    rpc: Annotated[tuple[RpcUrl, ...], Field(min_length=1), BeforeValidator(_split)]
    protocols: tuple[ProtocolSettings, ...] | None = None
    stablecoins: tuple[AddressText, ...] | None = None
    block_time_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    # A head older than this makes the process not ready. Default: 20 s and 6 block times, the larger.
    head_limit_s: Annotated[float, Field(gt=0)] | None = None
    rpc_timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0

    @property
    def urls(self) -> tuple[str, ...]:
        """Return the endpoint URLs, with their keys."""
        return tuple(url.get_secret_value() for url in self.rpc)


class LimitSettings(BaseModel):
    """What one client may do."""

    model_config = _STRICT

    channels: Annotated[int, Field(ge=1, le=10_000)] = 256
    message_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 16 * 1024
    messages_per_s: Annotated[float, Field(gt=0)] = 10.0
    burst: Annotated[int, Field(ge=1)] = 20
    connections_per_ip: Annotated[int, Field(ge=1)] = 100
    connections_per_minute: Annotated[int, Field(ge=1)] = 30
    heartbeat_s: Annotated[float, Field(gt=0, le=300)] = 15.0
    pong_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    load_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    linger_s: Annotated[float, Field(ge=0)] = 60.0


class DashboardSettings(BaseModel):
    """The page at /."""

    model_config = _STRICT

    enabled: bool = True
    # Owners that the page offers to look at.
    owners: tuple[AddressText, ...] = ()


class LogSettings(BaseModel):
    """What goes to standard error."""

    model_config = _STRICT

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(BaseSettings):
    """All settings of a server."""

    model_config = SettingsConfigDict(
        env_prefix="RTSERVER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    chains: Annotated[tuple[ChainSettings, ...], Field(min_length=1)]
    # Origins of pages that may read and subscribe: this is public chain data, so all by default.
    origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = ("*",)
    limits: LimitSettings = LimitSettings()
    dashboard: DashboardSettings = DashboardSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load_settings` has put together, and read nothing behind its back."""
        return (init_settings,)


def load_settings(path: Path | None, overrides: Mapping[str, Any], rpc: Sequence[str] = ()) -> Settings:
    """Return the settings from a file, the environment and the command line, the later over the earlier.

    Args:
        path: A TOML file, or None.
        overrides: Values from the command line, by key; None stands for not given.
        rpc: Endpoints given on the command line: one chain, known by the id that they report.

    Raises:
        ConfigError: Names every wrong key, its value and what is allowed.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not TOML: {error}") from error
    try:
        values = _over(values, EnvSettingsSource(Settings)())
    except SettingsError as error:
        found = re.search('field "([^"]+)"', str(error))
        key = "RTSERVER_" + (found[1].upper() if found else "…")
        raise ConfigError(f"{key}: not JSON, as lists and groups of settings have to be") from error
    if rpc:
        values["chains"] = [{"rpc": list(rpc)}]
    values |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others laid over them, group by group; lists are replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: ValidationError, path: Path | None) -> str:
    where = "settings" if path is None else str(path)
    found = error.errors(include_url=False)
    # A wrong entry leaves its list too short: that follows from the error already told.
    problems = [
        problem
        for problem in found
        if not (problem["type"] == "too_short" and any(_is_inside(other["loc"], problem["loc"]) for other in found))
    ]
    lines = [f"{where}: {len(problems)} wrong setting{'s' if len(problems) > 1 else ''}"]
    for problem in problems:
        location = [str(part) for part in problem["loc"]]
        key = ".".join(location) or "settings"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            message = "is required"
            if key == "chains":
                message = "is required: give --rpc URL, or a file with [[chains]] through --config"
        elif problem["type"] == "extra_forbidden":
            message = "is no setting" + _suggest(location)
        value = problem["input"]
        shown = ""
        if problem["type"] != "missing" and isinstance(value, (str, int, float, bool)):
            # Also under a mistyped key: a URL may carry a provider's key.
            is_secret = "rpc" in location or "://" in str(value)
            shown = f" = {'(hidden)' if is_secret else repr(value)[:120]}"
        lines.append(f"  {key}{shown}: {message}")
    return "\n".join(lines)


def _is_inside(inner: Sequence[int | str], outer: Sequence[int | str]) -> bool:
    return len(inner) > len(outer) and tuple(inner[: len(outer)]) == tuple(outer)


def _suggest(location: Sequence[str]) -> str:
    models: dict[str, type[BaseModel]] = {
        "chains": ChainSettings, "protocols": ProtocolSettings, "limits": LimitSettings,
        "dashboard": DashboardSettings, "log": LogSettings,
    }  # fmt: skip
    parents = [part for part in location[:-1] if part in models]
    fields = list((models[parents[-1]] if parents else Settings).model_fields)
    close = difflib.get_close_matches(location[-1], fields, n=1)
    return f"; did you mean {close[0]}?" if close else f"; allowed are {', '.join(fields)}"


def address_of(text: str) -> Address:
    """Return a validated address setting as an address."""
    return Address(text)
