"""The sequences of an engine between requests, and what their caches can spare the next prompt.

Reuse is by equal tokens alone, so nobody sees another's text. A prompt that goes on where an idle
sequence ends takes that one. Any other takes an empty sequence, else the one of the least worth:

    worth = tokens that would have to be read again x turns that went on there / requests since

A request that nobody watches, as front ends ask for titles and tags, counts as a tenth of a turn:
it makes room for the next one, and a warm chat stays. A chat that nobody came back to goes in the
end. What another sequence, busy or idle,
holds of a prompt's beginning is shared where the memory can do that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from localspec.engine.base import Context, shared_prefix
from localspec.session.disk_cache import LEAST_TOKENS, DiskCache

CONTINUES = 0.5
"""Of an idle sequence's tokens: a prompt that shares more of them is the same conversation."""
UNWATCHED = 0.1
"""Of a turn: how likely another one follows such a request."""
LEAST_SHARED = 16
"""Tokens that are worth sharing."""


@dataclass(slots=True, eq=False)
class _Seat:
    context: Context
    is_busy: bool = False
    used: int = 0
    n_turns: float = 1.0
    """Requests that went on where this sequence ended, with the first."""

    @property
    def n_held(self) -> int:
        return len(self.context.tokens)


class Prefixes:
    """All contexts of an engine; `take` one for a request, and give it back.

    What must go is kept on `disk` where there is one.
    """

    def __init__(self, contexts: Sequence[Context], disk: DiskCache | None = None) -> None:
        self._seats = [_Seat(context) for context in contexts]
        self._disk, self._clock = disk, 0

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

    def is_free(self, place: int) -> bool:
        """Whether that sequence is idle."""
        return not self._seats[place].is_busy

    def n_held(self, prompt: Sequence[int]) -> int:
        """How many of a prompt's first tokens some sequence holds."""
        return max(shared_prefix(seat.context.tokens, prompt) for seat in self._seats)

    def take(
        self,
        prompt: Sequence[int],
        *,
        goes_on: bool = True,
        place: int | None = None,
        n_room: int = 0,
    ) -> tuple[Context, int]:
        """A context for a prompt, and how many of its first tokens it holds; one is free.

        The rest of what it held is forgotten. `goes_on`: another turn is likely to follow. `place`:
        of the free sequence that is wanted. `n_room`: cells that the request may fill with its
        prompt and reply; an answer that is made anew is on disk with the old one behind it.
        """
        wanted = prompt[:-1]  # the last token is evaluated in any case
        shares = {id(seat): shared_prefix(seat.context.tokens, wanted) for seat in self._seats}
        seat = self._chosen(shares) if place is None else self._seats[place]
        donor = max(self._seats, key=lambda each: shares[id(each)])
        n = shares[id(donor)]
        is_next = shares[id(seat)] > CONTINUES * seat.n_held > 0
        if not is_next:
            self._keep(seat)
        seat.n_turns = is_next * seat.n_turns + (1.0 if goes_on else UNWATCHED)
        if n >= shares[id(seat)] + LEAST_SHARED:
            seat.context.fork(donor.context, n)
        self._read_back(seat, wanted, max(n_room, len(wanted)))
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
            key=lambda seat: (
                shared_prefix(seat.context.tokens, prompt) > CONTINUES * seat.n_held,
                self._worth(seat, 0),
            ),
        )
        for seat in order:
            if n_tokens <= 0:
                return
            n_tokens -= seat.n_held
            self._keep(seat)
            seat.context.go_back(0)

    def _chosen(self, shares: dict[int, int]) -> _Seat:
        free = [seat for seat in self._seats if not seat.is_busy]
        own = [s for s in free if s.n_held and shares[id(s)] > CONTINUES * s.n_held]
        if own:
            return max(own, key=lambda seat: (shares[id(seat)], seat.used))
        return min(free, key=lambda seat: (self._worth(seat, shares[id(seat)]), seat.used))

    def keep_all(self) -> None:
        """Before the engine is freed."""
        for seat in self._seats:
            if not seat.is_busy:
                self._keep(seat)

    def _keep(self, seat: _Seat) -> None:
        """Before it is forgotten."""
        if self._disk and seat.n_turns >= 1:  # titles and tags do not come back
            self._disk.put(seat.context)

    def _read_back(self, seat: _Seat, wanted: Sequence[int], n_room: int) -> None:
        """From the disk, where that spares much and there is room for all of it."""
        entry, n = self._disk.longest(wanted) if self._disk else (None, 0)
        n_here = shared_prefix(seat.context.tokens, wanted)
        if self._disk and entry and n >= n_here + LEAST_TOKENS and len(entry.tokens) <= n_room:
            seat.context.go_back(0)
            self._disk.restore(entry, seat.context)

    def _worth(self, seat: _Seat, n_shared: int) -> float:
        """What is lost with all of it but `n_shared` tokens."""
        return (seat.n_held - n_shared) * seat.n_turns / (self._clock - seat.used + 1)
