"""How a session will be used, as far as its options tell: settings are chosen for that."""

from dataclasses import dataclass
from typing import Self

CHARACTERS, USUAL_ANSWER = 4.0, 512
"""Of a token, and tokens of an answer whose length nobody limits."""


@dataclass(frozen=True, slots=True)
class Expected:
    """How a session will be used: `n_texts` texts that end `depth` tokens deep in the context."""

    depth: int = 1024
    n_texts: int = 8

    @classmethod
    def of_text(cls, n_characters: int, n_answer: int | None, n_texts: int = 1) -> Self:
        """Texts of some characters and the middle of their answers; None: as long as usual."""
        answer = USUAL_ANSWER if n_answer is None else n_answer
        return cls(int(n_characters / CHARACTERS) + answer // 2, n_texts)
