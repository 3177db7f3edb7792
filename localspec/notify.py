"""How long work reports to the user: sentences and a finished fraction."""

from collections.abc import Callable

Notify = Callable[[str], None]
"""Hears one sentence for the user."""

Progress = Callable[[float], None]
"""Hears the finished fraction, 0 to 1."""


def silent(message: str) -> None:
    """Tell nobody."""
