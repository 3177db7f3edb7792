"""Whether an answer will fit into the context, seen before it is begun.

An answer needs room of its own; how much is not known, so a share of the context is kept free for
it. Dropping turns means that what is left is read again, so it is done seldom and in bulk: down to
half of the context. The system prompt and the newest message always stay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from localspec.errors import UserError

WhenFull = Literal["ask", "drop", "stop"]
MAX_RESERVE = 512
SHARE_RESERVED = 4
SHARE_KEPT = 2


@dataclass(frozen=True, slots=True)
class Shortage:
    """A prompt that leaves less than `n_reserve` of `n_ctx` tokens; `n_droppable` turns could go
    and then it would have `n_after` tokens."""

    n_prompt: int
    n_ctx: int
    n_reserve: int
    n_droppable: int
    n_after: int

    @property
    def n_left(self) -> int:
        """Tokens that an answer could still have."""
        return self.n_ctx - self.n_prompt

    @property
    def can_drop(self) -> bool:
        return self.n_droppable > 0 and self.n_after < self.n_ctx

    def refusal(self) -> UserError:
        """Why nothing can be answered."""
        return UserError(
            f"the conversation has {self.n_prompt:,} tokens and the context holds {self.n_ctx:,}:"
            " /undo or /clear, `/full drop` to let old turns go, or a larger --ctx"
        )


def reserve(n_ctx: int, max_tokens: int | None) -> int:
    """Tokens to keep free for an answer."""
    usual = min(MAX_RESERVE, n_ctx // SHARE_RESERVED)
    return usual if max_tokens is None else min(usual, max_tokens)


def shortage(
    count: Callable[[int], int], n_turns: int, n_ctx: int, n_reserve: int
) -> Shortage | None:
    """None where there is room. `count(k)`: tokens of the prompt without its first `k` turns."""
    n_prompt = count(0)
    if n_prompt + n_reserve <= n_ctx:
        return None
    target = min(n_ctx // SHARE_KEPT, n_ctx - n_reserve)
    n_droppable = _fewest(lambda k: count(k) <= target, n_turns - 1)
    return Shortage(n_prompt, n_ctx, n_reserve, n_droppable, count(n_droppable))


def _fewest(is_enough: Callable[[int], bool], most: int) -> int:
    """The smallest number up to `most` that is enough, else `most`."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low
