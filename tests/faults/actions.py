"""What can go wrong on the way to a node and back. An action is data: the proxy does it, a rule says when.

Actions on a message hit it whole (a batch is one message); actions on a call hit one call of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Action", "Answer", "Call", "CallAction", "CutOff", "Delay", "Disconnect", "Drop", "Duplicate", "Edit",
    "Elsewhere", "LogCap", "MessageAction", "Reorder", "Reply", "Truncate", "WrongId", "busy", "no_batches",
]  # fmt: skip

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call as the client sent it; a push of a subscription has the method `eth_subscription`.

    `via` is "http", "ws" or "push"; `batch` is how many calls its message holds.
    """

    method: str
    params: Any
    via: str
    batch: int = 1


class MessageAction:
    """Hits the whole message."""


@dataclass(frozen=True, slots=True)
class Delay(MessageAction):
    """The answer leaves `seconds` later than it could have. Pushes stay in order behind a delayed one."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drop(MessageAction):
    """Nothing ever comes back, and the connection stays open."""


@dataclass(frozen=True, slots=True)
class Disconnect(MessageAction):
    """The connection is reset instead of an answer."""


@dataclass(frozen=True, slots=True)
class Reply(MessageAction):
    """The body is replaced, and over HTTP the status and headers; the node is not asked."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Truncate(MessageAction):
    """Only this share of the JSON arrives, in an otherwise complete answer."""

    keep: float = 0.5


@dataclass(frozen=True, slots=True)
class CutOff(MessageAction):
    """The connection breaks in the middle of an HTTP body; over a socket, instead of the message."""

    keep: float = 0.5


@dataclass(frozen=True, slots=True)
class Duplicate(MessageAction):
    """A socket's message arrives twice, one right after the other."""


@dataclass(frozen=True, slots=True)
class Reorder(MessageAction):
    """A socket's message arrives only after `behind` later ones of the same socket."""

    behind: int = 1


class CallAction:
    """Hits one call: `before` may answer instead of the node, `after` may change what the node answered."""

    def before(self, call: Call) -> Json | None:
        """Return {"result": …} or {"error": …} instead of asking the node, None to ask it."""
        return None

    def after(self, call: Call, answer: Json) -> Json:
        """Return the answer that the client gets; for a push, `answer` is the whole notification."""
        return answer


@dataclass(frozen=True, slots=True)
class Answer(CallAction):
    """The call is answered with an error object."""

    code: int
    message: str
    data: Any = None

    def before(self, call: Call) -> Json | None:
        error = {"code": self.code, "message": self.message}
        return {"error": error if self.data is None else {**error, "data": self.data}}


@dataclass(frozen=True, slots=True)
class Edit(CallAction):
    """The result (of a push: what it announces) is replaced by what a function makes of it."""

    change: Callable[[Any], Any]

    def after(self, call: Call, answer: Json) -> Json:
        if call.via == "push":
            params = answer["params"]
            return {**answer, "params": {**params, "result": self.change(params["result"])}}
        return {**answer, "result": self.change(answer["result"])} if "result" in answer else answer


@dataclass(frozen=True, slots=True)
class WrongId(CallAction):
    """The answer carries an id that nobody asked with."""

    offset: int = 1_000_000

    def after(self, call: Call, answer: Json) -> Json:
        old = answer.get("id")
        return {**answer, "id": old + self.offset if isinstance(old, int) else old}


@dataclass(frozen=True, slots=True)
class Elsewhere(CallAction):
    """The call is answered by another node: another fork, or one that lags."""

    url: str


@dataclass(frozen=True, slots=True)
class LogCap(CallAction):
    """eth_getLogs by range is refused when it is too wide or finds too much, in a provider's own words.

    `max_blocks` and `max_results` None allow anything. `wide` and `many` are formatted with `max_blocks`,
    `max_results`, and the suggested range `first` and `last` in hex.
    """

    max_blocks: int | None = None
    max_results: int | None = None
    code: int = -32005
    wide: str = "query exceeds max block range {max_blocks}"
    many: str = "query returned more than {max_results} results"

    def _refuse(self, text: str, call: Call) -> Json:
        query = call.params[0]
        first, last = int(query["fromBlock"], 16), int(query["toBlock"], 16)
        middle = first + (last - first) // 2
        said = text.format(
            max_blocks=self.max_blocks, max_results=self.max_results, first=hex(first), last=hex(middle)
        )  # fmt: skip
        return {"error": {"code": self.code, "message": said}}

    def before(self, call: Call) -> Json | None:
        query = call.params[0] if call.method == "eth_getLogs" else {}
        if self.max_blocks is None or "fromBlock" not in query:
            return None
        width = int(query["toBlock"], 16) - int(query["fromBlock"], 16) + 1
        return self._refuse(self.wide, call) if width > self.max_blocks else None

    def after(self, call: Call, answer: Json) -> Json:
        found = answer.get("result")
        if self.max_results is None or call.method != "eth_getLogs" or not isinstance(found, list):
            return answer
        if len(found) <= self.max_results or "fromBlock" not in call.params[0]:
            return answer
        return {"jsonrpc": "2.0", "id": answer["id"], **self._refuse(self.many, call)}


Action = MessageAction | CallAction


def busy(retry_after_s: int | None = None) -> Reply:
    """Return HTTP 429 as providers send it, with Retry-After in seconds if given."""
    body = b'{"jsonrpc":"2.0","id":null,"error":{"code":429,"message":"Too Many Requests"}}'
    return Reply(body, 429, {} if retry_after_s is None else {"Retry-After": str(retry_after_s)})


def no_batches() -> Reply:
    """Return the one error object that some endpoints answer to a batch."""
    return Reply(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"batch requests are not supported"}}')
