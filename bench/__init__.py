"""Benches: how fast and how exact, on the machine at hand. Each is a program; `common*` is what they share."""
