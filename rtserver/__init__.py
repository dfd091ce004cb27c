"""rtserver: the live, exact view of concentrated-liquidity positions."""

__all__ = ["__version__"]

__version__ = "0.1.0"
