"""What single settings look like: addresses, origins, networks, URLs. Each says what is allowed where it is wrong."""

import json
from ipaddress import ip_network
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

from .domain.errors import ClientError
from .protocols.addresses import parse_address
from .protocols.registry import adapters

__all__ = ["AddressText", "HttpUrl", "Kind", "NetworkText", "Origin", "RpcUrl", "split_list"]


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


def split_list(value: Any) -> Any:
    """Return a list given as JSON or as text with commas; anything else as it is."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.startswith("[") else value.split(",")


def _origin(value: str) -> str:
    """Return an origin as browsers write it, or refuse what no browser ever sends: it would lock everyone out."""
    text = value.strip().lower().removesuffix("/")
    if text in ("*", "null"):
        return text
    parts = urlsplit(text)
    if not parts.scheme or not parts.hostname or f"{parts.scheme}://{parts.netloc}" != text or "@" in text:
        raise ValueError("an origin is a scheme and a host, such as https://app.example, or *")
    return text


def _network(value: str) -> str:
    try:
        return str(ip_network(value.strip(), strict=False))
    except ValueError as error:
        raise ValueError("a proxy is an address or a network, such as 10.0.0.0/8") from error


def _http_url(value: SecretStr) -> SecretStr:
    parts = urlsplit(value.get_secret_value())
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("a base URL is http:// or https:// with a host, and no query")
    return value


AddressText = Annotated[str, AfterValidator(_address)]
Origin = Annotated[str, AfterValidator(_origin)]
NetworkText = Annotated[str, AfterValidator(_network)]
RpcUrl = Annotated[SecretStr, AfterValidator(_rpc_url)]
HttpUrl = Annotated[SecretStr, AfterValidator(_http_url)]
Kind = Annotated[str, AfterValidator(_kind)]
