"""One answer: usually one reply, several where old turns were dropped in the middle of it.

Whether an answer will fit into the context, seen before it is begun.

An answer needs room of its own; how much is not known, so a share of the context is kept free for
it. Dropping turns means that what is left is read again, so it is done seldom and in bulk: down to
half of the context. The system prompt and the newest message always stay.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from localspec.errors import UserError
from localspec.session import Reply


@dataclass(slots=True)
class AnswerRun:
    """`seed` is that of its sampling; `paused_s` what went by while the program was suspended;
    `was_left`: by a second Ctrl-C."""

    seed: int
    replies: list[Reply] = field(default_factory=list[Reply])
    paused_s: float = 0.0
    was_left: bool = False

    @property
    def text(self) -> str:
        return "".join(reply.text for reply in self.replies)

    @property
    def tokens(self) -> list[int]:
        return [token for reply in self.replies for token in reply.tokens]

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        reason = self.replies[-1].finish_reason if self.replies else None
        return "interrupted" if self.was_left or reason is None else reason

    @property
    def n_prompt(self) -> int:
        return self.replies[0].n_prompt_tokens if self.replies else 0

    @property
    def n_evaluated(self) -> int:
        """Prompt tokens that were not in the cache."""
        return self.replies[0].timings.n_prefilled if self.replies else 0

    @property
    def n_context(self) -> int:
        """Tokens of the conversation at the end; in a full context the last has no place."""
        last = self.replies[-1] if self.replies else None
        return last.n_prompt_tokens + len(last.tokens) if last else 0

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token."""
        return self.replies[0].timings.ttft_s if self.replies else None

    @property
    def prefill_tps(self) -> float | None:
        return self.replies[0].timings.prefill_tps if self.replies else None

    @property
    def decode_s(self) -> float:
        """Seconds from first to last token, without pauses."""
        total = sum(reply.timings.decode_s or 0.0 for reply in self.replies)
        return max(0.0, total - self.paused_s)

    @property
    def decode_tps(self) -> float | None:
        """Tokens after the first pass's, per second of `decode_s`."""
        watches = [reply.timings for reply in self.replies]
        n_tokens = sum(watch.n_tokens - watch.n_first for watch in watches)
        return n_tokens / self.decode_s if n_tokens and self.decode_s else None

    @property
    def passes(self) -> int:
        return sum(reply.stats.passes for reply in self.replies)

    @property
    def drafted(self) -> int:
        return sum(reply.stats.drafted for reply in self.replies)

    @property
    def accepted(self) -> int:
        return sum(reply.stats.accepted for reply in self.replies)

    @property
    def tokens_per_pass(self) -> float | None:
        return sum(r.stats.tokens for r in self.replies) / self.passes if self.passes else None

    @property
    def by_source(self) -> dict[str, tuple[int, int]]:
        """Drafted and accepted tokens by who drafted them."""
        counts: dict[str, tuple[int, int]] = {}
        for reply in self.replies:
            for source, count in reply.stats.by_source.items():
                drafted, accepted = counts.get(source, (0, 0))
                counts[source] = drafted + count.drafted, accepted + count.accepted
        return counts


WhenFull = Literal["ask", "drop", "stop"]
MAX_RESERVE = 512
SHARE_RESERVED = 4
SHARE_KEPT = 2


@dataclass(frozen=True, slots=True)
class Shortage:
    """A prompt that leaves less than `n_reserve` of `n_ctx` tokens; `n_droppable` turns could go
    and then it would have `n_after` tokens."""

    n_prompt: int
    n_ctx: int
    n_reserve: int
    n_droppable: int
    n_after: int

    @property
    def n_left(self) -> int:
        """Tokens that an answer could still have."""
        return self.n_ctx - self.n_prompt

    @property
    def can_drop(self) -> bool:
        return self.n_droppable > 0 and self.n_after < self.n_ctx

    def refusal(self) -> UserError:
        """Why nothing can be answered."""
        return UserError(
            f"the conversation has {self.n_prompt:,} tokens and the context holds {self.n_ctx:,}:"
            " /undo or /clear, `/full drop` to let old turns go, or a larger --ctx"
        )


def reserve(n_ctx: int, max_tokens: int | None) -> int:
    """Tokens to keep free for an answer."""
    usual = min(MAX_RESERVE, n_ctx // SHARE_RESERVED)
    return usual if max_tokens is None else min(usual, max_tokens)


def shortage(
    count: Callable[[int], int], n_turns: int, n_ctx: int, n_reserve: int
) -> Shortage | None:
    """None where there is room. `count(k)`: tokens of the prompt without its first `k` turns."""
    n_prompt = count(0)
    if n_prompt + n_reserve <= n_ctx:
        return None
    target = min(n_ctx // SHARE_KEPT, n_ctx - n_reserve)
    n_droppable = _fewest(lambda k: count(k) <= target, n_turns - 1)
    return Shortage(n_prompt, n_ctx, n_reserve, n_droppable, count(n_droppable))


def _fewest(is_enough: Callable[[int], bool], most: int) -> int:
    """The smallest number up to `most` that is enough, else `most`."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low
