"""Lookup: what followed when the text ended like this before?

The idea is SuffixDecoding's (Oliaro et al. 2024), without its tree. A table maps each pair of
tokens to the places after it. The latest of these are compared backwards with the end of the text,
which gives the length of each match. The longest match decides what comes next, among equals the
majority, among those the latest. The draft follows the places that keep agreeing. A token's
confidence is the length of the match, and whether the places agree: a copied passage is right
nearly always, a repeated pair of words seldom.

A new reply of the same session goes on in the same text where the two part, so earlier turns and
earlier replies are matched as well; nothing is indexed twice.
"""

from collections.abc import Sequence
from typing import ClassVar, Self

from localspec.decode.drafters.base import NO_DRAFT, Draft, DraftRequest
from localspec.engine.base import Engine, Head, shared_prefix

LENGTHS = (1, 2, 3, 4, 6, 9, 16)
"""From these match lengths on a match counts as better."""
N_CONFIDENCES = 2 * len(LENGTHS)
REACH = 3
"""A match of one token is followed for so many, a longer one for so many times its length."""
MAX_TEXT = 1 << 17
"""Tokens that an index holds before it starts again with the reply at hand."""

_LONGEST = 32
_N_PLACES = 12
_BOUNDARY = -1
_OVERLAP = 8
_AGREED = [
    2 * max(i for i, n in enumerate(LENGTHS) if n <= max(1, length)) + 1
    for length in range(_LONGEST + 1)
]
"""Confidences by match length, where the places agree; one less where they do not."""


class LookupIndex:
    """All places in the text of a conversation, by the two tokens before them."""

    def __init__(self) -> None:
        self.text: list[int] = []
        self._history: list[int] = []
        self._n_known, self._n_indexed = 0, 2
        self._after_pair: dict[tuple[int, int], list[int]] = {}
        self._after_one: dict[int, int] = {}

    def shares(self, history: list[int]) -> int:
        """How many leading tokens of `history` are in the text already."""
        return shared_prefix(self._history[: self._n_known], history)

    def begin(self, history: list[int]) -> None:
        """Follow a history from now on: what it shares with the former one is indexed already."""
        n_shared = self.shares(history)
        if n_shared < self._n_known:
            # Some tokens of overlap let a match reach back over the place where the two part.
            n_shared = max(0, n_shared - _OVERLAP)
            self.text.append(_BOUNDARY)
        self._history, self._n_known = history, n_shared

    def continuation(self, n_tokens: int) -> tuple[list[int], list[int]]:
        """At most `n_tokens` that probably follow the history, and their confidences."""
        self._catch_up()
        if len(self.text) < 2 or self.text[-1] not in self._after_one:
            return [], []
        matches = self._matches()
        return self._follow(matches, n_tokens) if matches else ([], [])

    def _catch_up(self) -> None:
        """Index what the history has more than at the last time."""
        # The pair at the end of the text has no continuation yet: it waits for the next call.
        text, after_pair, after_one = self.text, self._after_pair, self._after_one
        text += self._history[self._n_known :]
        self._n_known = len(self._history)
        for place in range(self._n_indexed, len(text)):
            last = text[place - 1]
            pair = text[place - 2], last
            places = after_pair.get(pair)
            if places is None:
                after_pair[pair] = [place]
            else:
                places.append(place)
            after_one[last] = place
        self._n_indexed = max(2, len(text))

    def _matches(self) -> list[tuple[int, int]]:
        """(length, place) of the latest places that the text's end has led to before."""
        text = self.text
        places = self._after_pair.get((text[-2], text[-1]))
        if places is None:
            place = self._after_one[text[-1]]
            return [] if text[place] == _BOUNDARY else [(1, place)]
        return [
            (self._match_length(place), place)
            for place in places[: -_N_PLACES - 1 : -1]
            if text[place] != _BOUNDARY
        ]

    def _match_length(self, place: int) -> int:
        text, end = self.text, len(self.text)
        n, limit = 2, min(place, _LONGEST)
        while n < limit and text[place - n - 1] == text[end - n - 1]:
            n += 1
        return n

    def _follow(self, matches: list[tuple[int, int]], n_tokens: int) -> tuple[list[int], list[int]]:
        text, end = self.text, len(self.text)
        tokens: list[int] = []
        confidences: list[int] = []
        longest = max(matches)[0]
        n_tokens = min(n_tokens, REACH * longest)
        places = [place for _, place in matches]
        leading = [place for length, place in matches if length == longest]
        for k in range(n_tokens):
            if len(places) == 1 and places == leading:
                self._copy(places[0], longest + k, n_tokens - k, tokens, confidences)
                break
            token = text[leading[0]] if len(leading) == 1 else _majority([text[p] for p in leading])
            if token == _BOUNDARY:
                break
            agreeing = [p + 1 for p in places if text[p] == token]
            is_contested = 4 * len(agreeing) < 3 * len(places)
            tokens.append(token)
            confidences.append(_AGREED[min(longest + k, _LONGEST)] - is_contested)
            places = [p for p in agreeing if p < end]
            leading = [p + 1 for p in leading if text[p] == token and p + 1 < end]
            if not leading:
                break
        return tokens, confidences

    def _copy(
        self, place: int, length: int, n: int, tokens: list[int], confidences: list[int]
    ) -> None:
        """Only one place is left to follow, and so to agree."""
        rest = self.text[place : place + n]
        if _BOUNDARY in rest:
            rest = rest[: rest.index(_BOUNDARY)]
        tokens += rest
        confidences += [_AGREED[min(length + i, _LONGEST)] for i in range(len(rest))]


def _majority(tokens: list[int]) -> int:
    """The most frequent token, of equals the first."""
    return max(tokens, key=tokens.count)


class LookupDrafter:
    """Looks drafts up in the prompt, the reply and earlier ones; one index a conversation.

    Unless it `remembers`, a reply that is over leaves nothing behind.
    """

    source: ClassVar[str] = "lookup"
    option: ClassVar[str] = "lookup"
    label: ClassVar[str] = "lookup"
    is_free: ClassVar[bool] = True
    n_confidences: ClassVar[int] = N_CONFIDENCES
    n_longest: int | None = None
    is_at_once: bool = True

    def __init__(self, *, remembers: bool = True) -> None:
        self._remembers = remembers
        self._requests: Sequence[DraftRequest] = ()
        self._texts: dict[int, LookupIndex] = {}
        self._idle: list[LookupIndex] = []

    @classmethod
    def of(cls, target: Engine, draft: Engine | None, head: Head | None) -> Self:
        """Any target will do. Among many users, nobody's replies serve another one's drafts."""
        return cls(remembers=target.config.settings.n_sequences == 1)

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """One lookup for each request; replies that are not among them free their index."""
        if requests is not self._requests:
            self._assign(requests)
        drafts: list[Draft] = []
        for request in requests:
            if request.n_tokens == 0:
                drafts.append(NO_DRAFT)
                continue
            index = self._texts[id(request.history)]
            tokens, confidences = index.continuation(request.n_tokens)
            drafts.append(Draft(tokens, self.source, None, confidences) if tokens else _NOTHING)
        return drafts

    def forget(self) -> None:
        """Drop every index."""
        self._requests = ()
        self._texts.clear()
        self._idle.clear()

    def _assign(self, requests: Sequence[DraftRequest]) -> None:
        # An index keeps its history alive, so the id of that list stays unique as a key.
        self._requests, wanted = requests, {id(r.history): r.history for r in requests}
        for key in [key for key in self._texts if key not in wanted]:
            index = self._texts.pop(key)
            if self._remembers:
                self._idle.append(index)
        for key, history in wanted.items():
            if key not in self._texts:
                self._texts[key] = self._begun(history)

    def _begun(self, history: list[int]) -> LookupIndex:
        """The idle index that shares most with `history`, or a new one."""
        idle = self._idle or [LookupIndex()]
        best = idle.pop(idle.index(max(idle, key=lambda each: each.shares(history))))
        best = best if len(best.text) <= MAX_TEXT else LookupIndex()
        best.begin(history)
        return best


_NOTHING = Draft((), LookupDrafter.source)
