"""One root of errors, split by what the caller does next. Never carries a URL or a secret."""

__all__ = [
    "BlockGone",
    "ChainUnavailable",
    "ClientError",
    "ConfigError",
    "Contradiction",
    "HistoryPruned",
    "PermanentError",
    "RetryableError",
    "RtserverError",
    "TickOutOfRange",
]


class RtserverError(Exception):
    """The root of every error that rtserver raises on purpose."""


class RetryableError(RtserverError):
    """The same call may succeed later or elsewhere: a dropped connection, a rate limit, a lagging node."""


class ChainUnavailable(RetryableError):
    """No endpoint of a chain answered."""


class BlockGone(RetryableError):
    """No endpoint has the block, or not as part of its chain: it was orphaned, or the endpoints lag behind."""


class Contradiction(RetryableError):
    """A node's answer about a block disagrees with that block's own logs: it answered from another state."""


class PermanentError(RtserverError):
    """The same call will fail again: the request or the contract is not what was assumed."""


class HistoryPruned(PermanentError):
    """No endpoint keeps the state or the logs of a block that old any more; an archive endpoint would."""


class ConfigError(PermanentError):
    """A setting is missing or wrong; the message names the key, the value and what is allowed."""


class TickOutOfRange(PermanentError):
    """A tick lies outside [MIN_TICK, MAX_TICK]."""


class ClientError(RtserverError):
    """A client asked for something that can't be done; `code` is one of the wire protocol's.

    Args:
        code: Error code of the wire protocol, such as "bad_channel".
        message: What was wrong and what would be right, for a person.
        retry_after_ms: When asking again makes sense, if it does.
    """

    def __init__(self, code: str, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms
