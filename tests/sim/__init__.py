"""The seeded simulation: the real hub and clients on a random chain, with every accident that a seed brings."""
