"""Close codes and error codes of the protocol. 4000–4499 ask a client to come back, 4500–4999 not to."""

from enum import IntEnum, StrEnum
from typing import Final

__all__ = ["PROTOCOL", "CloseCode", "ErrorCode"]

PROTOCOL: Final = "rtserver.v1"


class CloseCode(IntEnum):
    """Why the server closes a socket."""

    SHUTDOWN = 4001
    TOKEN_EXPIRED = 4005
    SLOW = 4008
    NO_PONG = 4012
    RATE = 4013
    BAD_TOKEN = 4500
    BAD_FRAME = 4501
    FORBIDDEN = 4503
    TOO_MANY_CONNECTIONS = 4504

    @property
    def reconnect(self) -> bool:
        """Return whether a client should come back."""
        return self < 4500


class ErrorCode(StrEnum):
    """What an `error` reply says went wrong."""

    UNAUTHORIZED = "unauthorized"
    BAD_CHANNEL = "bad_channel"
    BAD_REQUEST = "bad_request"
    LIMIT = "limit"
    RATE = "rate"
    TOKEN_EXPIRED = "token_expired"
    UNRECOVERABLE = "unrecoverable"
    CHAIN_UNAVAILABLE = "chain_unavailable"
    LOAD_TIMEOUT = "load_timeout"
