"""A smaller model drafts: token by token, on a context of its own.

Its cache catches up lazily: after verification it already holds the accepted part of its own draft,
so only what it lacks is evaluated, in the same decode as the first drafted token. Nothing is
evaluated twice, and nothing at all while it is not asked. A request with a `window` lets it read
only that much of a long text before its first draft, and the first few tokens, on which attention
leans (Xiao et al. 2023): reading all of a prompt twice would cost more than short replies can win
back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from localspec.decode.drafters.base import Draft, DraftRequest
from localspec.decode.drafters.unfinished import N_CONFIDENCES, UnfinishedDraft, complete
from localspec.engine.base import (
    Context,
    Engine,
    Head,
    Logits,
    missing,
    rows_of,
    shared_prefix,
)
from localspec.engine.sampling import Chooser

N_SINKS = 4
"""First tokens of a text that are read in any case."""


@dataclass(slots=True, eq=False)
class DraftView:
    """What the draft model reads of one reply's history: `text`, at the end of which it drafts."""

    context: Context
    history: list[int] = field(default_factory=list[int])
    text: list[int] = field(default_factory=list[int])
    start: int = 0
    """Where in the history the part after the sinks begins; 0: all of it is read."""
    n_seen: int = 0
    """Tokens of the history that `text` covers."""
    n_known: int = 0
    """Tokens of `text` that the context is known to have been told of."""

    def shares(self, history: list[int]) -> int:
        """How much of `history` the text covers already."""
        n_shared = shared_prefix(self.history[: self.n_seen], history)
        return n_shared if n_shared > self.start else 0

    def follow(self, history: list[int], window: int | None = None) -> None:
        """Cover all of `history`, or its last `window` tokens if that is shorter to read."""
        if history is not self.history:
            n_shared = self.shares(history)
            if n_shared:
                del self.text[n_shared - self.start + (N_SINKS if self.start else 0) :]
            else:
                self.text, self.start = [], 0
            self.history, self.n_seen, self.n_known = history, n_shared, 0
        if window is not None and len(history) - self.n_seen > window + N_SINKS:
            self.start = len(history) - window
            self.text = [*history[:N_SINKS], *history[self.start :]]
            self.n_known = 0
        else:
            self.text.extend(history[self.n_seen :])
        self.n_seen = len(history)

    def missing(self) -> Sequence[int]:
        """What the context lacks of the text, once it is rolled back to what they share."""
        tokens = missing(self.context, self.text, 1, self.n_known)
        self.n_known = len(self.text)
        return tokens

    def forget(self) -> None:
        """Cover nothing."""
        self.history, self.text, self.start, self.n_seen, self.n_known = [], [], 0, 0, 0
        self.context.truncate(0)


class ModelDrafter:
    """Drafts with an engine whose vocabulary is the target's in its first `n_vocab` ids.

    The engine needs a sequence for each reply that is drafted for at once.
    """

    source: ClassVar[str] = "model"
    option: ClassVar[str] = "draft"
    label: ClassVar[str] = "draft model"
    is_free: ClassVar[bool] = False
    n_confidences: ClassVar[int] = N_CONFIDENCES
    n_longest: int | None = None
    is_at_once: bool = False

    def __init__(self, engine: Engine, n_vocab: int) -> None:
        self._engine = engine
        self._surplus = frozenset(range(n_vocab, engine.vocabulary.n_tokens))
        self._free = [
            DraftView(engine.context()) for _ in range(engine.config.settings.n_sequences)
        ]
        self._views: dict[int, DraftView] = {}
        self._n_checked: dict[int, int] = {}
        self._choosers: dict[int, Chooser] = {}

    @classmethod
    def of(cls, target: Engine, draft: Engine | None, head: Head | None) -> Self | None:
        """None without a draft model."""
        return cls(draft, target.vocabulary.n_tokens) if draft else None

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """Draft for all requests, with one decode of the draft engine for each further position.

        Raises EngineError or ModelError where the draft model fails.
        """
        self._assign(requests)
        drafts = [self._begin(request) for request in requests]
        complete(drafts, self._rows)
        return [draft.draft(self.source) for draft in drafts]

    def _rows(
        self, drafts: Sequence[UnfinishedDraft[DraftView]]
    ) -> list[tuple[Logits, float | None]]:
        jobs = [(d.place.context, d.tokens[-1:] or d.place.missing(), 1) for d in drafts]
        return [(rows_of(result), None) for result in self._engine.decode(jobs)]

    def forget(self) -> None:
        """Drop what the contexts are known to share with replies; the next draft reads anew."""
        self._assign(())
        for view in self._free:
            view.forget()

    def _assign(self, requests: Sequence[DraftRequest]) -> None:
        """Give each reply the view that already covers most of it; free those of others."""
        wanted = {id(r.history): r.history for r in requests}
        for key in [key for key in self._views if key not in wanted]:
            self._free.append(self._views.pop(key))
            del self._n_checked[key], self._choosers[key]
        for key, history in wanted.items():
            if key not in self._views:
                best = max(self._free, key=lambda view: view.shares(history))
                self._free.remove(best)
                self._views[key] = best
                self._n_checked[key] = 0

    def _begin(self, request: DraftRequest) -> UnfinishedDraft[DraftView]:
        key, history = id(request.history), request.history
        n_vocab = self._engine.vocabulary.n_tokens
        chooser = self._chooser(request)
        if request.n_tokens == 0:
            return UnfinishedDraft(request, self._views[key], chooser, 0)
        if any(token >= n_vocab for token in history[self._n_checked[key] :]):
            # The target's vocabulary is larger, and the text has gone where the draft's ends.
            return UnfinishedDraft(request, self._views[key], chooser, 0)
        self._n_checked[key] = len(history)
        view = self._views[key]
        view.follow(history, request.window)
        # The last drafted token is not evaluated, hence one more than the context has room for.
        room = self._engine.config.n_ctx - len(view.text) + 1
        n_tokens = min(request.n_tokens, room)
        return UnfinishedDraft(request, view, chooser, n_tokens)

    def _chooser(self, request: DraftRequest) -> Chooser:
        """The reply's, which never draws ids that only one of the two vocabularies has."""
        key = id(request.history)
        if key not in self._choosers:
            n_vocab = self._engine.vocabulary.n_tokens
            sampling = request.sampling
            banned = frozenset(t for t in sampling.banned | self._surplus if t < n_vocab)
            bias = tuple(pair for pair in sampling.bias if pair[0] < n_vocab)
            self._choosers[key] = Chooser(replace(sampling, banned=banned, bias=bias))
        return self._choosers[key]
