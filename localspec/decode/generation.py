"""One reply in progress, without an engine and without a policy: it accepts tokens until it ends.

Whoever drives it evaluates the last token of `history`, which is pending, and a draft behind it,
with logits for each of these. `accept` takes what the verification accepts of the draft, and one
token more. Plain decoding is a draft of length 0. Between passes a cache should hold all of the
history but its last token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from localspec.decode.drafters.base import Draft, DraftRequest, StopRule
from localspec.decode.logprobs import Likelihoods, TokenLogprobs
from localspec.engine.base import Context, Result
from localspec.engine.constraint import Constraint
from localspec.engine.sampling import Chooser, Least, Sampling, accept_match, accept_rejection
from localspec.errors import LocalspecError

FinishReason = Literal["stop", "length", "context", "interrupted", "failed"]
Verification = Literal["match", "rejection"]
Law = Literal["greedy", "match", "rejection"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a reply ends: at a stop token, after `max_tokens` (None: no limit), at `n_ctx`. Before
    `min_tokens` no stop token is chosen."""

    n_ctx: int
    max_tokens: int | None = None
    stop_tokens: frozenset[int] = frozenset()
    min_tokens: int = 0


class Generation:
    """A reply to `prompt`, a list of token ids that must not be empty.

    `law` says how drafts are verified: greedy, by match or by rejection (engine/sampling.py). Where
    a request fails, `error` says why, and `finish_reason` is "failed". A `constraint` is kept at
    each position of a draft, too. `likelihoods`: with each token its `logprobs`; None: without.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        limits: Limits,
        verification: Verification = "match",
        constraint: Constraint | None = None,
        likelihoods: Likelihoods | None = None,
    ) -> None:
        assert prompt, "a prompt has at least one token"
        self.history = list(prompt)
        self.n_prompt = len(prompt)
        self.limits = limits
        self.law: Law = "greedy" if sampling.is_greedy else verification
        self.finish_reason: FinishReason | None = None
        self.error: LocalspecError | None = None
        self.context: Context | None = None
        """Whose cache it runs on, for drafters that read the target's hidden states."""
        self.logprobs: list[TokenLogprobs] = []
        """Of each token of the reply."""
        self._sampling = sampling
        self._likelihoods = likelihoods
        self.tells_chances = likelihoods is not None
        self._constraint = constraint
        least = Least(self.n_prompt + limits.min_tokens, limits.stop_tokens)
        is_short = limits.min_tokens and limits.stop_tokens
        self._chooser = Chooser(sampling, constraint, least if is_short else None)
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

    @property
    def room(self) -> int:
        """The longest draft that is allowed now; 0 before the first pass, the prefill."""
        depth = len(self.history)
        if depth == self.n_prompt:
            return 0
        room = self.limits.n_ctx - depth
        if self.limits.max_tokens is not None:
            # One token of a pass is never a draft.
            room = min(room, self.limits.max_tokens - (depth - self.n_prompt) - 1)
        return max(0, room)

    def request(
        self, n_tokens: int, stop: StopRule | None = None, window: int | None = None
    ) -> DraftRequest:
        """What a drafter needs to know to guess `n_tokens` tokens, at most `room`."""
        rejects = self.law == "rejection"
        return DraftRequest(
            self.history,
            n_tokens,
            self._sampling,
            rejects,
            stop,
            window,
            self.context,
            self._constraint,
        )

    def accept(self, draft: Draft, result: Result) -> list[int]:
        """Accept what is right of the draft and choose one more token; a row of logits each.

        The answer is what the reply grew by. An error in place of the rows, or rows that hold NaN,
        end the reply as failed.
        """
        start = len(self.history)
        try:
            if isinstance(result, LocalspecError):
                raise result
            if self.law == "rejection" and draft.distributions is not None:
                drawn = list(zip(draft.tokens, draft.distributions, strict=True))
                accept_rejection(drawn, result, self._chooser, self.history)
            else:
                accept_match(draft.tokens, result, self._chooser, self.history)
        except LocalspecError as error:
            if self.limits.stop_tokens.isdisjoint(self.history[start:]):
                del self.history[start:]
                self.fail(error)
                return []
            # What failed lies behind the end, where only a draft made anybody look.
        new = self._end_at_limits(self.history[start:], start - self.n_prompt)
        del self.history[start + len(new) :]
        if self._likelihoods is not None:
            self._judge(new, result, self._likelihoods)
        if self._constraint and not self.is_finished and self._constraint.is_done(self.history):
            self.finish("stop")  # only an end can follow: no pass is needed to see it
        return new

    def _judge(self, new: Sequence[int], result: Result, wanted: Likelihoods) -> None:
        """Note how likely the model found new tokens."""
        start = len(self.history) - len(new)
        if isinstance(result, LocalspecError):
            return
        for i, token in enumerate(new):
            if wanted.drawn:
                found = self._chooser.distribution(result, i, self.history[: start + i])
                self.logprobs.append(TokenLogprobs.drawn(found, token, wanted.n_top))
            else:
                self.logprobs.append(TokenLogprobs.of(result.row(i), token, wanted.n_top))

    def newest_logprobs(self, n: int) -> Sequence[TokenLogprobs]:
        """Of the newest tokens, if they are wanted."""
        return self.logprobs[len(self.logprobs) - n :] if n and self.logprobs else ()

    def finish(self, reason: FinishReason) -> None:
        """End the reply; the first reason stands."""
        self.finish_reason = self.finish_reason or reason

    def fail(self, error: LocalspecError) -> None:
        """End the reply because of an error."""
        self.error = error
        self.finish("failed")

    def cut(self, n_tokens: int) -> None:
        """End the reply at its first `n_tokens` tokens, because a stop string was found there."""
        del self.history[self.n_prompt + n_tokens :]
        del self.logprobs[n_tokens:]
        self.finish_reason = "stop"

    def _end_at_limits(self, new: list[int], n_before: int) -> list[int]:
        """Cut new tokens at the first reason to end, the same however many came at once."""
        limits = self.limits
        is_stopped = not limits.stop_tokens.isdisjoint(new)
        if is_stopped:
            new = new[: next(i for i, token in enumerate(new) if token in limits.stop_tokens)]
        if limits.max_tokens is not None and n_before + len(new) >= limits.max_tokens:
            self.finish("length")
            return new[: limits.max_tokens - n_before]
        if is_stopped:
            self.finish("stop")
        elif self.n_prompt + n_before + len(new) > limits.n_ctx:
            self.finish("context")
        return new
