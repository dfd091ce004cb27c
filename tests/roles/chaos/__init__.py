"""Engine, standby, three gateways and Redis under the soak's clients, on a real chain; any of them killed at random.

    python -m tests.roles.chaos SEED --minutes 10

`plan` says who is killed when (pure), `parts` does it, `stage` runs round after round. After each everything has to be
right: every value that a gateway serves is the chain's, and every client's copy is its gateway's (chain.soak.quiet).
"""
