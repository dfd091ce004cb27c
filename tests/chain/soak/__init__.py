"""A soak: a real chain, real servers and live clients, through faults that a seed chooses, for minutes or hours.

    python -m tests.chain.soak SEED --minutes 60

`plan` says what goes wrong when (pure), `faults` does it, `stage` is what it is done to, `quiet` compares
everything with the chain whenever the faults are over, `account` keeps the account, `memory` tells growth from noise.
"""
