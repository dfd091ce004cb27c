"""The programs of a deployment that are not rtserver's."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away whatever RTSERVER_ variables the shell has."""
    for name in list(os.environ):
        if name.startswith("RTSERVER_") and name != "RTSERVER_CACHE_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def nginx() -> str:
    """nginx, which may not be in an ordinary user's path."""
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    assert found is not None, "no nginx here; `make test` installs it"
    return found
