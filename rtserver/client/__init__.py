"""The Python client: exact copies of channels, proved, healed and resumed, as async iterators."""

from ..domain.errors import ClientError
from .client import RtClient
from .errors import ConnectFailed, ConnectionEnded, SubscribeTimeout
from .events import (
    Beat,
    BlockUpdate,
    Connected,
    Disconnected,
    Event,
    Failed,
    Mismatch,
    Stats,
    Update,
)
from .retry import Backoff
from .session import Session
from .subscription import EventFeed, Subscription

__all__ = [
    "Backoff",
    "Beat",
    "BlockUpdate",
    "ClientError",
    "ConnectFailed",
    "Connected",
    "ConnectionEnded",
    "Disconnected",
    "Event",
    "EventFeed",
    "Failed",
    "Mismatch",
    "RtClient",
    "Session",
    "Stats",
    "SubscribeTimeout",
    "Subscription",
    "Update",
]
