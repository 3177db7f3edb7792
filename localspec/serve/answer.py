"""What the replies of one order have said: one account of it, which each protocol writes its way.

The text of a tool call waits for the reply's end, because only then it is known to be one. What
turns out to be none is text.
"""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from localspec.decode.generation import FinishReason
from localspec.decode.logprobs import TokenLogprobs
from localspec.dialogue.tools import calls_of
from localspec.serve.messages import Account, Delta, Done, Progress
from localspec.serve.order import Order

TextKind = Literal["text", "thought"]
Reason = Literal["stop", "length", "tool_calls"]
_REASONS: dict[FinishReason | None, Reason] = {"stop": "stop"}


@dataclass(slots=True)
class Piece:
    """Text that a reply goes on with; `tokens` since the last piece; `account`, if wished for, and
    `logprobs` of the tokens."""

    kind: TextKind
    text: str
    tokens: Sequence[int] = ()
    account: Account | None = None
    logprobs: Sequence[TokenLogprobs] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Text or thought, as long as it goes on."""

    kind: TextKind
    texts: list[str]

    @property
    def text(self) -> str:
        return "".join(self.texts)


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call: the reply's `index`-th, as OpenAI writes it."""

    index: int
    call: dict[str, Any]

    @property
    def id(self) -> str:
        """As OpenAI writes it: call_..."""
        return self.call["id"]

    @property
    def name(self) -> str:
        return self.call["function"]["name"]

    @property
    def arguments(self) -> str:
        """JSON, as the model wrote it."""
        return self.call["function"]["arguments"]

    @property
    def input(self) -> dict[str, Any]:
        """The arguments by name; what is no JSON object is one argument."""
        try:
            found = json.loads(self.arguments or "{}")
        except ValueError:
            found = self.arguments
        return found if isinstance(found, dict) else {"arguments": found}


@dataclass(frozen=True, slots=True)
class Ended:
    """The reply is over. `stopped_by`: the text that it was to end before."""

    reason: Reason
    account: Account
    stopped_by: str | None = None
    logprobs: Sequence[TokenLogprobs] = ()
    """Of tokens behind the last piece."""


News = Piece | Called | Ended | Progress


@dataclass(slots=True)
class AnswerChoice:
    """One reply so far."""

    runs: list[Run] = field(default_factory=list[Run])
    """Text and thoughts, each as long as it goes on."""
    calls: list[Called] = field(default_factory=list[Called])
    end: Ended | None = None
    held: str = ""
    """What may become tool calls."""
    untold: list[TokenLogprobs] = field(default_factory=list[TokenLogprobs])
    """Of tokens since the last piece."""

    @property
    def text(self) -> str:
        return "".join(run.text for run in self.runs if run.kind == "text")

    @property
    def thought(self) -> str:
        return "".join(run.text for run in self.runs if run.kind == "thought")

    @property
    def reason(self) -> Reason:
        return self.end.reason if self.end else "length"

    def add(self, delta: Delta, *, has_tools: bool) -> list[News]:
        """Take what has come; what of it is to be said now."""
        fresh: list[News] = []
        _, parts, tokens, account, logprobs = delta
        self.untold += logprobs
        for text, kind in parts:
            if kind == "tool_call" and has_tools:
                self.held += text
                continue
            said: TextKind = "thought" if kind == "thought" else "text"
            untold, self.untold = self.untold, []
            self.say(said, text)
            fresh.append(Piece(said, text, tokens, account, untold))
            tokens = ()
        return fresh

    def finish(self, account: Account, stopped_by: str | None) -> list[News]:
        """The reply is over; its calls, or the text that is none."""
        fresh: list[News] = []
        found = calls_of(self.held) if self.held else None
        if self.held and not found:
            self.say("text", self.held)
            fresh.append(Piece("text", self.held))
        self.calls = [Called(i, call) for i, call in enumerate(found or ())]
        fresh += self.calls
        reason = "tool_calls" if self.calls else _REASONS.get(account.finish_reason, "length")
        self.end = Ended(reason, account, stopped_by, self.untold)
        return [*fresh, self.end]

    def say(self, kind: TextKind, text: str) -> None:
        """Go on with a text."""
        if self.runs and self.runs[-1].kind == kind:
            self.runs[-1].texts.append(text)
        else:
            self.runs.append(Run(kind, [text]))


class ServedAnswer:
    """The replies of one order, as its events come; `place` is a choice's."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.choices = [AnswerChoice() for _ in order.choices]
        self.key = secrets.token_hex(12)
        """For ids of it and of its parts."""
        self.created = int(time.time())

    def add(self, place: int, event: Progress | Delta | Done) -> list[News]:
        """What an event brings."""
        choice, asked = self.choices[place], self.order.choices[place]
        begun: list[News] = []
        if asked.echo and not choice.runs and not isinstance(event, Progress):
            choice.say("text", asked.echo)
            begun.append(Piece("text", asked.echo))
        if isinstance(event, Delta):
            return begun + choice.add(event, has_tools=self.order.has_tools)
        if isinstance(event, Progress):
            return [event]
        return [*begun, *choice.finish(event.account, asked.parser.stopped_by)]

    @property
    def accounts(self) -> list[Account]:
        """Of the choices that are done."""
        return [choice.end.account for choice in self.choices if choice.end]

    @property
    def n_tokens(self) -> int:
        return sum(each.n_tokens for each in self.accounts)

    @property
    def n_thought(self) -> int:
        return sum(each.n_thought for each in self.accounts)

    @property
    def n_cached(self) -> int:
        """Of the prompts; one counts once for all of its choices."""
        return min(self.order.n_prompt, sum(each.n_cached for each in self.accounts))

    @property
    def timings(self) -> dict[str, Any]:
        """Of all choices together."""
        return timings_of(self.accounts)


def timings_of(accounts: Sequence[Account]) -> dict[str, Any]:
    """Figures with llama.cpp's names, and `passes`, `tokens_per_pass` and `queued_ms`.

    As in llama.cpp a rate is 0 where nothing was read, or nothing followed the first tokens.
    """
    timings, stats = [a.timings for a in accounts], [a.stats for a in accounts]
    n_read = sum(each.n_prefilled for each in timings)
    read_s = sum(each.prefill_s or 0.0 for each in timings)
    n_said = sum(each.n_tokens for each in accounts)
    n_later = sum(each.n_tokens - each.n_first for each in timings)
    said_s = sum(each.decode_s or 0.0 for each in timings)
    passes = sum(each.passes for each in stats)
    return {
        "cache_n": sum(each.n_cached for each in accounts),
        "prompt_n": n_read,
        "prompt_ms": 1e3 * read_s,
        "prompt_per_second": n_read / read_s if read_s else 0.0,
        "prompt_per_token_ms": 1e3 * read_s / n_read if n_read else 0.0,
        "predicted_n": n_said,
        "predicted_ms": 1e3 * said_s,
        "predicted_per_second": n_later / said_s if said_s else 0.0,
        "predicted_per_token_ms": 1e3 * said_s / n_later if n_later else 0.0,
        "draft_n": sum(each.drafted for each in stats),
        "draft_n_accepted": sum(each.accepted for each in stats),
        "passes": passes,
        "tokens_per_pass": n_said / passes if passes else 0.0,
        "queued_ms": 1e3 * sum(each.queued_s for each in accounts),
    }


def progress_of(progress: Progress) -> dict[str, Any]:
    """How far a prompt is read, with llama.cpp's names: `processed` counts what was held, too."""
    n_done = progress.n_cached + progress.n_read
    return {
        "total": progress.n_prompt,
        "cache": progress.n_cached,
        "processed": n_done,
        "time_ms": 1e3 * progress.read_s,
    }
