"""`python -m tests.sim SEED` replays a run with its trace; `--count N [--first F]` runs many and sums them up.

`--find` prints, for each bug of `sabotage.py`, the first seed that reveals it.
"""

import argparse
import sys
import time
from collections import Counter

from .sabotage import SABOTAGES
from .simulation import Simulation, SimulationFailure, simulate


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _replay(seed: int) -> int:
    try:
        outcome = Simulation(seed, _tell).run()
    except SimulationFailure as failure:
        _tell(f"FAILED {failure}")
        raise
    _tell(f"{dict(outcome.events)}\n{dict(outcome.faults)}")
    return 0


def _many(first: int, count: int) -> int:
    events: Counter[str] = Counter()
    injected: Counter[str] = Counter()
    faults: Counter[tuple[str, str]] = Counter()
    failures: list[SimulationFailure] = []
    started = time.perf_counter()
    for seed in range(first, first + count):
        try:
            outcome = simulate(seed)
        except SimulationFailure as failure:
            failures.append(failure)
            _tell(f"FAILED {failure}")
            continue
        events += outcome.events
        injected += outcome.injected
        faults += outcome.faults
    seconds = time.perf_counter() - started
    _tell(
        f"{count} seeds from {first}: {len(failures)} failed, {seconds:.1f} s, {seconds / count * 1000:.1f} ms a seed"
    )
    for name, number in sorted(events.items()):
        _tell(f"  {name:32}{number:>10}")
    _tell(f"  accidents: {injected.total()} injected, {faults.total()} accounted for")
    for kind in sorted(injected):
        how = ", ".join(f"{name} {number}" for (of, name), number in faults.most_common() if of == kind)
        _tell(f"    {kind:8}{injected[kind]:>8}: {how}")
    return 1 if failures else 0


def _find(first: int, count: int) -> int:
    for name, bug in SABOTAGES.items():
        found = None
        with bug():
            for seed in range(first, first + count):
                try:
                    simulate(seed)
                except SimulationFailure:
                    found = seed
                    break
        _tell(f'    "{name}": {found},')
    return 0


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="replay this one, with a trace")
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--find", action="store_true")
    arguments = parser.parse_args()
    if arguments.find:
        return _find(arguments.first, arguments.count)
    return _many(arguments.first, arguments.count) if arguments.seed is None else _replay(arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
