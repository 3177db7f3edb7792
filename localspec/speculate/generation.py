"""One reply in progress, without an engine: what to draft, what to evaluate, what stands.

A driver turns the crank:

    choice = generation.choose(offers)          who drafts now, and how much
    tokens = generation.offer(draft)            what to evaluate: the pending token and the draft
    step = generation.observe(logits, cost)     what stood, one more token, and the account of it
    generation.learn(step, seconds)             what the step cost, for the next choice

`offers` are drafts of those drafters that cost nothing.

Plain decoding is a draft of length 0. Between steps a cache should hold all of the history but its
last token, which is pending: it has been chosen but not evaluated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from localspec.engine.base import Logits, shared_prefix
from localspec.engine.sampling import Chooser, Sampling, accept_match, accept_rejection
from localspec.speculate.drafters.base import NO_DRAFT, Draft, DraftRequest, Patience
from localspec.speculate.length import Choice, DraftLength, Situation
from localspec.speculate.step import Step

FinishReason = Literal["stop", "length", "context", "interrupted"]
Verification = Literal["match", "rejection"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a reply ends: at a stop token, after `max_tokens` (None: no limit), at `n_ctx`."""

    n_ctx: int
    max_tokens: int | None = None
    stop_tokens: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step took: seconds of drafting, and of evaluating `n_evaluated` tokens."""

    draft_s: float
    eval_s: float
    n_evaluated: int


class Generation:
    """A reply to `prompt`, a list of token ids that must not be empty."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        length: DraftLength,
        limits: Limits,
        verification: Verification = "match",
    ) -> None:
        assert prompt, "a prompt has at least one token"
        self.history = list(prompt)
        self.n_prompt = len(prompt)
        self.finish_reason: FinishReason | None = None
        self._sampling = sampling
        self._chooser = Chooser(sampling)
        self._length = length
        self._limits = limits
        self._rejects = verification == "rejection" and not sampling.is_greedy
        self._draft: Draft = NO_DRAFT
        self._choice = Choice(0)
        if limits.max_tokens == 0:
            self.finish("length")

    @property
    def tokens(self) -> list[int]:
        """The reply so far."""
        return self.history[self.n_prompt :]

    @property
    def n_tokens(self) -> int:
        return len(self.history) - self.n_prompt

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    def finish(self, reason: FinishReason) -> None:
        """End the reply; the first reason stands."""
        self.finish_reason = self.finish_reason or reason

    def cut(self, n_tokens: int) -> None:
        """End the reply at its first `n_tokens` tokens, because a stop string was found there."""
        del self.history[self.n_prompt + n_tokens :]
        self.finish_reason = "stop"

    def n_offered(self) -> int:
        """How many tokens free drafters should offer; none before the first pass, the prefill."""
        now = self._situation()
        return min(self._length.n_offered(now), now.room) if now.room else 0

    def choose(self, offers: Sequence[Draft] = ()) -> Choice:
        """Who drafts before the next pass, and how much."""
        now = self._situation()
        choice = self._length.choose(now, offers) if now.room else Choice(0)
        self._choice = choice
        return choice

    def _situation(self) -> Situation:
        n_tokens, depth = self.n_tokens, len(self.history)
        room = self._limits.n_ctx - depth if n_tokens else 0
        if self._limits.max_tokens is not None:
            # One token of a pass is never a draft.
            room = min(room, self._limits.max_tokens - n_tokens - 1)
        return Situation(max(0, room), depth, n_tokens)

    def request(
        self, n_tokens: int, patience: Patience | None = None, window: int | None = None
    ) -> DraftRequest:
        """What a drafter needs to know to guess `n_tokens` tokens."""
        return DraftRequest(self.history, n_tokens, self._sampling, self._rejects, patience, window)

    def offer(self, draft: Draft) -> list[int]:
        """Take a draft; the tokens to evaluate now, with logits wanted for each."""
        if not self._choice.verified:
            self._length.watch(draft)
            draft = NO_DRAFT
        self._draft = draft
        return [self.history[-1], *draft.tokens]

    def observe(self, logits: Logits, cost: Cost) -> Step:
        """Accept what stands of the draft and choose one more token; a row of logits each."""
        start = len(self.history)
        self._accept(logits)
        new = self._end_at_limits(self.history[start:])
        del self.history[start + len(new) :]
        drafted = self._draft.tokens
        n_accepted = shared_prefix(new, drafted) if drafted else 0
        step = Step(
            tokens=tuple(new),
            drafted=len(drafted),
            accepted=n_accepted,
            source=self._draft.source,
            evaluated=cost.n_evaluated,
            draft_s=cost.draft_s,
            eval_s=cost.eval_s,
            qualities=self._draft.qualities,
            why=self._choice.why,
        )
        self._draft, self._choice = NO_DRAFT, Choice(0)
        return step

    def learn(self, step: Step, seconds: float) -> None:
        """Tell the policy what a step came to; `seconds` is all of it."""
        self._length.learn(step, seconds)

    def _accept(self, logits: Logits) -> None:
        draft = self._draft
        if self._rejects and draft.distributions is not None:
            pairs = list(zip(draft.tokens, draft.distributions, strict=True))
            accept_rejection(pairs, logits, self._chooser, self.history)
        else:
            accept_match(draft.tokens, logits, self._chooser, self.history)

    def _end_at_limits(self, new: list[int]) -> list[int]:
        """Cut new tokens at the first reason to end, the same however many came at once."""
        stops = self._limits.stop_tokens
        n_before = self.n_tokens - len(new)
        n_stop = None if stops.isdisjoint(new) else next(i for i, t in enumerate(new) if t in stops)
        if n_stop is not None:
            new = new[:n_stop]
        left = None if self._limits.max_tokens is None else self._limits.max_tokens - n_before
        if left is not None and len(new) >= left:
            self.finish("length")
            return new[:left]
        if n_stop is not None:
            self.finish("stop")
        elif self.n_prompt + n_before + len(new) > self._limits.n_ctx:
            self.finish("context")
        return new
