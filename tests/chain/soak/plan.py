"""What goes wrong and when: rounds of faults, from one seed. Pure; knows names and times, does nothing.

A round is some seconds of trading with faults that overlap, after which all is healed and compared. Equal seeds
give equal plans. What a fault meets is not planned: which request is under way depends on the machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["FAULTS", "Injection", "Round", "rounds"]

Params = dict[str, Any]

# How many endpoints' proxies there are, each for a socket and for HTTP.
PROXIES: Final = 2
# Anything deeper is told as a new epoch; every depth up to it as one rollback.
_DEEPEST: Final = 64

_READS: Final = ("eth_call",)
_LOGS: Final = ("eth_getLogs",)
_HEADERS: Final = ("eth_getBlockByHash", "eth_getBlockByNumber")
_METHODS: Final[tuple[tuple[str, ...], ...]] = ((), _READS, _LOGS, _HEADERS, (*_READS, *_LOGS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """One fault: when it begins in its round, how long it lasts, and the rest that `faults` needs to do it."""

    name: str
    at_s: float
    for_s: float
    params: Mapping[str, Any]

    def __str__(self) -> str:
        params = ", ".join(f"{name}={value}" for name, value in self.params.items())
        return f"{self.at_s:.1f}s {self.name} for {self.for_s:.1f}s ({params})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Some seconds of trading; the chain may stand still afterwards or go on until all is right again."""

    number: int
    seconds: float
    block_time_s: float
    goes_on: bool
    injections: tuple[Injection, ...]

    def __str__(self) -> str:
        faults = "; ".join(map(str, self.injections)) or "nothing goes wrong"
        return f"round {self.number}, {self.seconds:.0f} s, a block each {self.block_time_s:.2f} s: {faults}"


def _proxies(rng: random.Random) -> Params:
    # All at once as often as one alone: with one left the pool hides it, with none it has to be outlasted.
    return {"proxies": rng.choice([[0], [0], [1], [0, 1], [0, 1]])}


def _calls(rng: random.Random, *, methods: tuple[tuple[str, ...], ...] = _METHODS) -> Params:
    return {**_proxies(rng), "methods": rng.choice(methods), "chance": rng.choice([0.2, 0.6, 1.0])}


def _pushes(rng: random.Random) -> Params:
    return {**_proxies(rng), "methods": ("eth_subscription",), "chance": rng.choice([0.3, 1.0])}


def _delay(rng: random.Random) -> Params:
    return {**_calls(rng), "seconds": round(rng.choice([0.05, 0.3, 1.0, 3.0]), 2)}


def _late(rng: random.Random) -> Params:
    return {**_pushes(rng), "seconds": round(rng.uniform(0.1, 2.0), 2)}


def _busy(rng: random.Random) -> Params:
    return {**_calls(rng), "retry_after_s": rng.choice([None, 1, 2])}


def _behind(rng: random.Random) -> Params:
    return {**_pushes(rng), "behind": rng.randint(1, 3)}


def _back(rng: random.Random) -> Params:
    return {**_proxies(rng), "back": rng.randint(1, 20), "times": rng.randint(1, 3)}


def _fork(rng: random.Random) -> Params:
    return {**_proxies(rng), "cut": rng.random() < 0.7, "ahead": rng.choice([0, 1, 5])}


def _depth(rng: random.Random) -> Params:
    return {"depth": rng.choice([1, 1, 2, 3, rng.randint(4, 12), rng.randint(13, _DEEPEST)])}


def _lost(rng: random.Random) -> Params:
    return {"lost": rng.choice([0, 0, 1, 4])}


def _jump(rng: random.Random) -> Params:
    return {"seconds": rng.choice([15, 600, 3600])}


def _clients(rng: random.Random) -> Params:
    return {"share": rng.choice([0.3, 0.7, 1.0])}


def _nothing(rng: random.Random) -> Params:
    return {}


# Name → (weight, shortest and longest in seconds, its parameters). Those that cost a process are rarer.
FAULTS: Final[Mapping[str, tuple[float, float, float, Callable[[random.Random], Params]]]] = {
    # Between the server and its endpoints.
    "delay": (3, 1.0, 6.0, _delay),
    "drop": (2, 1.0, 5.0, _calls),
    "disconnect": (2, 1.0, 5.0, _calls),
    "cut off": (2, 1.0, 5.0, _calls),
    "truncate": (2, 1.0, 5.0, _calls),
    "malformed": (2, 1.0, 5.0, _calls),
    "wrong id": (2, 1.0, 5.0, _calls),
    "null": (2, 1.0, 5.0, lambda rng: _calls(rng, methods=(_READS, _LOGS, _HEADERS))),
    "busy": (3, 1.0, 5.0, _busy),
    "limited": (3, 1.0, 5.0, _calls),
    "no header": (3, 1.0, 5.0, lambda rng: _calls(rng, methods=(_READS, _LOGS, _HEADERS))),
    "late heads": (2, 1.0, 6.0, _late),
    "lost heads": (3, 1.0, 6.0, _pushes),
    "double heads": (2, 1.0, 6.0, _pushes),
    "swapped heads": (2, 1.0, 6.0, _behind),
    "old heads": (2, 0.0, 0.5, _back),
    "freeze": (3, 1.0, 6.0, _proxies),
    "away": (3, 0.5, 5.0, _proxies),
    "reset": (3, 0.0, 0.0, _proxies),
    "fork": (3, 2.0, 6.0, _fork),
    # The node and its chain.
    "node stopped": (2, 1.0, 6.0, _nothing),
    "node killed": (1.5, 0.2, 3.0, _lost),
    "reorg": (5, 0.0, 0.0, _depth),
    "rollback": (2, 0.0, 0.0, _depth),
    "clock": (1, 0.0, 0.0, _jump),
    # The server.
    "server killed": (2, 0.0, 2.0, _nothing),
    "server ended": (2, 0.0, 2.0, _nothing),
    "server stopped": (1, 0.3, 3.0, _nothing),
    "store locked": (2, 1.0, 6.0, _nothing),
    # Its clients.
    "clients cut": (2, 0.0, 0.0, _clients),
    "clients asleep": (2, 1.0, 6.0, _clients),
    "clients new": (2, 0.0, 0.0, _clients),
}


def rounds(seed: int) -> Iterator[Round]:
    """Yield rounds without end."""
    rng = random.Random(seed)
    names = list(FAULTS)
    weights = [FAULTS[name][0] for name in names]
    number = 0
    while True:
        number += 1
        chosen = rng.choices(names, weights, k=rng.choice([1, 1, 2, 2, 3, 4]))
        injections = []
        for name in chosen:
            _, least_s, most_s, draw = FAULTS[name]
            at_s = round(rng.uniform(0.3, 3.0), 2)
            injections.append(
                Injection(name=name, at_s=at_s, for_s=round(rng.uniform(least_s, most_s), 2), params=draw(rng))
            )
        yield Round(
            number=number,
            seconds=max(one.at_s + one.for_s for one in injections) + 0.5,
            block_time_s=rng.choice([0.25, 0.5, 1.0]),
            goes_on=rng.random() < 0.3,
            injections=tuple(sorted(injections, key=lambda one: one.at_s)),
        )
