"""Answers alone and among eight, and whether rounding explains each that parts.

    scripts/research/run judge-company [--models smollm2,gemma] [--questions 32] [--tokens 48]

The scheduler of `localspec serve` answers each question alone, and then all of them with eight at a
time, with drafts by cost: greedily, and sampled with a seed each. Then the same tokens are read in
passes of other shapes, without a scheduler: eight sequences at once, the rows of a draft, prompts
in small and in joint chunks. The largest difference between their rows and those of one sequence
alone is what rounding does here. An answer that parts stands

- greedy: if the margin between both tokens is at most twice the largest difference of logits;
- sampled: if the drawn number lies within the largest difference of cumulative chances from the
  border between both tokens.

An answer that parts for another reason is named, and the study fails.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from models import named
from research.serve.client import questions

from localspec.bench.same_answer import first_difference
from localspec.dialogue.template import Message
from localspec.engine.base import Context, Engine, Logits, hold, rows_of
from localspec.engine.sampling import Purpose, Sampling, truncated, uniform
from localspec.serve.messages import Done, Failed, Submit
from localspec.serve.server import Load, scheduler_of
from localspec.session.reply_options import ReplyOptions, reply_options
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

Row = npt.NDArray[np.float32]
AT_ONCE, CTX = 8, 1024
SHAPES = ((16, 1), (64, 5), (7, 3))
"""Of joint passes: rows of each prompt, and of each reply. 64 x 8 is another attention kernel."""
HEAD = (
    "| Model | Tokens | Answers | Same | Parted | Stand | Do not |"
    " Largest difference | Furthest that parted |",
    "|---|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer alone and in company."""

    prompt: list[int]
    options: ReplyOptions
    alone: list[int]
    company: list[int]

    @property
    def place(self) -> int | None:
        """Where they part."""
        return first_difference(self.alone, self.company)

    def distance(self, row: Row) -> float:
        """How far the choice between both tokens was from going the other way, in logits or in
        cumulative chance."""
        i = self.place
        assert i is not None
        a, b = self.alone[i], self.company[i]
        sampling = self.options.sampling
        if sampling.is_greedy:
            return float(row[a] - row[b])
        number = uniform(sampling.seed, len(self.prompt) + i, Purpose.TOKEN)
        until = cumulative(row, sampling)
        return float(number - until[b] if b < a else until[b - 1] - number)


@dataclass(slots=True)
class Rounding:
    """The largest differences that other shapes of passes make."""

    logits: float = 0.0
    chances: float = 0.0

    def compare(self, row: Row, other: Row, sampling: Sampling) -> None:
        self.logits = max(self.logits, float(np.abs(row - other).max()))
        if not sampling.is_greedy:
            apart = np.abs(cumulative(row, sampling) - cumulative(other, sampling)).max()
            self.chances = max(self.chances, float(apart))

    def excuses(self, said: Said, distance: float) -> bool:
        is_greedy = said.options.sampling.is_greedy
        return distance <= (2 * self.logits if is_greedy else self.chances)


def cumulative(row: Row, sampling: Sampling) -> npt.NDArray[np.float64]:
    """The chance of each id and of all below it."""
    chances = np.zeros(len(row))
    found = truncated(row, sampling)
    chances[found.ids] = found.probabilities
    return chances.cumsum()


class Company:
    """A session with eight sequences, and those who ask it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._scheduler = scheduler_of(session, Load())
        self.contexts: list[Context] = self._scheduler.contexts

    def said(self, n: int, n_tokens: int, *, seeded: bool) -> list[Said]:
        """Each question alone, and then all, eight at a time."""
        ways = [
            reply_options(max_tokens=n_tokens, ignore_eos=True, seed=i, temperature=float(seeded))
            for i in range(n)
        ]
        prompts = [
            self._session.chat_prompt([Message(role="user", content=text)])
            for text in questions("conversation", n, 5)
        ]
        asked = list(zip(prompts, ways, strict=True))
        alone = [self._answered([one], 1)[0] for one in asked]
        company = self._answered(asked, AT_ONCE)
        return [Said(*row) for row in zip(prompts, ways, alone, company, strict=True)]

    def _answered(
        self, asked: Sequence[tuple[list[int], ReplyOptions]], at_once: int
    ) -> list[list[int]]:
        """Whoever has an answer makes room for the next one, so prompts come beside replies."""
        session = self._session
        for context in self.contexts:
            context.go_back(0)
        generations = [session.generations.of(*one) for one in asked]
        left, n_open = list(enumerate(generations)), 0
        while left or n_open:
            while left and n_open < at_once:
                i, generation = left.pop(0)
                parser = session.parser(asked[i][1], session.markup, session.markup.opening(""))
                self._scheduler.take(Submit(i, generation, parser))
                n_open += 1
            for event in self._scheduler.step():
                assert not isinstance(event, Failed), event
                n_open -= isinstance(event, Done)
        return [generation.tokens for generation in generations]

    def rounding(self, said: Sequence[Said]) -> tuple[Rounding, dict[int, Row]]:
        """What other shapes do to the rows of these answers, and the rows where they part."""
        found, parted = Rounding(), dict[int, Row]()
        for start in range(0, len(said), AT_ONCE):
            some = said[start : start + AT_ONCE]
            rows = [one_by_one(self.contexts[0], each.prompt, each.alone) for each in some]
            for i, each in enumerate(some):
                if each.place is not None:
                    parted[start + i] = rows[i][each.place]
            for shape in SHAPES:
                others = jointly(self._session.target, self.contexts, some, *shape)
                for each, own, other in zip(some, rows, others, strict=True):
                    for a, b in zip(own, other, strict=True):
                        found.compare(a, b, each.options.sampling)
        return found, parted


def one_by_one(context: Context, prompt: list[int], reply: list[int]) -> list[Row]:
    """The row before each token of a reply, alone."""
    context.go_back(0)
    rows = [hold(context, prompt, 1).row(0).copy()]
    return rows + [context.eval([token], 1).row(0).copy() for token in reply[:-1]]


def jointly(
    engine: Engine, contexts: Sequence[Context], said: Sequence[Said], chunk: int, width: int
) -> list[list[Row]]:
    """The same rows in passes of all sequences: prompts in chunks, replies as drafts are read."""
    for context in contexts:
        context.go_back(0)
    rows: list[list[Row]] = [[] for _ in said]
    while any(len(found) < len(each.alone) for found, each in zip(rows, said, strict=True)):
        requests = list[tuple[Context, list[int], int]]()
        asked = list[int]()
        for i, (context, each) in enumerate(zip(contexts, said, strict=False)):
            held, n_prompt = len(context.tokens), len(each.prompt)
            text = [*each.prompt, *each.alone[:-1]]
            n = min(chunk, n_prompt - held) if held < n_prompt else width
            tokens = text[held : held + n]
            n_rows = len(tokens) if held >= n_prompt else int(held + n == n_prompt)
            if tokens:
                requests.append((context, tokens, n_rows))
                asked.append(i)
        for i, (_, _, n), result in zip(asked, requests, engine.decode(requests), strict=True):
            rows[i] += _copies(rows_of(result), n)
    return rows


def _copies(logits: Logits, n: int) -> list[Row]:
    return [logits.row(i).copy() for i in range(n)]


@dataclass(slots=True)
class Verdict:
    """Of one model and way of choosing."""

    n: int
    rounding: Rounding
    distances: list[float] = field(default_factory=list[float])
    wrong: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, company: Company, said: Sequence[Said]) -> "Verdict":
        rounding, rows = company.rounding(said)
        found = cls(len(said), rounding)
        for i, row in rows.items():
            distance = said[i].distance(row)
            found.distances.append(distance)
            if not rounding.excuses(said[i], distance):
                found.wrong.append(f"answer {i} parts at {said[i].place}, {distance:.4f} away")
        return found

    def line(self, model: str, *, seeded: bool) -> str:
        n_parted, n_wrong = len(self.distances), len(self.wrong)
        largest = self.rounding.chances if seeded else self.rounding.logits
        return (
            f"| {model} | {'seeded' if seeded else 'greedy'} | {self.n} | {self.n - n_parted} |"
            f" {n_parted} | {n_parted - n_wrong} | {n_wrong} | {largest:.4f} |"
            f" {max(self.distances, default=0.0):.4f} |"
        )


def main(
    models: Annotated[str, typer.Option(help="smollm2, gemma, random or a path.")] = "smollm2",
    n: Annotated[int, typer.Option("--questions", min=AT_ONCE)] = 32,
    tokens: Annotated[int, typer.Option(min=8, help="Of each answer.")] = 48,
) -> None:
    print(*HEAD, sep="\n")
    wrong: list[str] = []
    for model in models.split(","):
        config = SessionConfig.of(
            named(model), ctx=CTX, n_sequences=AT_ONCE, kv_unified=True, spec="auto"
        )
        with Session.open(config) as session:
            company, started = Company(session), perf_counter()
            for seeded in (False, True):
                verdict = Verdict.of(company, company.said(n, tokens, seeded=seeded))
                wrong += verdict.wrong
                print(verdict.line(model, seeded=seeded), flush=True)
            print(f"({perf_counter() - started:.0f} s)", flush=True)
    if wrong:
        raise SystemExit("not explained by rounding: " + "; ".join(wrong))


if __name__ == "__main__":
    typer.run(main)
