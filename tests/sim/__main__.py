"""`python -m tests.sim SEED` replays a run with its trace; `--count N [--first F]` runs many and sums them up."""

import argparse
import sys
import time
from collections import Counter

from .simulation import Simulation, SimulationFailure, simulate


def _replay(seed: int) -> int:
    try:
        outcome = Simulation(seed, lambda line: print(line)).run()
    except SimulationFailure as failure:
        print(f"FAILED {failure}")
        raise
    print(dict(outcome.events), dict(outcome.faults))
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
            print(f"FAILED {failure}", flush=True)
            continue
        events += outcome.events
        injected += outcome.injected
        faults += outcome.faults
    seconds = time.perf_counter() - started
    print(f"{count} seeds from {first}: {len(failures)} failed, {seconds:.1f} s, {seconds / count * 1000:.1f} ms a seed")
    for name, number in sorted(events.items()):
        print(f"  {name:32}{number:>10}")
    print(f"  accidents: {injected.total()} injected, {faults.total()} accounted for")
    for kind in sorted(injected):
        how = ", ".join(f"{name} {number}" for (of, name), number in faults.most_common() if of == kind)
        print(f"    {kind:8}{injected[kind]:>8}: {how}")
    return 1 if failures else 0


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="replay this one, with a trace")
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    return _many(arguments.first, arguments.count) if arguments.seed is None else _replay(arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
