"""The seam between localspec and an engine: what the rest of the program may ask of one.

One verb evaluates: prefill, decode and verification are the same call with another number of tokens
and of wanted logits. One verb forgets: `go_back`. It never evaluates, so a memory that cannot go
back to a place goes back further, perhaps to a `checkpoint`, and whoever needs the tokens between
evaluates and counts them. `tokens` is the truth about what a cache holds, and `hold` builds
everything else (chat turns, prompt reuse, draft catch-up) from those three. What crosses the seam
are plain values, so that an engine can stand in another process.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from localspec.engine.vocabulary import Vocabulary
from localspec.errors import LocalspecError, ModelError
from localspec.model.facts import HeadFacts
from localspec.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything that an engine is built from; every setting is decided.

    `n_outputs`: the most rows of logits that one decode returns.
    """

    model: Path
    settings: Settings
    n_outputs: int = 1

    @classmethod
    def of(cls, model: Path, n_outputs: int = 1, **settings: Any) -> Self:
        """With settings by name. Raises UserError for an unknown one."""
        return cls(model, Settings.of(**settings), n_outputs)

    def with_settings(self, **changes: Any) -> Self:
        return replace(self, settings=replace(self.settings, **changes))

    @property
    def n_ctx(self) -> int:
        """A sequence's limit in tokens."""
        assert self.settings.ctx is not None, "the context is decided before an engine is built"
        return self.settings.ctx

    @property
    def n_threads(self) -> int:
        """For passes over one token."""
        assert self.settings.threads is not None, "threads are decided before an engine is built"
        return self.settings.threads

    @property
    def n_threads_batch(self) -> int:
        """For longer passes."""
        return self.settings.threads_batch or self.n_threads


def require_number(highest: "np.float32 | float") -> None:
    """ModelError for a row whose maximum is NaN, which NumPy prefers to any number."""
    if highest != highest:  # what only NaN is, and cheaper than isnan
        raise ModelError("the model produced NaN logits: download it again")


class Logits(Protocol):
    """Rows of unnormalised scores, one a wanted position; they die at the engine's next decode.

    A row that is looked at and holds NaN raises ModelError.
    """

    def row(self, i: int) -> "npt.NDArray[np.float32]":
        """Scores of row `i`, shape (n_vocab,), a view: copy what must live longer."""
        ...

    def argmax(self, i: int) -> int:
        """The id with the highest score in row `i`."""
        ...


class Holder(Protocol):
    """What holds tokens, evaluates more and takes them back."""

    @property
    def tokens(self) -> Sequence[int]:
        """What the cache holds, in order. Not to be changed from outside."""
        ...

    def eval(self, tokens: Sequence[int], n_logits: int) -> Logits:
        """Append `tokens` to the cache and return logits for the last `n_logits` of them.

        Raises EngineError where the sequence would outgrow its limit, else as `Engine.decode`.
        """
        ...

    def go_back(self, n: int) -> None:
        """Keep the first `n` tokens, or as many of them as can be kept without evaluating any."""
        ...


class Context(Holder, Protocol):
    """One sequence in an engine's cache."""

    @property
    def engine(self) -> "Engine":
        """Whose cache it is in."""
        ...

    def truncate(self, n: int) -> None:
        """Keep exactly the first `n` tokens: by `go_back`, and by evaluating what that lost."""
        ...

    def fork(self, other: "Context", n: int) -> None:
        """Hold the first `n` tokens that `other` holds, without evaluating any: both share the
        cells. Where the memory cannot share them, nothing changes."""
        ...

    def checkpoint_place(self, n: int) -> int | None:
        """Where to `checkpoint` while evaluating up to `n` tokens, so that `go_back(n)` later
        loses little; None where this memory needs none there."""
        ...

    def checkpoint(self) -> None:
        """Remember this place for `go_back`, where the memory needs that; the newest are kept."""
        ...

    def save(self, path: Path) -> None:
        """Write what the cache holds, with its tokens, to a file. EngineError where that fails."""
        ...

    def restore(self, path: Path) -> bool:
        """Hold what an engine of the same `state_key` saved; False and empty if it does not fit."""
        ...

    @property
    def state_bytes(self) -> int:
        """The size of what `save` writes."""
        ...


Request = tuple[Context, Sequence[int], int]
"""A context, the tokens to append, and for how many of the last ones logits are wanted."""

Result = Logits | LocalspecError
"""Of a request: its rows, or the error that ends this request alone."""


class HeadRow(Logits, Protocol):
    """A row of a draft head. `chance`: that its best token is accepted, where the head says it."""

    chance: float | None


HeadRequest = tuple[Context, Sequence[int]]
"""A context, and the tokens that follow what it holds: the pending one, and those drafted since."""


class Head(Protocol):
    """A draft head beside an engine. It reads hidden states of the engine's passes, which stay on
    the engine's side of the seam."""

    facts: HeadFacts
    n_longest: int
    """The longest draft that it can make."""

    def draft(self, requests: Sequence[HeadRequest], window: int = ...) -> Sequence[HeadRow]:
        """One row for each request: scores of what comes next, as `Engine.decode` of a draft model
        would give. A draft is asked for token by token, from its pending one on.

        Of a context that is new to it, it reads at most `window` tokens, and at most those whose
        hidden states were kept. Raises EngineError.
        """
        ...

    def rows(self, context: Context, token: int, window: int = ...) -> Generator[HeadRow, int]:
        """The same for one context and its pending token, in less time: a row for each token of a
        draft, to be sent the one that was chosen from it. Nothing else may be asked meanwhile."""
        ...

    def is_ready(self, context: Context) -> bool:
        """Whether the hidden state behind what `context` holds was kept. It is from the next pass
        on if not; a head that is not asked for some passes costs them nothing."""
        ...


class Engine(Protocol):
    """A loaded model with a cache for one or more sequences."""

    @property
    def config(self) -> EngineConfig: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def rollback_limit(self) -> int | None:
        """How many of the last decode's tokens can be forgotten at no cost, but one that stays;
        0: none, None: all, and earlier ones."""
        ...

    def context(self) -> Context:
        """A new, empty sequence; at most `config.settings.n_sequences` of them."""
        ...

    def decode(self, requests: Sequence[Request]) -> Sequence[Result]:
        """Evaluate all requests in one decode (in several where they exceed a micro-batch),
        synchronised; a result for each.

        A request that would outgrow its sequence's limit gives an EngineError and is not
        evaluated. Raises EngineError where the engine fails for all, Interrupted on request; either
        way every context's `tokens` says what its cache then holds.
        """
        ...

    def close(self) -> None:
        """Free everything; a second call does nothing."""
        ...


def rows_of(result: Result) -> Logits:
    """The rows of a result; raises its error if it has none."""
    if isinstance(result, LocalspecError):
        raise result
    return result


def shared_prefix(a: Sequence[int], b: Sequence[int], known: int = 0) -> int:
    """How many leading tokens `a` and `b` share; the first `known` are taken on trust."""
    end = min(len(a), len(b))
    if a[known:end] == b[known:end]:
        return end
    return next((i for i in range(known, end) if a[i] != b[i]), end)


def missing(context: Holder, tokens: Sequence[int], n_logits: int, known: int = 0) -> Sequence[int]:
    """Take `context` back to what it shares with `tokens`; what is left to evaluate of them.

    The last `n_logits` are left in any case, because only evaluation yields logits. `known` tokens
    at the start are known to be shared already.
    """
    kept = min(shared_prefix(context.tokens, tokens, known), len(tokens) - n_logits)
    context.go_back(kept)
    return tokens[len(context.tokens) :]


def hold(context: Holder, tokens: Sequence[int], n_logits: int) -> Logits:
    """Make `context` hold exactly `tokens`, evaluating only what it does not share with them."""
    return context.eval(missing(context, tokens, n_logits), n_logits)


class HeldTokens:
    """What every context does alike with the tokens that it holds."""

    tokens: list[int]
    """What the cache holds, in order. Not to be changed from outside."""

    def eval(self: Context, tokens: Sequence[int], n_logits: int) -> Logits:
        return rows_of(self.engine.decode([(self, tokens, n_logits)])[0])

    def truncate(self: Context, n: int) -> None:
        """Keep exactly the first `n` tokens: by rollback, else by evaluating some again."""
        assert 0 <= n <= len(self.tokens), f"{len(self.tokens)} tokens held, {n} to keep"
        wanted = list(self.tokens[:n])
        self.go_back(n)
        if len(self.tokens) < n:
            self.eval(wanted[len(self.tokens) :], 0)
