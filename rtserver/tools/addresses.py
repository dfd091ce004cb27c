"""The two addresses of a server, from either: its interface (http) and its socket (ws). Pure."""

from urllib.parse import urlsplit, urlunsplit

from ..domain.errors import PermanentError

__all__ = ["BadUrl", "http_base", "ws_url"]

_TO_HTTP = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_TO_WS = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}


class BadUrl(PermanentError):
    """A URL is not one that a server can have."""


def _split(url: str) -> tuple[str, str, str, str]:
    parts = urlsplit(url)
    if parts.scheme not in _TO_WS or not parts.hostname:
        raise BadUrl(f"the server's URL must be http(s)://host[:port] or ws(s)://host[:port]/ws, got {url[:200]!r}")
    return parts.scheme, parts.netloc, parts.path.rstrip("/"), parts.query


def ws_url(url: str) -> str:
    """Return the socket of a server: http://host → ws://host/ws; a path that is there stays."""
    scheme, netloc, path, query = _split(url)
    if not path:
        path = "/ws"
    elif scheme.startswith("http") and not path.endswith("/ws") and "/ws/" not in path:
        path += "/ws"  # a server behind a path of its own
    return urlunsplit((_TO_WS[scheme], netloc, path, query, ""))


def http_base(url: str) -> str:
    """Return a server's base for HTTP, without a slash at the end: ws://host/ws → http://host."""
    scheme, netloc, path, _ = _split(url)
    head, found, _ = f"{path}/".rpartition("/ws/")
    return urlunsplit((_TO_HTTP[scheme], netloc, head if found else path, "", ""))
