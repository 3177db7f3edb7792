"""What long work tells whoever waits for it: sentences for people, and how far it is."""

from collections.abc import Callable

Notify = Callable[[str], None]
"""Hears one sentence for the user."""

Progress = Callable[[float], None]
"""Hears the finished fraction, 0 to 1."""


def silent(message: str) -> None:
    """Tell nobody."""
