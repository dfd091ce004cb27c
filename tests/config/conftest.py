"""No setting from outside reaches a test."""

import os

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away whatever RTSERVER_ variables the shell has."""
    for name in list(os.environ):
        if name.upper().startswith("RTSERVER_") and name != "RTSERVER_CACHE_DIR":
            monkeypatch.delenv(name)
