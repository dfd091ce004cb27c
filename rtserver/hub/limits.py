"""What one client may do, and the only thing that the hub asks of the world."""

from typing import Protocol

import msgspec

from ..protocols.channels import Channel

__all__ = ["Interest", "Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client may do; every number is a setting.

    Args:
        channels: Channels a connection.
        message_bytes: Longest message from a client.
        messages_per_s: Steady rate of messages from a client.
        burst: Messages at once.
        connections_per_ip: Sockets an address.
        connections_per_minute: New sockets an address, a minute.
        loads_per_minute: Channels not open yet that an address may have read, a minute.
        heartbeat_s: Idle time after which a heartbeat is sent.
        pong_s: Time to answer it.
        load_s: Longest wait for a cold channel.
        linger_s: How long a channel stays open after its last listener.
    """

    channels: int = 256
    message_bytes: int = 16 * 1024
    messages_per_s: float = 10
    burst: int = 20
    connections_per_ip: int = 100
    connections_per_minute: int = 30
    loads_per_minute: int = 600
    heartbeat_s: float = 15
    pong_s: float = 10
    load_s: float = 20
    linger_s: float = 60


class Interest(Protocol):
    """The only way back: which channels someone watches."""

    def want(self, channel: Channel) -> None:
        """Open a channel as soon as its state has been read."""

    def unwant(self, channel: Channel) -> None:
        """Close a channel."""
