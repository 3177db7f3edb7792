"""A smaller model drafts: token by token, on a context of its own.

Its cache catches up lazily: after verification it already holds the accepted part of its own draft,
so only what it lacks is evaluated, in the same decode as the first drafted token. Nothing is
evaluated twice, and nothing at all while it is not asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from localspec.engine.base import Context, Engine, Logits, missing, shared_prefix
from localspec.engine.randomness import Purpose, uniform
from localspec.engine.sampling import Chooser, Distribution
from localspec.speculate.drafters.base import Draft, DraftRequest


@dataclass(slots=True)
class _Progress:
    """One draft in the making."""

    request: DraftRequest
    context: Context
    chooser: Chooser
    n_tokens: int
    tokens: list[int] = field(default_factory=list[int])
    distributions: list[Distribution] = field(default_factory=list[Distribution])

    @property
    def is_done(self) -> bool:
        return len(self.tokens) >= self.n_tokens

    def take(self, logits: Logits) -> None:
        """Choose the next token from its logits."""
        history = self.request.history
        text = [*history[-self.chooser.window :], *self.tokens]
        if not self.request.wants_distributions:
            self.tokens.append(self.chooser.greedy(logits, 0, text))
            return
        q = self.chooser.distribution(logits, 0, text)
        number = uniform(self.chooser.sampling.seed, len(history) + len(self.tokens), Purpose.DRAFT)
        self.tokens.append(q.draw(number))
        self.distributions.append(q)

    def draft(self, source: str) -> Draft:
        return Draft(
            self.tokens, source, self.distributions if self.request.wants_distributions else None
        )


class ModelDrafter:
    """Drafts with an engine whose vocabulary is the target's in its first `n_vocab` ids."""

    source = "model"

    def __init__(self, engine: Engine, n_vocab: int) -> None:
        self._engine = engine
        self._surplus = frozenset(range(n_vocab, engine.vocabulary.n_tokens))
        self._free = [engine.context() for _ in range(engine.config.n_sequences)]
        self._replies: dict[int, tuple[list[int], Context]] = {}
        self._n_known: dict[int, int] = {}

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """Draft for all requests, with one decode of the draft engine for each further position."""
        self._assign(requests)
        drafts = [self._begin(request) for request in requests]
        active = [draft for draft in drafts if not draft.is_done]
        pending = [self._missing(draft) for draft in active]
        while active:
            jobs = [(d.context, tokens, 1) for d, tokens in zip(active, pending, strict=True)]
            for draft, logits in zip(active, self._engine.decode(jobs), strict=True):
                draft.take(logits)
            active = [draft for draft in active if not draft.is_done]
            pending = [draft.tokens[-1:] for draft in active]
        return [draft.draft(self.source) for draft in drafts]

    def _assign(self, requests: Sequence[DraftRequest]) -> None:
        """Give each reply the context that already holds most of it; free those of others."""
        wanted = {id(r.history): r.history for r in requests}
        for key in [key for key in self._replies if key not in wanted]:
            self._free.append(self._replies.pop(key)[1])
            del self._n_known[key]
        for key, history in wanted.items():
            if key not in self._replies:
                best = max(self._free, key=lambda c: shared_prefix(c.tokens, history))
                self._free.remove(best)
                self._replies[key] = history, best
                self._n_known[key] = 0

    def _begin(self, request: DraftRequest) -> _Progress:
        n_vocab = self._engine.vocabulary.n_tokens
        banned = {token for token in request.sampling.banned | self._surplus if token < n_vocab}
        chooser = Chooser(replace(request.sampling, banned=frozenset(banned)))
        # The last drafted token is not evaluated, hence one more than the context has room for.
        room = self._engine.config.n_ctx - len(request.history) + 1
        if any(token >= n_vocab for token in request.history[self._n_known[id(request.history)] :]):
            room = 0  # the target's vocabulary is larger, and the text has gone where it ends
        context = self._replies[id(request.history)][1]
        return _Progress(request, context, chooser, min(request.n_tokens, room))

    def _missing(self, draft: _Progress) -> Sequence[int]:
        """What the context lacks of the history, once it is rolled back to what they share."""
        history, key = draft.request.history, id(draft.request.history)
        tokens = missing(draft.context, history, 1, self._n_known[key])
        self._n_known[key] = len(history)
        return tokens
