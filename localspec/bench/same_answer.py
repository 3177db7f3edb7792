"""Drafts never change an answer: greedy replies with and without drafts, and where they part.

Batches of different width use different kernels, which round differently. Two greedy answers may
part only at a near tie: there the margin between the two best logits is at most twice the largest
difference of logits that this configuration shows between single-token and verification passes.
This covers greedy choice only; tests of the sampling chain cover the law of samples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from localspec.dialogue.template import Message
from localspec.engine.base import Context, hold
from localspec.engine.sampling import Sampling
from localspec.notify import Notify, silent
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

FEW_TOKENS = 512
"""Answers below this length are identical on a processor with default settings."""
TEXTS = (
    "Repeat after me: the quick brown fox jumps over the lazy dog, the quick brown fox sleeps.",
    "Write a Python function that adds the numbers in a list, and a second one that multiplies.",
    "Who was the first person on the moon, and when?",
    "Übersetze ins Englische: Der Müller schließt um zwölf Uhr das Tor. 🚪",
    "List the days of the week, then list them again in reverse.",
    "Tom has 3 apples and buys 4 more. He gives 2 to Ann. How many has he? Explain each step.",
)
"""The default questions: copying, code, facts, bytes beyond ASCII, lists, sums."""
Tokens = Sequence[int]


@dataclass(frozen=True, slots=True)
class AnswerDivergence:
    """Where an answer parts from the plain one; `margin` and `largest_difference` are logits."""

    position: int
    margin: float
    largest_difference: float

    @property
    def is_excused(self) -> bool:
        """Whether this is a near tie, within the rounding seen here."""
        return self.margin <= 2 * self.largest_difference


@dataclass(frozen=True, slots=True)
class Answers:
    """Replies of one configuration to the same prompts; `widest` is its longest pass."""

    way: str
    prompts: list[list[int]]
    replies: list[list[int]]
    n_passes: int
    widest: int

    @property
    def tokens_per_pass(self) -> float | None:
        return sum(map(len, self.replies)) / self.n_passes if self.n_passes else None


@dataclass(frozen=True, slots=True)
class AnswerComparison:
    """Plain answers and drafted ones; `divergences` by way and number of the prompt."""

    plain: SessionConfig
    answers: tuple[Answers, ...]
    divergences: dict[tuple[str, int], AnswerDivergence]

    @property
    def n_unexplained(self) -> int:
        return sum(not found.is_excused for found in self.divergences.values())

    def to_json(self) -> dict[str, Any]:
        """For `--json`: counts of prompts and tokens are those of plain decoding."""
        plain, *drafted = self.answers
        lengths = [len(p) + len(a) for p, a in zip(plain.prompts, plain.replies, strict=True)]
        return {
            "model": str(self.plain.model),
            "ways": [answers.way for answers in drafted],
            "prompts": len(lengths),
            "over_512_tokens": sum(n > FEW_TOKENS for n in lengths),
            "tokens": sum(map(len, plain.replies)),
            "tokens_per_pass": {answers.way: answers.tokens_per_pass for answers in self.answers},
            "divergences": [
                {"way": way, "prompt": i, **asdict(found), "excused": found.is_excused}
                for (way, i), found in self.divergences.items()
            ],
            "unexplained": self.n_unexplained,
        }

    @property
    def text(self) -> str:
        """For people: a line, and one for each divergence."""
        plain, *drafted = self.answers
        n = len(drafted) * len(plain.prompts)
        rates = ", ".join(f"{a.way} {a.tokens_per_pass or 0:.2f}" for a in self.answers)
        lines = [
            f"{self.plain.model.stem}: {n - len(self.divergences)} of {n} drafted answers equal the"
            f" plain ones ({sum(map(len, plain.replies)):,} tokens; tokens a pass: {rates})"
        ]
        lines += [
            f"  {way}, prompt {i}: parts at token {found.position}, margin {found.margin:.3f},"
            f" largest difference of logits {found.largest_difference:.3f}:"
            f" {'rounding' if found.is_excused else 'NOT EXPLAINED'}"
            for (way, i), found in self.divergences.items()
        ]
        return "\n".join(lines)


def by_plain(configs: Iterable[SessionConfig]) -> dict[SessionConfig, list[SessionConfig]]:
    """Drafting configurations by the plain one whose answers they must give."""
    found: dict[SessionConfig, list[SessionConfig]] = {}
    for config in configs:
        if config.settings.spec != "none":
            plain = config.with_settings(spec="none", draft="none", draft_max=None)
            found.setdefault(plain, []).append(config)
    return found


def compare_answers(
    plain: SessionConfig,
    drafted: Sequence[SessionConfig],
    texts: Sequence[str],
    max_tokens: int,
    stage: Notify = silent,
) -> AnswerComparison:
    """Ask every text under every configuration and measure where answers part.

    `stage` hears which configuration answers. Raises LocalspecError, or KeyboardInterrupt.
    """
    answers = tuple(_asked(config, texts, max_tokens, stage) for config in (plain, *drafted))
    parted = [
        (other, i)
        for other in answers[1:]
        for i, reply in enumerate(other.replies)
        if reply != answers[0].replies[i]
    ]
    if not parted:
        return AnswerComparison(plain, answers, {})
    stage("measuring where answers part")
    widest = max(other.widest for other, _ in parted)
    divergences: dict[tuple[str, int], AnswerDivergence] = {}
    with Session.open(plain.with_settings(spec="lookup", draft_max=widest - 1)) as session:
        for other, i in parted:
            prompt, reply = answers[0].prompts[i], answers[0].replies[i]
            found = diverge(session.context, prompt, reply, other.replies[i], other.widest)
            assert found
            divergences[other.way, i] = found
    return AnswerComparison(plain, answers, divergences)


def _asked(config: SessionConfig, texts: Sequence[str], max_tokens: int, stage: Notify) -> Answers:
    way = config.settings.spec + (
        f"-{config.settings.draft_max}" if config.settings.draft_max else ""
    )
    stage(f"asking {len(texts)} questions: {way}")
    options = ReplyOptions(Sampling(temperature=0), max_tokens)
    with Session.open(config) as session:
        most = session.n_ctx - max_tokens - 1
        asked = [session.chat_prompt([Message(role="user", content=text)]) for text in texts]
        prompts = [prompt[-most:] for prompt in asked]
        replies = [session.reply(prompt, options).finish() for prompt in prompts]
    if any(reply.finish_reason == "interrupted" for reply in replies):
        raise KeyboardInterrupt
    return Answers(
        way,
        prompts,
        [reply.tokens for reply in replies],
        sum(reply.stats.passes for reply in replies),
        max(1 + step.drafted for reply in replies for step in reply.steps),
    )


def diverge(
    context: Context, prompt: Tokens, plain: Tokens, other: Tokens, widest: int
) -> AnswerDivergence | None:
    """Measure where `other` parts from `plain`, answers to `prompt`; None where it does not.

    `context` gives up to `widest` rows of logits, the most tokens of a verification batch.
    """
    position = first_difference(plain, other)
    if position is None:
        return None
    single = _replay(context, prompt, plain, 1)
    batches = (_replay(context, prompt, plain, n) for n in range(2, widest + 1))
    largest = max((float(np.abs(single - batch).max()) for batch in batches), default=0.0)
    best = np.sort(single[position])[-2:]
    return AnswerDivergence(position, float(best[1] - best[0]), largest)


def first_difference(plain: Tokens, other: Tokens) -> int | None:
    """The first position at which the answers differ, None where they do not."""
    if list(plain) == list(other):
        return None
    pairs = zip(plain, other, strict=False)
    shorter = min(len(plain), len(other))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)


def _replay(context: Context, prompt: Tokens, reply: Tokens, width: int) -> np.ndarray:
    """Logits after the prompt and each token of `reply`; shape (len(reply) + 1, n_vocab)."""
    rows = [hold(context, list(prompt), 1).row(0).copy()]
    for start in range(0, len(reply), width):
        tokens = list(reply[start : start + width])
        logits = context.eval(tokens, len(tokens))
        rows += [logits.row(i).copy() for i in range(len(tokens))]
    return np.stack(rows)
