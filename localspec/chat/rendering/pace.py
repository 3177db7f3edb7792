"""When to draw next, so that drawing takes a small share of the time whatever it costs.

On a processor the engine wants every core, so a millisecond of drawing is a millisecond less of
decoding. A drawing that took c seconds is followed by a rest of c / SHARE.
"""

from time import perf_counter

SHARE = 0.006
MIN_REST_S = 0.04


class Pace:
    """Ask `is_due`, and tell how long each drawing took."""

    def __init__(self) -> None:
        self._next = 0.0

    def is_due(self) -> bool:
        return perf_counter() >= self._next

    def drew(self, started: float) -> None:
        """A drawing that began at `started` is done."""
        now = perf_counter()
        self._next = now + max(MIN_REST_S, (now - started) / SHARE)
