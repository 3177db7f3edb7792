"""Throughput of several users at once, with drafts by cost and without, interleaved.

    scripts/research/run bench-serve [--model NAME] [--users 1,2,4] [--rounds 2] [--json]

A closed loop: each user sends two questions, the second when the first is answered. It runs on the
scheduler and the engine of `localspec serve`, without HTTP, in the order A B B A. The ratio is that
of total tokens a second in neighbouring runs; a round's first runs, which warm up, are left out.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Annotated

import typer
from models import named

from localspec.decode.speculator import Plain, Speculator
from localspec.dialogue.template import Message
from localspec.serve.messages import Done, Submit
from localspec.serve.pace import Paced
from localspec.serve.prefixes import Prefixes
from localspec.serve.queue import Room
from localspec.serve.scheduler import Scheduler
from localspec.session.reply_options import reply_options
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

TALK = (
    "Why is the sky blue?", "Name three rivers and say where they are.",
    "What is the difference between a list and a tuple?", "How do I boil an egg?",
    "Write a short poem about the sea.", "Who was Ada Lovelace?",
    "Explain what a prime number is.", "What should I cook with rice and beans?",
)  # fmt: skip
TABLE = "\n".join(
    f"{i}, item number {i}, shelf {i % 7}, price {3 * i + 1} euros" for i in range(24)
)
COPY = tuple(f"Repeat this table exactly, from line {i} on:\n{TABLE}" for i in range(8))
KINDS = {"conversation": TALK, "copying": COPY}


@dataclass(frozen=True, slots=True)
class Load:
    """Medians of one number of users and one kind of question; `ratios` are auto to none."""

    users: int
    kind: str
    none_tps: float
    auto_tps: float
    ratios: list[float]
    drafted: int
    accepted: int


class Users:
    """One engine with contexts for all; `tps` runs a closed loop to its end."""

    def __init__(self, session: Session, n_tokens: int) -> None:
        self._session, self._n_tokens = session, n_tokens
        n = session.plan.target.settings.n_sequences
        others = [session.target.context() for _ in range(n - 1)]
        self._contexts = [session.context, *others]
        self.drafted = self.accepted = 0

    def tps(self, speculator: Speculator, questions: Sequence[str], users: int) -> float:
        session, left = self._session, list(questions)
        for context in self._contexts:
            context.go_back(0)
        pace = Paced(speculator, session.learned().target, 256)
        room = Room(session.n_ctx * len(self._contexts), 0)
        prefixes = Prefixes(self._contexts)
        scheduler = Scheduler(session.target, prefixes, pace, room, perf_counter)
        started, n_tokens = perf_counter(), 0
        for _ in range(users):
            scheduler.take(self._asked(left.pop()))
        while not scheduler.is_idle:
            for event in scheduler.step():
                if not isinstance(event, Done):
                    continue
                n_tokens += event.account.n_tokens
                self.drafted += event.account.stats.drafted
                self.accepted += event.account.stats.accepted
                if left:
                    scheduler.take(self._asked(left.pop()))
        return n_tokens / (perf_counter() - started)

    def _asked(self, question: str) -> Submit:
        session = self._session
        options = reply_options(temperature=0.0, max_tokens=self._n_tokens, ignore_eos=True)
        ids = session.chat_prompt([Message(role="user", content=question)])
        parser = session.parser(options, session.markup, session.markup.opening(""))
        return Submit(id(ids), session.generations.of(ids, options), parser)


def measure(users: Users, session: Session, n: int, kind: str, rounds: int) -> Load:
    found: dict[str, list[float]] = {"none": [], "auto": []}
    ratios: list[float] = []
    makers = {"none": Plain, "auto": session.speculator}
    questions = KINDS[kind][: 2 * n]
    users.tps(makers["auto"](), questions[:n], n)
    users.drafted = users.accepted = 0
    for _ in range(rounds):
        runs = [
            (way, users.tps(makers[way](), questions, n))
            for way in ("none", "auto", "auto", "none")
        ]
        for way, tps in runs:
            found[way].append(tps)
        ratios += [runs[1][1] / runs[0][1], runs[2][1] / runs[3][1]]
    medians = {way: statistics.median(values) for way, values in found.items()}
    return Load(n, kind, medians["none"], medians["auto"], ratios, users.drafted, users.accepted)


def main(
    model: Annotated[str, typer.Option(help="smollm2, gemma, random or a path.")] = "smollm2",
    users: Annotated[str, typer.Option(help="Numbers of users.")] = "1,2,4",
    rounds: Annotated[int, typer.Option(min=1)] = 2,
    tokens: Annotated[int, typer.Option(min=8, help="Of each reply.")] = 64,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    numbers = [int(part) for part in users.split(",")]
    config = SessionConfig.of(
        named(model), ctx=1024, n_sequences=max(numbers), kv_unified=True, spec="auto"
    )
    with Session.open(config) as session:
        all_users = Users(session, tokens)
        loads: list[Load] = []
        for kind in KINDS:
            for n in numbers:
                loads.append(measure(all_users, session, n, kind, rounds))
                if not as_json:
                    _show(loads)
    if as_json:
        print(json.dumps([asdict(load) for load in loads]))


def _show(loads: list[Load]) -> None:
    """The last row, with a head before the first."""
    load, ratio = loads[-1], statistics.median(loads[-1].ratios)
    if len(loads) == 1:
        print(
            "| Questions | Users | none, tok/s | auto, tok/s | auto : none | drafted | accepted |"
        )
        print("|---|---|---|---|---|---|---|")
    spread = f"{ratio:.2f} ({min(load.ratios):.2f} to {max(load.ratios):.2f})"
    print(
        f"| {load.kind} | {load.users} | {load.none_tps:.1f} | {load.auto_tps:.1f} | {spread} |"
        f" {load.drafted} | {load.accepted} |",
        flush=True,
    )


if __name__ == "__main__":
    typer.run(main)
