"""The sequences of an engine between requests, and what their caches can spare the next prompt.

Reuse is by equal tokens alone, so nobody sees another's text. A prompt that goes on where an idle
sequence ends takes that one. Any other takes an empty sequence, else the one that was not used for
longest. What another sequence, busy or idle, holds of its beginning it shares: a short request with
a common system prompt leaves a warm chat alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from localspec.engine.base import Context, shared_prefix

CONTINUES = 0.5
"""Of an idle sequence's tokens: a prompt that shares more of them is the same conversation."""
LEAST_SHARED = 16
"""Tokens that are worth sharing."""


@dataclass(slots=True, eq=False)
class _Seat:
    context: Context
    is_busy: bool = False
    used: int = 0

    @property
    def n_held(self) -> int:
        return len(self.context.tokens)


class Prefixes:
    """All contexts of an engine; `take` one for a request, and give it back."""

    def __init__(self, contexts: Sequence[Context]) -> None:
        self._seats = [_Seat(context) for context in contexts]
        self._clock = 0

    @property
    def contexts(self) -> list[Context]:
        """All of them, in their order."""
        return [seat.context for seat in self._seats]

    @property
    def n_free(self) -> int:
        return sum(not seat.is_busy for seat in self._seats)

    @property
    def n_idle_tokens(self) -> int:
        """Cells that idle sequences hold."""
        return sum(seat.n_held for seat in self._seats if not seat.is_busy)

    def n_held(self, prompt: Sequence[int]) -> int:
        """How many of a prompt's first tokens some sequence holds."""
        return max(shared_prefix(seat.context.tokens, prompt) for seat in self._seats)

    def take(self, prompt: Sequence[int]) -> tuple[Context, int]:
        """A context for a prompt, and how many of its first tokens it holds; one is free.

        The rest of what it held is forgotten.
        """
        wanted = prompt[:-1]  # the last token is evaluated in any case
        shares = {id(seat): shared_prefix(seat.context.tokens, wanted) for seat in self._seats}
        seat = self._chosen(shares)
        donor = max(self._seats, key=lambda each: shares[id(each)])
        n = shares[id(donor)]
        if n >= shares[id(seat)] + LEAST_SHARED:
            seat.context.fork(donor.context, n)
        seat.is_busy = True
        seat.context.go_back(shared_prefix(seat.context.tokens, wanted))
        return seat.context, len(seat.context.tokens)

    def give_back(self, context: Context) -> None:
        """A request is over; what the context holds stays for the next one."""
        seat = next(each for each in self._seats if each.context is context)
        self._clock += 1
        seat.is_busy, seat.used = False, self._clock

    def forget(self, n_tokens: int, prompt: Sequence[int]) -> None:
        """Empty idle sequences until `n_tokens` cells are free; the best for `prompt` goes last."""
        order = sorted(
            (seat for seat in self._seats if not seat.is_busy),
            key=lambda seat: (shared_prefix(seat.context.tokens, prompt), seat.used),
        )
        for seat in order:
            if n_tokens <= 0:
                return
            n_tokens -= seat.n_held
            seat.context.go_back(0)

    def _chosen(self, shares: dict[int, int]) -> _Seat:
        free = [seat for seat in self._seats if not seat.is_busy]
        own = [s for s in free if s.n_held and shares[id(s)] > CONTINUES * s.n_held]
        if own:
            return max(own, key=lambda seat: (shares[id(seat)], seat.used))
        return min(free, key=lambda seat: (seat.n_held > 0, seat.used))
