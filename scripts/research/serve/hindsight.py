"""What lookups could bring at most, with hindsight, at the costs that passes have now.

    scripts/research/run bound-serve [--model smollm2] [--users 1,2] [--tokens 64] [--rounds 9]

Greedy replies do not depend on drafts, so plain ones tell what would have been accepted of every
draft. Passes of one to 18 rows are timed on the engine, in rounds that go through all widths, and
the replies are played again with real lookups at these costs, N users at a time: plainly, with
every fixed length from every least length of a match on, and with hindsight, which drafts what will
be accepted and nothing else, where that pays. No rule can do better with this drafter. `auto` is
the real policy, which learns from reply to reply, twice: as the others, and where each change of
width costs what the calibration says. Choosing and HTTP cost nothing here. Prompts are read in
`read` seconds in any way, so a ratio with them is lower.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from time import perf_counter
from typing import Annotated

import typer
from models import named
from research.serve.load import KINDS
from research.speculation.play import Reply

from localspec.decode.chances import Learned
from localspec.decode.costs import PassCosts
from localspec.decode.curve import PassCurve, Point
from localspec.decode.drafters.base import Draft, DraftRequest
from localspec.decode.drafters.lookup import LENGTHS, LookupDrafter
from localspec.decode.policy import Adaptive
from localspec.decode.step import Step
from localspec.dialogue.template import Message
from localspec.engine.base import Context, shared_prefix
from localspec.engine.sampling import Sampling
from localspec.serve.server import Load, scheduler_of
from localspec.session.reply_options import reply_options
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

LONGEST = 16
FIXED = (1, 2, 3, 4, 6, 8, 12, 16)
GREEDY = Sampling(temperature=0)
HEAD = (
    "| Questions | Users | A pass, ms | A row more, ms | Best fixed length | of matches from |"
    " : none | Accepted of it | auto : none | Accepted of it | with changes | Hindsight : none |"
    " with prompts |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True)
class Told:
    """A prompt, its greedy reply, and how long the prompt takes to read."""

    prompt: list[int]
    reply: list[int]
    read_s: float


@dataclass(slots=True)
class Talk:
    """A reply that is told again; `guess` looks drafts up in its own text."""

    told: Told
    history: list[int] = field(default_factory=list[int])
    lookup: LookupDrafter = field(default_factory=lambda: LookupDrafter(remembers=False))

    def __post_init__(self) -> None:
        self.history = [*self.told.prompt, self.told.reply[0]]

    @property
    def rest(self) -> list[int]:
        """What it will say."""
        return self.told.reply[len(self.history) - len(self.told.prompt) :]

    def guess(self, n: int, least: int) -> tuple[int, int]:
        """Tokens of a draft of at most n whose match has the `least` length, and those that stand;
        the last token of a reply is never a draft."""
        (draft,) = self.lookup.draft([DraftRequest(self.history, n, GREEDY)])
        if not draft.tokens or LENGTHS[draft.confidences[0] // 2] < least:
            return 0, 0
        n = min(len(draft.tokens), len(self.rest) - 1)
        return n, shared_prefix(draft.tokens[:n], self.rest)


Rule = Callable[[list[tuple[int, int]]], list[int]]
"""From drafted and accepted tokens of each user to the rows that are verified."""


@dataclass(slots=True)
class Played:
    """Seconds without prompts, and what became of drafts."""

    seconds: float = 0.0
    n_tokens: int = 0
    n_drafted: int = 0
    n_accepted: int = 0


def play(told: Sequence[Told], n: int, costs: list[float], least: int, rule: Rule) -> Played:
    """All replies, n at a time, each pass at its cost by rows."""
    left, found = list(told), Played()
    talks = [Talk(left.pop()) for _ in range(n)]
    while talks:
        guesses = [talk.guess(LONGEST, least) for talk in talks]
        rows = rule(guesses)
        found.seconds += costs[len(talks) + sum(rows)]
        for talk, n_rows, (_, n_right) in zip(talks, rows, guesses, strict=True):
            n_accepted = min(n_rows, n_right)
            found.n_drafted, found.n_accepted = (
                found.n_drafted + n_rows,
                found.n_accepted + n_accepted,
            )
            found.n_tokens += 1 + n_accepted
            talk.history += talk.rest[: 1 + n_accepted]
        talks = [each for each in talks if each.rest]
        talks += [Talk(left.pop()) for _ in range(min(n - len(talks), len(left)))]
    return found


def fixed(k: int) -> Rule:
    return lambda guesses: [min(k, n) for n, _ in guesses]


def knowing(costs: list[float], rate: float) -> Rule:
    """What will be accepted, as far as it brings more tokens than the same time at that rate."""

    def rule(guesses: list[tuple[int, int]]) -> list[int]:
        n, right = len(guesses), [n_right for _, n_right in guesses]
        best = max(range(sum(right) + 1), key=lambda b: b - rate * costs[n + b])
        rows: list[int] = []
        for each in right:
            rows.append(min(each, best))
            best -= rows[-1]
        return rows

    return rule


def hindsight(told: Sequence[Told], n: int, costs: list[float]) -> Played:
    """The best rate, found from the plain one upwards."""
    best = play(told, n, costs, 1, fixed(0))
    for _ in range(4):
        known = play(told, n, costs, 1, knowing(costs, best.n_tokens / best.seconds))
        best = min(best, known, key=lambda played: played.seconds)
    return best


def adaptive(told: Sequence[Told], n: int, costs: list[float], change_s: float) -> Played:
    """The policy of a session that knows these costs; a change of width takes `change_s` more."""
    points = tuple(Point(w, costs[w]) for w in range(1, len(costs)))
    learned = Learned(PassCosts(PassCurve(points), change_s=change_s))
    policy = Adaptive(learned, [LookupDrafter(remembers=False)], LONGEST)
    left, found, last = list(told), Played(), n
    replies = [Retold.of(left.pop()) for _ in range(n)]
    while replies:
        drafts = policy.draft(replies)  # type: ignore[arg-type]
        steps = [reply.passed(draft) for reply, draft in zip(replies, drafts, strict=True)]
        width = sum(step.evaluated for step in steps)
        seconds = costs[width] + (change_s if width != last else 0.0)
        policy.learn(steps, width, seconds)
        found.seconds, last = found.seconds + seconds, width
        found.n_tokens += sum(len(step.tokens) for step in steps)
        found.n_drafted += sum(step.drafted for step in steps)
        found.n_accepted += sum(step.accepted for step in steps)
        if not all(reply.rest for reply in replies):
            replies = [each for each in replies if each.rest]
            replies += [Retold.of(left.pop()) for _ in range(min(n - len(replies), len(left)))]
    return found


@dataclass(slots=True)
class Retold(Reply):
    """A reply that is told again, as a policy sees one."""

    told: Told = field(kw_only=True)

    @classmethod
    def of(cls, told: Told) -> "Retold":
        history = [*told.prompt, told.reply[0]]
        return cls(history, len(told.prompt), len(told.reply), told=told)

    @property
    def rest(self) -> list[int]:
        """What it will say."""
        return self.told.reply[self.n_tokens :]

    def passed(self, draft: Draft) -> Step:
        """What a pass with that draft adds."""
        accepted, n = shared_prefix(draft.tokens, self.rest), len(draft.tokens)
        new = self.rest[: accepted + 1]
        self.history += new
        return Step(tuple(new), n, accepted, draft.source, 1 + n, 0.0, 0.0, draft.confidences)


def told(session: Session, texts: Sequence[str], n_tokens: int) -> list[Told]:
    options = reply_options(temperature=0.0, max_tokens=n_tokens, ignore_eos=True)
    options = replace(options, spec="none")
    found: list[Told] = []
    for text in texts:
        prompt = session.chat_prompt([Message(role="user", content=text)])
        session.context.go_back(0)
        reply = session.reply(prompt, options).finish()
        found.append(Told(prompt, reply.tokens, reply.timings.prefill_s or 0.0))
    return found


def costs_of(contexts: Sequence[Context], n: int, depth: int, rounds: int) -> list[float]:
    """Seconds of a pass of so many rows of n sequences, by rows; fewer than n: as n."""
    engine, widths = contexts[0].engine, [*range(1, 13), 14, 16, 18]
    text = [7 + i % 90 for i in range(depth)]
    for context in contexts[:n]:
        context.go_back(0)
        context.eval(text, 0)
    found: dict[int, list[float]] = {w: [] for w in widths}
    for i in range(rounds):
        for w in (widths, widths[::-1])[i % 2]:
            shares = [w // n + (k < w % n) for k in range(n)]
            asked = [(c, text[:m], m) for c, m in zip(contexts, shares, strict=False) if m]
            for is_warm in (False, True):  # the first pass of a width builds its graph
                started = perf_counter()
                engine.decode(asked)
                if is_warm:
                    found[w].append(perf_counter() - started)
                for context, _, _ in asked:
                    context.go_back(depth)
    points = {w: statistics.median(values) for w, values in found.items()}
    return [_between(points, max(1, w)) for w in range(n * (LONGEST + 1) + 1)]


def _between(points: dict[int, float], w: int) -> float:
    """Beyond the last width as steep as between the last two."""
    low = max(m for m in list(points)[:-1] if m <= w)
    high = min((m for m in points if m > low), default=low)
    return points[low] + (points[high] - points[low]) * (w - low) / (high - low)


def line(kind: str, n: int, told: Sequence[Told], costs: list[float], change_s: float) -> str:
    plain = play(told, n, costs, 1, fixed(0))
    ways = {(k, m): play(told, n, costs, m, fixed(k)) for k, m in product(FIXED, LENGTHS)}
    (k, m), best = min(ways.items(), key=lambda way: way[1].seconds)
    known, read_s = hindsight(told, n, costs), sum(each.read_s for each in told)
    row_s = (costs[n + 8] - costs[n]) / 8
    auto, changing = (adaptive(told, n, costs, seconds) for seconds in (0.0, change_s))
    return (
        f"| {kind} | {n} | {1e3 * costs[n]:.1f} | {1e3 * row_s:.1f} | {k} | {m} |"
        f" {plain.seconds / best.seconds:.2f} | {best.n_accepted / max(1, best.n_drafted):.2f} |"
        f" {plain.seconds / auto.seconds:.2f} | {auto.n_accepted / max(1, auto.n_drafted):.2f} |"
        f" {plain.seconds / changing.seconds:.2f} | {plain.seconds / known.seconds:.2f} |"
        f" {(plain.seconds + read_s) / (known.seconds + read_s):.2f} |"
    )


def main(
    model: Annotated[str, typer.Option(help="smollm2, gemma, random or a path.")] = "smollm2",
    users: Annotated[str, typer.Option(help="Numbers of users.")] = "1,2",
    tokens: Annotated[int, typer.Option(min=8, help="Of each reply.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Of passes of each width.")] = 9,
) -> None:
    numbers = [int(part) for part in users.split(",")]
    config = SessionConfig.of(
        named(model), ctx=1024, n_sequences=max(numbers), kv_unified=True, spec="auto"
    )
    with Session.open(config) as session:
        contexts = scheduler_of(session, Load()).contexts
        change_s = session.learned().target.change_s
        print(*HEAD, sep="\n")
        for kind, texts in KINDS.items():
            said = told(session, texts, tokens)
            depth = round(statistics.fmean(len(each.prompt) for each in said)) + tokens // 2
            for n in numbers:
                costs = costs_of(contexts, n, depth, rounds)
                print(line(kind, n, said, costs, change_s), flush=True)


if __name__ == "__main__":
    typer.run(main)
