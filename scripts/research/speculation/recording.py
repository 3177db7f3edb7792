"""Greedy replies of a real model, and what a draft model would have guessed at each place.

One plain decoding tells what every policy would have said and what would have been accepted of its
drafts, because speculation changes no greedy reply. A guess counts only where all before it were
right, so the draft model's best token behind the true text is all that is needed. It reads as a
draft of the policy does: the first 4 tokens and the last 64 of the prompt. Models are named as for
bench-speculation.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from models import named
from research.speculation.questions import Question

from localspec.decode.drafters.draft_model import N_SINKS
from localspec.decode.offers import WINDOW
from localspec.dialogue.template import Message
from localspec.engine.sampling import Sampling
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

N_CTX = 4096
_N_READ = 16


@dataclass(frozen=True, slots=True)
class Guess:
    """The draft model's best token at a place, and its probability."""

    token: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Recording:
    """Token ids of a prompt and its greedy reply; `guesses` is empty or has one a reply's token."""

    target: str
    draft: str | None
    category: str
    number: int
    prompt: list[int]
    reply: list[int]
    ends: bool
    """Whether the reply ended by itself, which takes one more token."""
    guesses: list[Guess]

    @property
    def key(self) -> tuple[str, str | None, int]:
        return self.target, self.draft, self.number


def recorded(
    pair: tuple[str, str | None], asked: Sequence[Question], n: int, store: Path
) -> list[Recording]:
    """A recording for each question: kept ones, and what is missing is recorded and kept."""
    known = {recording.key: recording for recording in _read(store)}
    todo = [question for question in asked if (*pair, question.number) not in known]
    for recording in _record(pair, todo, n) if todo else ():
        known[recording.key] = recording
        with store.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(recording)) + "\n")
    keys = [(*pair, question.number) for question in asked]
    return [known[key] for key in keys if key in known]


def _read(store: Path) -> list[Recording]:
    if not store.exists():
        return []
    rows = [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()]
    return [Recording(**{**row, "guesses": [Guess(**g) for g in row["guesses"]]}) for row in rows]


def _record(pair: tuple[str, str | None], asked: Sequence[Question], n: int) -> Sequence[Recording]:
    target, draft = pair
    replies: list[Recording] = []
    options = ReplyOptions(Sampling(temperature=0), n, spec="none")
    with Session.open(SessionConfig.of(named(target), ctx=N_CTX, spec="none")) as session:
        for i, question in enumerate(asked, 1):
            print(f"\rrecording {i} of {len(asked)}", end="", file=sys.stderr)
            prompt = session.chat_prompt([Message(role="user", content=question.text)])
            reply = session.reply(prompt, options).finish()
            ends = reply.finish_reason == "stop"
            tokens = list(reply.tokens)
            replies.append(
                Recording(
                    target, draft, question.category, question.number, prompt, tokens, ends, []
                )
            )
        print(file=sys.stderr)
    return _with_guesses(draft, replies) if draft else replies


def _with_guesses(draft: str, replies: Sequence[Recording]) -> list[Recording]:
    config = SessionConfig.of(named(draft), ctx=N_CTX, spec="lookup", draft_max=_N_READ - 1)
    with Session.open(config) as session:
        return [_guessed(session, recording) for recording in replies]


def _guessed(session: Session, recording: Recording) -> Recording:
    prompt, reply = recording.prompt, recording.reply
    if len(prompt) > WINDOW + N_SINKS:
        prompt = [*prompt[:N_SINKS], *prompt[-WINDOW:]]
    context = session.context
    context.truncate(0)
    text = [*prompt, *reply[:-1]]
    start = len(prompt) - 1
    context.eval(text[:start], 1)
    guesses: list[Guess] = []
    for place in range(start, len(text), _N_READ):
        tokens = text[place : place + _N_READ]
        logits = context.eval(tokens, len(tokens))
        for i in range(len(tokens)):
            row = logits.row(i).astype(np.float64)
            best = int(row.argmax())
            guesses.append(Guess(best, float(1 / np.exp(row - row[best]).sum())))
    return replace(recording, guesses=guesses)
