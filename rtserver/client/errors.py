"""What can go wrong between a client and its server, split by what the caller does next.

A refused request is `domain.errors.ClientError` with the protocol's code. No query and no user of a URL gets
into a message, since they carry keys.
"""

from urllib.parse import urlsplit

from ..domain.errors import PermanentError, RetryableError

__all__ = ["ConnectFailed", "ConnectionEnded", "SubscribeTimeout", "public_url"]


def public_url(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.hostname or "?"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


class ConnectFailed(RetryableError):
    """The server did not open a session.

    Args:
        url: Where; shortened by `public_url`.
        reason: What happened, for a person.
        status: HTTP status of the refusal, where there was one.
    """

    def __init__(self, url: str, reason: str, *, status: int | None = None) -> None:
        super().__init__(f"can't connect to {public_url(url)}: {reason}")
        self.reason = reason
        self.status = status


class ConnectionEnded(PermanentError):
    """The server ended the connection and asked not to come back.

    Args:
        code: The protocol's close code, 4500–4999; or the code of a `bye` that forbids coming back.
        reason: The server's words, where it gave any.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the server ended the connection for good: {code}{f' ({reason})' if reason else ''}")
        self.code = code
        self.reason = reason


class SubscribeTimeout(RetryableError):
    """A subscribe was not answered in time; `channel` says which."""

    def __init__(self, channel: str, timeout_s: float) -> None:
        super().__init__(f"no answer to subscribe {channel} within {timeout_s:g} s")
        self.channel = channel
