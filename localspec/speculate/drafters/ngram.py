"""Prompt lookup: what followed the last time the text ended like this?

Saxena's prompt lookup decoding (2023), with the longest match first and of those the latest: text
repeats what it said last. For each length up to 8 a table maps an n-gram to the place after its
latest occurrence; new tokens are entered once, so a draft costs a handful of dictionary look-ups,
whatever the length of the text. Single tokens are not matched: they are right too seldom to pay for
a wider verification.
"""

from collections.abc import Sequence

from localspec.speculate.drafters.base import Draft, DraftRequest

SHORTEST_MATCH = 2
LONGEST_MATCH = 8


class NgramIndex:
    """Where each n-gram of one growing history last occurred."""

    def __init__(self, history: list[int]) -> None:
        self.history = history
        self._n_indexed = 0
        self._after: dict[tuple[int, ...], int] = {}

    def continuation(self, n_tokens: int) -> list[int]:
        """What followed the longest matching end of the history, the last time that it occurred."""
        self._catch_up()
        history = self.history
        for n in range(min(LONGEST_MATCH, len(history) - 1), SHORTEST_MATCH - 1, -1):
            place = self._after.get(tuple(history[-n:]))
            if place is not None:
                return history[place : place + n_tokens]
        return []

    def _catch_up(self) -> None:
        # N-grams that end at the last token have no continuation yet: they wait for the next call.
        for place in range(max(self._n_indexed, SHORTEST_MATCH), len(self.history)):
            for n in range(SHORTEST_MATCH, min(LONGEST_MATCH, place) + 1):
                self._after[tuple(self.history[place - n : place])] = place
        self._n_indexed = len(self.history)


class NgramDrafter:
    """Looks drafts up in the prompt and the reply itself; one index for each reply in progress."""

    source = "ngram"

    def __init__(self) -> None:
        self._indexes: dict[int, NgramIndex] = {}

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """One look-up for each request; indexes of replies that are not among them are dropped."""
        # An index keeps its history alive, so the id of that list stays unique while it is a key.
        self._indexes = {
            id(r.history): self._indexes.get(id(r.history)) or NgramIndex(r.history)
            for r in requests
        }
        return [
            Draft(self._indexes[id(r.history)].continuation(r.n_tokens), self.source)
            for r in requests
        ]
