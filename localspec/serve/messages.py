"""What goes into the scheduler, and what comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from localspec.decode.generation import FinishReason, Generation
from localspec.decode.logprobs import TokenLogprobs
from localspec.decode.stats import DraftStats, Timings
from localspec.decode.step import Step
from localspec.dialogue.answer_parser import AnswerParser
from localspec.dialogue.markup import AnswerPart
from localspec.errors import LocalspecError


class BusyError(LocalspecError):
    """The server is full or closing: the request can come again after `retry_s` seconds."""

    def __init__(self, sentence: str, retry_s: float, *, is_closing: bool = False) -> None:
        super().__init__(sentence)
        self.retry_s = retry_s
        self.is_closing = is_closing


class LateError(BusyError):
    """The request's deadline is over."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted beside a reply.

    `progress`: to hear how its prompt is read. `accounts`: one with each delta. `reuses`: what a
    sequence holds of its prompt need not be read. `goes_on`: another turn is likely to follow, as
    of replies that somebody watches; front ends do not stream titles and tags.
    """

    progress: bool = False
    accounts: bool = False
    reuses: bool = True
    goes_on: bool = True
    slot: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Submit:
    """A reply to make. `n_stable`: of the places of `decode.driver.Slot`. It waits for `wait_s`."""

    id: int
    generation: Generation
    parser: AnswerParser
    n_stable: int = 0
    wait_s: float | None = None
    wishes: Wishes = Wishes()


@dataclass(frozen=True, slots=True)
class Abort:
    """Nobody wants that reply any more."""

    id: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Take no more requests, and finish those that are here."""


Message = Submit | Abort | Drain


@dataclass(slots=True)
class Account:
    """What a reply took: `n_cached` tokens of its prompt were there already."""

    n_prompt: int
    n_cached: int = 0
    n_tokens: int = 0
    n_thought: int = 0
    queued_s: float = 0.0
    finish_reason: FinishReason | None = None
    stats: DraftStats = field(default_factory=DraftStats)
    timings: Timings = field(default_factory=Timings)

    def add(self, step: Step, now: float) -> None:
        """Count a step whose tokens are there `now`."""
        self.stats.add(step)
        self.timings.add(step, now)


@dataclass(frozen=True, slots=True)
class Taken:
    """The request waits for its turn."""

    id: int


class Delta(NamedTuple):
    """Parts of a reply that are certain now, and the `tokens` since the last one.

    `account`: so far, where that is wished for. `logprobs`: of `tokens`, if they are wanted.
    """

    id: int
    parts: Sequence[AnswerPart]
    tokens: Sequence[int] = ()
    account: Account | None = None
    logprobs: Sequence[TokenLogprobs] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a prompt's `n_prompt` tokens `n_cached` were held and `n_read` are read, in `read_s`."""

    id: int
    n_prompt: int
    n_cached: int
    n_read: int
    read_s: float


@dataclass(frozen=True, slots=True)
class Done:
    """A reply has ended, as `account` says."""

    id: int
    account: Account


@dataclass(frozen=True, slots=True)
class Failed:
    """A request is not answered, or no further."""

    id: int
    error: LocalspecError


class Pass(NamedTuple):
    """What a pass did: of `n_rows` rows `n_drafted` were drafts, and `n_tokens` tokens are new.

    `n_users` ran and `n_waiting` waited. `gaps_s`: how long each reply that went on had been silent
    before its new tokens.
    """

    n_users: int
    n_waiting: int
    n_rows: int
    n_drafted: int
    n_tokens: int
    gaps_s: Sequence[float] = ()


Event = Taken | Progress | Delta | Done | Failed
END = (Done, Failed)
"""Nothing comes behind one of these."""
