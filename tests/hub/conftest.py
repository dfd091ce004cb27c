"""A stage for each test, with both chains' heads known."""

import pytest

from .stage import Stage


@pytest.fixture
def stage() -> Stage:
    """Return a hub to which nobody listens yet."""
    made = Stage()
    made.start()
    return made
