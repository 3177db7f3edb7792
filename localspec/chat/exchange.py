"""One answer: usually one reply, several where old turns were dropped in the middle of it."""

from dataclasses import dataclass, field

from localspec.session import Reply


@dataclass(slots=True)
class Exchange:
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
        return self.replies[0].stopwatch.n_prefilled if self.replies else 0

    @property
    def n_context(self) -> int:
        """Tokens of the conversation at the end; in a full context the last has no place."""
        last = self.replies[-1] if self.replies else None
        return last.n_prompt_tokens + len(last.tokens) if last else 0

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token."""
        return self.replies[0].stopwatch.ttft_s if self.replies else None

    @property
    def prefill_tps(self) -> float | None:
        return self.replies[0].stopwatch.prefill_tps if self.replies else None

    @property
    def decode_s(self) -> float:
        """Seconds from first to last token, without pauses."""
        total = sum(reply.stopwatch.decode_s or 0.0 for reply in self.replies)
        return max(0.0, total - self.paused_s)

    @property
    def decode_tps(self) -> float | None:
        """Tokens after the first pass's, per second of `decode_s`."""
        watches = [reply.stopwatch for reply in self.replies]
        n_tokens = sum(watch.n_tokens - watch.n_first for watch in watches)
        return n_tokens / self.decode_s if n_tokens and self.decode_s else None

    @property
    def passes(self) -> int:
        return sum(reply.counts.passes for reply in self.replies)

    @property
    def drafted(self) -> int:
        return sum(reply.counts.drafted for reply in self.replies)

    @property
    def accepted(self) -> int:
        return sum(reply.counts.accepted for reply in self.replies)

    @property
    def tokens_per_pass(self) -> float | None:
        return sum(r.counts.tokens for r in self.replies) / self.passes if self.passes else None

    @property
    def by_source(self) -> dict[str, tuple[int, int]]:
        """Drafted and accepted tokens by who drafted them."""
        counts: dict[str, tuple[int, int]] = {}
        for reply in self.replies:
            for source, count in reply.counts.by_source.items():
                drafted, accepted = counts.get(source, (0, 0))
                counts[source] = drafted + count.drafted, accepted + count.accepted
        return counts
