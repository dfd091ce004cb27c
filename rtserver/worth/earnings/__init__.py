"""What positions earn, in dollars: rates over windows, and gains over a life. Pure arithmetic on integers."""

from .views import earnings_view, glance_view

__all__ = ["earnings_view", "glance_view"]
