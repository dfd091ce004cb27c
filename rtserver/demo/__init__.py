"""The local chain: a real node, the real contracts and a market, for `rtserver demo` and for the tests.

Nothing here runs in `rtserver serve`, and the server never imports it.
"""
