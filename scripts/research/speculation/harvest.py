"""Whether rows that verification rejected are worth anything: lookahead's harvest, counted.

    scripts/research/run harvest-speculation --prompts FILE [--target MODEL] [--count N]

A pass that checks a draft also evaluates the tokens behind its first wrong one. What the target
says there follows a text that was not written, but its n-grams may come later (Jacobi trajectories:
Fu et al. 2024, "Break the Sequential Dependency of LLM Inference Using Lookahead Decoding"). Here
they are collected beside real lookups, and offered where a lookup finds nothing, after two or
after one known token. Offers are only judged by what the target then says; nothing is timed, and a
share of accepted offers below v(2) - 1 is a loss at any price of a lookup.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from models import named
from research.speculation.questions import choose, read_questions

from localspec.decode.drafters.base import DraftRequest
from localspec.decode.drafters.lookup import LookupDrafter
from localspec.dialogue.template import Message
from localspec.engine.base import Context
from localspec.engine.sampling import Sampling
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

GREEDY = Sampling(temperature=0)
N_DRAFT = 5
CTX = 1024


@dataclass(slots=True)
class Pool:
    """N-grams of rejected rows: what came after `n_known` tokens, the newest last."""

    n_known: int
    after: dict[tuple[int, ...], int] = field(default_factory=dict[tuple[int, ...], int])
    n_offered: int = 0
    n_accepted: int = 0

    def collect(self, line: Sequence[int]) -> None:
        for i in range(len(line) - self.n_known):
            self.after[tuple(line[i : i + self.n_known])] = line[i + self.n_known]

    def judge(self, history: Sequence[int], said: int) -> None:
        """Offer one token behind a text, and compare."""
        offer = self.after.get(tuple(history[-self.n_known :]))
        self.n_offered += offer is not None
        self.n_accepted += offer == said


@dataclass(slots=True)
class Count:
    """Of one category."""

    n_tokens: int = 0
    n_passes: int = 0
    n_without: int = 0
    n_rejected_rows: int = 0
    pools: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])


def main(
    prompts: Annotated[Path, typer.Option(help="Questions, one JSON object a line.")],
    target: Annotated[str, typer.Option(metavar="MODEL")] = "smollm2",
    count: Annotated[int, typer.Option(min=1, help="Questions a category.")] = 2,
    tokens: Annotated[int, typer.Option(min=8, help="Of each reply.")] = 192,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Write greedy replies with lookups, and print a table."""
    counts: dict[str, Count] = defaultdict(Count)
    config = SessionConfig.of(named(target), spec="lookup", ctx=CTX, draft_max=N_DRAFT)
    with Session.open(config) as session:
        for question in choose(read_questions(prompts), count, seed):
            prompt = session.chat_prompt([Message(role="user", content=question.text)])
            _reply(session.context, prompt, tokens, counts[question.category])
            sys.stderr.write(f"{question.category}: {question.number}\n")
    _show(counts)


def _reply(context: Context, prompt: list[int], n_tokens: int, count: Count) -> None:
    """One reply, its drafts verified by hand so that rejected rows can be seen."""
    context.truncate(0)
    history = [*prompt, context.eval(prompt, 1).argmax(0)]
    drafter, pools = LookupDrafter(remembers=False), [Pool(1), Pool(2)]
    end = len(prompt) + n_tokens
    while len(history) < end:
        draft = drafter.draft([DraftRequest(history, N_DRAFT, GREEDY)])[0].tokens
        rows = context.eval([history[-1], *draft], 1 + len(draft))
        said = [rows.argmax(i) for i in range(1 + len(draft))]
        n = next((i for i, token in enumerate(draft) if token != said[i]), len(draft))
        if not draft:
            count.n_without += 1
            for pool in pools:
                pool.judge(history, said[0])
        context.go_back(len(history) + n)
        for pool in pools:  # what is behind the first wrong token, after that token
            for i in range(n, len(draft)):
                pool.collect([*draft[max(0, i - pool.n_known + 1) : i + 1], said[i + 1]])
            pool.collect(said[n + 1 :])
        history += said[: n + 1]
        count.n_tokens, count.n_passes = count.n_tokens + n + 1, count.n_passes + 1
        count.n_rejected_rows += len(draft) - n
    for pool in pools:
        offered, accepted = count.pools.get(str(pool.n_known), (0, 0))
        count.pools[str(pool.n_known)] = offered + pool.n_offered, accepted + pool.n_accepted


def _show(counts: dict[str, Count]) -> None:
    head = "| Category | Tokens | Passes | Without a draft | Rejected rows |"
    head += " Offers after 1 token | Accepted | Offers after 2 | Accepted |"
    lines = [head, "|---|" + "---|" * 8]
    total = Counter[str]()
    for name, count in sorted(counts.items()):
        cells = [count.n_tokens, count.n_passes, count.n_without, count.n_rejected_rows]
        pairs = [count.pools.get(n, (0, 0)) for n in ("1", "2")]
        for i, (offered, accepted) in enumerate(pairs):
            total[f"offered {i}"] += offered
            total[f"accepted {i}"] += accepted
            cells += [offered, accepted]
        lines.append(f"| {name} | " + " | ".join(f"{cell:,}" for cell in cells) + " |")
    for i in (0, 1):
        share = total[f"accepted {i}"] / max(1, total[f"offered {i}"])
        lines.append(f"\nOf offers after {i + 1} known token(s) {share:.0%} were accepted.")
    typer.echo("\n".join(lines))
