"""A client's session with its server's end in a test's hands, without a socket and on a manual clock."""

from __future__ import annotations

import json
from typing import Any

from rtserver.client.session import Session

from .messages import Told, welcome

__all__ = ["Wire"]


class Wire:
    """A session with a server's end in the test's hands."""

    def __init__(self, **options: Any) -> None:
        self.now = 100.0
        self.session = Session(**options)
        self.connect()

    def connect(self) -> list[Any]:
        self.session.connected(self.now)
        return self.say(welcome())

    def say(self, *messages: dict[str, Any]) -> list[Any]:
        return [e for message in messages for e in self.session.receive(json.dumps(message), self.now)]

    def sent(self) -> list[dict[str, Any]]:
        self.session.tick(self.now)
        return [json.loads(data) for data in self.session.outbox.take(self.now)]

    def join(self, told: Told, name: str | None = None) -> list[Any]:
        self.session.want(name or told.channel, self.now)
        (request,) = self.sent()
        assert request["type"] == "subscribe"
        return self.say(*told.snapshot(request["id"]), told.subscribed(request["id"]))
