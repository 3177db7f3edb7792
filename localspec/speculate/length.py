"""How many tokens to draft now, and by whom.

A policy is asked before each step and told of each step; `Fixed` ignores what it is told.
"""

from dataclasses import dataclass
from typing import Protocol

from localspec.speculate.step import Step


class DraftLength(Protocol):
    """A policy for the number of tokens to draft."""

    def choose(self, limit: int) -> int:
        """How many tokens to draft now, 0 .. limit; 0 is plain decoding."""
        ...

    def observe(self, step: Step) -> None:
        """Learn from what became of a draft."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always `n_tokens`, as far as there is room."""

    n_tokens: int

    def choose(self, limit: int) -> int:
        """The fixed number, or what is left."""
        return min(self.n_tokens, limit)

    def observe(self, step: Step) -> None:
        """Learn nothing."""
