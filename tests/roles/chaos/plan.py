"""Who is killed when: rounds from one seed. Pure; knows names and times, does nothing.

Mostly one at a time, as it is promised; in some rounds a second one before the first is back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Final

from chain.soak.plan import Injection, Round

__all__ = ["FAULTS", "GATEWAYS", "rounds"]

GATEWAYS: Final = 3

# Name → (weight, shortest and longest in seconds until it is back). A stop may be longer than a lease.
FAULTS: Final[Mapping[str, tuple[float, float, float]]] = {
    "leader killed": (3, 0.0, 4.0),
    "leader ended": (1, 0.0, 4.0),
    "leader stopped": (2, 0.5, 6.0),
    "standby killed": (1, 0.0, 4.0),
    "standby stopped": (1, 0.5, 6.0),
    "gateway killed": (4, 0.0, 4.0),
    "gateway ended": (1, 0.0, 4.0),
    "gateway stopped": (2, 0.5, 6.0),
    "redis killed": (2, 0.0, 4.0),
    "redis emptied": (2, 0.0, 4.0),
    "redis stopped": (2, 0.5, 6.0),
    # What the survivors have to tell meanwhile.
    "reorg": (1, 0.0, 0.0),
}


def rounds(seed: int) -> Iterator[Round]:
    """Yield rounds without end."""
    rng = random.Random(seed)
    names = list(FAULTS)
    weights = [FAULTS[name][0] for name in names]
    number = 0
    while True:
        number += 1
        injections = []
        for name in rng.choices(names, weights, k=rng.choice([1, 1, 1, 2])):
            _, least_s, most_s = FAULTS[name]
            at_s, for_s = round(rng.uniform(0.3, 2.0), 2), round(rng.uniform(least_s, most_s), 2)
            params = {"which": rng.randrange(GATEWAYS), "depth": rng.choice([1, 1, 2, 5])}
            injections.append(Injection(name=name, at_s=at_s, for_s=for_s, params=params))
        yield Round(
            number=number,
            seconds=max(one.at_s + one.for_s for one in injections) + 0.5,
            block_time_s=rng.choice([0.25, 0.5, 1.0]),
            goes_on=rng.random() < 0.5,
            injections=tuple(sorted(injections, key=lambda one: one.at_s)),
        )
