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
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from .domain.errors import ConfigError
from .domain.ids import Address
from .domain.shards import Shards, parse_shards
from .setting_types import AddressText, HttpUrl, Kind, NetworkText, Origin, RpcUrl, split_list

__all__ = [
    "LOCAL_REDIS",
    "ChainSettings",
    "CoinGeckoSettings",
    "DefiLlamaSettings",
    "FeedSettings",
    "HistorySettings",
    "HttpPriceSettings",
    "OpsSettings",
    "PriceSettings",
    "ProtocolSettings",
    "RedisSettings",
    "Role",
    "Settings",
    "load_settings",
    "plain",
]

# What is missing for a reason of its own.
_MISSING = {
    "chains_missing": "chains", "redis_missing": "redis.url", "gateways_engine": "gateways", "shard_alone": "shard",
}  # fmt: skip
_STRICT = ConfigDict(extra="forbid", frozen=True)
# Where gateways of one machine meet unless told otherwise.
LOCAL_REDIS: Final = "redis://127.0.0.1:6379/0"


class ProtocolSettings(BaseModel):
    """One protocol deployment on a chain."""

    model_config = _STRICT

    kind: Kind
    factory: AddressText
    position_manager: AddressText
    init_code_hash: Annotated[str, Field(pattern="^0x[0-9a-fA-F]{64}$")] | None = None
    # The contract in which positions are staked (v3-staker); those it holds belong to who deposited them.
    staker: AddressText | None = None
    # None of these contracts is older: their past is read from here on. Default: known, or found out if it matters.
    first_block: Annotated[int, Field(ge=0)] | None = None


class FeedSettings(BaseModel):
    """A Chainlink feed that tells a token's price in dollars."""

    model_config = _STRICT

    token: AddressText
    feed: AddressText
    # An answer older than this at the block is not used: the feed's heartbeat, and some grace.
    max_age_s: Annotated[int, Field(ge=1)] = 90_000


class ChainSettings(BaseModel):
    """One chain: its endpoints, and what lives on it. Known chains need endpoints only."""

    model_config = _STRICT

    id: Annotated[int, Field(ge=1)] | None = None
    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,31}$")] | None = None
    rpc: Annotated[tuple[RpcUrl, ...], Field(min_length=1), BeforeValidator(split_list)]
    protocols: tuple[ProtocolSettings, ...] | None = None
    stablecoins: tuple[AddressText, ...] | None = None
    # Tokens that others may be priced through where they have no pool against a dollar, and Chainlink feeds.
    hops: tuple[AddressText, ...] | None = None
    feeds: tuple[FeedSettings, ...] | None = None
    block_time_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    # A head older than this makes the process not ready. Default: 20 s and 6 block times, the larger.
    head_limit_s: Annotated[float, Field(gt=0)] | None = None
    rpc_timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    # Messages that one endpoint may have outstanding, and calls a second that it is asked for: a plan's limits.
    rpc_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 32
    rpc_calls_per_s: Annotated[float, Field(gt=0)] | None = None
    # Rewards grow each second: so often they are pushed, in chain seconds; 0 is with each block. What an event
    # changed is pushed with its block in any case.
    rewards_every_s: Annotated[float, Field(ge=0, le=3600)] = 10.0
    # Whether nodes are asked for the state of a week ago, so that rates cover their windows at once.
    looks_back: bool = True

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
    loads_per_minute: Annotated[int, Field(ge=1)] = 600
    heartbeat_s: Annotated[float, Field(gt=0, le=300)] = 15.0
    pong_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    load_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    linger_s: Annotated[float, Field(ge=0)] = 60.0


PriceSource = Literal["chainlink", "pools", "coingecko", "defillama"]
PriceOrder = Annotated[tuple[PriceSource, ...], Field(min_length=1)]


class HttpPriceSettings(BaseModel):
    """How much may be asked of a price source over HTTP, and how old its answers may get."""

    model_config = _STRICT

    base_url: HttpUrl
    requests_per_minute: Annotated[float, Field(gt=0, le=600)]
    tokens_per_request: Annotated[int, Field(ge=1, le=200)]
    refresh_s: Annotated[float, Field(ge=1)] = 60.0
    max_age_s: Annotated[int, Field(ge=1)] = 900
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    # The source's names of chains that rtserver doesn't know, by chain id.
    platforms: dict[int, str] = Field(default_factory=dict)


class CoinGeckoSettings(HttpPriceSettings):
    """CoinGecko. Without a key it answers for one token a request, a few times a minute."""

    base_url: HttpUrl = SecretStr("https://api.coingecko.com/api/v3")
    key: SecretStr | None = None
    # A paid key: sent as such, and to https://pro-api.coingecko.com/api/v3 as base_url.
    is_pro: bool = False
    requests_per_minute: Annotated[float, Field(gt=0, le=600)] = 5.0
    tokens_per_request: Annotated[int, Field(ge=1, le=200)] = 30


class DefiLlamaSettings(HttpPriceSettings):
    """DefiLlama's coins interface. A paid key is part of the base URL."""

    base_url: HttpUrl = SecretStr("https://coins.llama.fi")
    requests_per_minute: Annotated[float, Field(gt=0, le=600)] = 30.0
    tokens_per_request: Annotated[int, Field(ge=1, le=200)] = 60


class PriceSettings(BaseModel):
    """Whose prices are believed. HTTP sources are asked only where they have a section: they learn what is watched."""

    model_config = _STRICT

    order: PriceOrder = ("chainlink", "pools", "coingecko", "defillama")
    # For some tokens another order, by address.
    order_by_token: dict[AddressText, PriceOrder] = Field(default_factory=dict)
    # Pools with less than this on their quote side have no say.
    min_depth_usd: Annotated[int, Field(ge=0)] = 10_000
    # Sources further apart than this, in per cent, are said to be in dispute.
    dispute_percent: Annotated[float, Field(gt=0, le=100)] = 2.0
    # A pool further from the prices of its tokens than this, in per cent, is flagged: its amounts may not last.
    deviation_percent: Annotated[float, Field(gt=0, le=100)] = 2.0
    coingecko: CoinGeckoSettings | None = None
    defillama: DefiLlamaSettings | None = None


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


class StoreSettings(BaseModel):
    """What outlives the process, and where. Without it a start is as cold as the first one."""

    model_config = _STRICT

    enabled: bool = True
    # An SQLite file. Default: rtserver/store.sqlite3 in the user's state folder, if that can be written.
    path: Path | None = None
    # Any other database; it may hold a password.
    url: SecretStr | None = None
    # The pace of checkpoints: what changed since the last one is asked of the chain after a crash.
    every_s: Annotated[float, Field(ge=0.05, le=3600)] = 5.0

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.path is not None and self.url is not None:
            raise ValueError("give a path or a url, not both")
        return self


class HistorySettings(BaseModel):
    """The past of tracked positions, in the store's database."""

    model_config = _STRICT

    enabled: bool = True
    # The pace of records, in seconds of the chain's time; only of positions that changed.
    every_s: Annotated[int, Field(ge=10, le=3600)] = 60
    # How long they are kept as they are; then one an hour, then one a day. 0 is for ever.
    keep_minutes_h: Annotated[int, Field(ge=1)] = 48
    keep_hours_d: Annotated[int, Field(ge=1)] = 90
    keep_days_d: Annotated[int, Field(ge=0)] = 0
    # Records that may wait for a database that is slow or away, about a kilobyte each.
    queue_rows: Annotated[int, Field(ge=1000, le=10_000_000)] = 50_000

    @model_validator(mode="after")
    def _coarser_is_longer(self) -> Self:
        if self.keep_hours_d * 24 < self.keep_minutes_h:
            raise ValueError("keep_hours_d: hours are kept for at least as long as minutes (keep_minutes_h)")
        if self.keep_days_d and self.keep_days_d < self.keep_hours_d:
            raise ValueError("keep_days_d: days are kept for at least as long as hours (keep_hours_d); 0 is for ever")
        return self


def _redis_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    schemes = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")
    if parts.scheme not in schemes or not (parts.hostname or parts.path):
        raise ValueError(
            "Redis is redis://host:port, rediss://host:port or unix:///path; a Cluster is redis+cluster://host:port or "
            "rediss+cluster://host:port, and one or more of its nodes may be named, with commas between"
        )
    return value


class RedisSettings(BaseModel):
    """What joins engines and gateways; one process that does everything needs none."""

    model_config = _STRICT

    # It may hold a password.
    url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    # What all keys begin with: installations that share a Redis have one each.
    prefix: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,31}$")] = "rtserver"


class OpsSettings(BaseModel):
    """A port for operators alone: health and metrics, and nothing that clients need."""

    model_config = _STRICT

    # Where it listens; the default is the clients' address.
    host: str | None = None
    # With it, metrics are there only; health is on both ports, for whoever balances clients.
    port: Annotated[int, Field(ge=0, le=65535)] | None = None


Role = Literal["all", "engine", "gateway"]
# What a process is called where there are several; a pod's name is one.
ProcessName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
# Each is a process with a Python of its own, some 90 MB.
_MAX_GATEWAYS: Final = 256


def _shard(value: str) -> str:
    parse_shards(value)
    return value


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
    # Everything in one process; or computing and delivering apart, over Redis.
    role: Role = "all"
    # Which of a chain's channels an engine is in charge of, where several share them: 0/4, or any/4.
    shard: Annotated[str, AfterValidator(_shard)] = "0/1"
    # Gateways as processes of their own on one port of this machine, kept running; 0 for this process alone.
    gateways: Annotated[int, Field(ge=0, le=_MAX_GATEWAYS)] = 0
    # What /health/ready calls this process; the default is its role.
    name: ProcessName | None = None
    # Lets other processes of this user listen on the same port: the kernel spreads clients over them.
    reuse_port: bool = False
    # A gateway has none of its own: it serves those that engines follow.
    chains: tuple[ChainSettings, ...] = ()
    # Origins of pages that may read and subscribe: this is public chain data, so all by default.
    origins: Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(split_list)] = ("*",)
    # Proxies whose X-Forwarded-For is believed: anyone else could write any address there, and so have no limits.
    trusted_proxies: Annotated[tuple[NetworkText, ...], NoDecode, BeforeValidator(split_list)] = ()
    limits: LimitSettings = LimitSettings()
    prices: PriceSettings = PriceSettings()
    dashboard: DashboardSettings = DashboardSettings()
    log: LogSettings = LogSettings()
    store: StoreSettings = StoreSettings()
    history: HistorySettings = HistorySettings()
    redis: RedisSettings = RedisSettings()
    ops: OpsSettings = OpsSettings()

    @property
    def shards(self) -> Shards:
        """Return what `shard` means."""
        return parse_shards(self.shard)

    @model_validator(mode="after")
    def _has_what_its_role_needs(self) -> Self:
        if self.role != "gateway" and not self.chains:
            raise PydanticCustomError(
                "chains_missing", "is required: give --rpc URL, or a file with [[chains]] through --config"
            )
        if self.gateways and self.role == "engine":
            raise PydanticCustomError(
                "gateways_engine", "an engine has none: leave --role out, or start them with --role gateway"
            )
        # Gateways on this machine meet in its Redis, unless another one is named.
        if self.role != "all" and not self.gateways and self.redis.url is None:
            raise PydanticCustomError(
                "redis_missing", "is required for a role: engines and gateways meet in Redis 7 or newer, at redis://…"
            )
        if self.role == "all" and not self.gateways and self.shards.count > 1:
            raise PydanticCustomError(
                "shard_alone", "is for engines: with role all one process does everything for a whole chain"
            )
        return self

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


def load_settings(
    path: Path | None, overrides: Mapping[str, Any], rpc: Sequence[str] = (), *, no_store: bool = False
) -> Settings:
    """Return the settings from a file, the environment and the command line, the later over the earlier.

    Args:
        path: A TOML file, or None.
        overrides: Values from the command line, by key; None stands for not given.
        rpc: Endpoints given on the command line: one chain, known by the id that they report.
        no_store: Whatever the settings say of the store, there is none.

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
    if no_store:
        values["store"] = {"enabled": False}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error


def plain(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON has them, with all secrets: `Settings(**plain(settings))` is what was given.

    For a process' own children. Nothing of it belongs in a log, an error or an argument of a command.
    """

    def reveal(value: Any) -> str:
        return str(value.get_secret_value() if isinstance(value, SecretStr) else value)

    values: dict[str, Any] = json.loads(json.dumps(settings.model_dump(), default=reveal))
    return values


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
        elif problem["type"] in _MISSING:
            key = _MISSING[problem["type"]]
        elif problem["type"] == "extra_forbidden":
            message = "is no setting" + _suggest(location)
        value = problem["input"]
        shown = ""
        if problem["type"] != "missing" and isinstance(value, (str, int, float, bool)):
            # Also under a mistyped key: a URL may carry a provider's key.
            is_secret = "rpc" in location or any("key" in part for part in location) or "://" in str(value)
            shown = f" = {'(hidden)' if is_secret else repr(value)[:120]}"
        lines.append(f"  {key}{shown}: {message}")
    return "\n".join(lines)


def _is_inside(inner: Sequence[int | str], outer: Sequence[int | str]) -> bool:
    return len(inner) > len(outer) and tuple(inner[: len(outer)]) == tuple(outer)


def _suggest(location: Sequence[str]) -> str:
    models: dict[str, type[BaseModel]] = {
        "chains": ChainSettings, "protocols": ProtocolSettings, "limits": LimitSettings,
        "dashboard": DashboardSettings, "log": LogSettings, "store": StoreSettings,
        "feeds": FeedSettings, "prices": PriceSettings,
        "coingecko": CoinGeckoSettings, "defillama": DefiLlamaSettings, "redis": RedisSettings,
        "history": HistorySettings, "ops": OpsSettings,
    }  # fmt: skip
    parents = [part for part in location[:-1] if part in models]
    fields = list((models[parents[-1]] if parents else Settings).model_fields)
    close = difflib.get_close_matches(location[-1], fields, n=1)
    return f"; did you mean {close[0]}?" if close else f"; allowed are {', '.join(fields)}"


def address_of(text: str) -> Address:
    """Return a validated address setting as an address."""
    return Address(text)
