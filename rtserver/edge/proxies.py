"""Who a client is behind proxies. Believes `X-Forwarded-For` and `X-Forwarded-Proto` of trusted proxies, of no one
else: whoever may write them may be anyone, and so has no limits.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from aiohttp import web

__all__ = ["Proxies"]

# Proxies in a row that are looked through.
_MAX_HOPS: Final = 16


class Proxies:
    """The proxies that are trusted.

    Args:
        networks: Their addresses or networks, such as 10.0.0.0/8.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(network, strict=False) for network in networks
        )

    def trusts(self, address: str | None) -> bool:
        """Return whether an address is that of a trusted proxy."""
        if not self._networks or address is None:
            return False
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self._networks)

    def seen_through(self, request: web.Request) -> web.Request:
        """Return a request as the client sent it to the first trusted proxy: `remote`, `scheme`."""
        remote = request.remote
        if remote is None or not self.trusts(remote):
            return request
        # The last one is our proxy's own word for whom it talks to; each one before it is only that one's word.
        hops = ",".join(request.headers.getall("X-Forwarded-For", [])).rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
        for hop in reversed(hops):
            client = _parsed(hop)
            if client is None:
                break
            remote = str(client)
            if not self.trusts(remote):
                break
        is_secure = request.headers.get("X-Forwarded-Proto", "").strip().lower() in ("https", "wss")
        return request.clone(remote=remote, scheme="https" if is_secure else request.scheme)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address as proxies write it, also with a port or in brackets; IPv4 in IPv6 as IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
