"""Seconds lost to speculation, so that no reply takes much longer than it would without.

    loss = seconds spent - tokens x seconds of a plain pass

Every draft may fail, and is paid from a budget: a share of the time that plain decoding takes. A
reply may spend its share as soon as it can be expected to earn it, and what drafts have saved in it
besides. The seconds of a plain pass are an estimate at first: what was judged by it is judged again
as it gets better, and as much of the budget is kept back as it may still be wrong by.
"""

from dataclasses import dataclass, field
from math import sqrt

SHARE = 0.025
"""Of plain time: the budget. In a session, of each drafter: one that fails must not stop the
other for ever."""
AHEAD = 256
"""Tokens whose share may be spent before they are there."""
PARTS = (0.5, 1.0)
"""A draft stakes at most so much of what is left, the smallest that leaves one that pays: who
stakes all at once is soon ruined, also with good drafts."""
ERROR, N_TIMED_COUNTED = 0.05, 9
"""By how much a plain pass's time may be wrong if one was timed, or n: ERROR / sqrt(1 + n), to the
number of passes that the estimate remembers."""


@dataclass(slots=True)
class Account:
    """Seconds spent, those of plain decoding for the same tokens, and what each drafter lost."""

    spent_s: float = 0.0
    plain_s: float = 0.0
    lost_s: dict[str, float] = field(default_factory=dict[str, float])
    """Negative: saved."""
    estimated_s: dict[str, float] = field(default_factory=dict[str, float])
    """The part of `plain_s` that was not measured, by drafter."""

    @property
    def gain(self) -> float | None:
        """Times plain speed."""
        return self.plain_s / self.spent_s if self.spent_s else None

    @property
    def loss_s(self) -> float:
        """By whatever drafts; negative: saved."""
        return self.spent_s - self.plain_s

    def passes_without(self, source: str) -> float:
        """Plain passes a token without that drafter: below 1 where others save some."""
        others_s = sum(lost for other, lost in self.lost_s.items() if other != source)
        return 1 + others_s / self.plain_s if self.plain_s else 1.0

    def add(self, seconds: float, plain_s: float, source: str) -> None:
        """A step of that drafter, for tokens that take plain decoding about `plain_s`."""
        self._add(seconds, plain_s, source)
        self.estimated_s[source] = self.estimated_s.get(source, 0.0) + plain_s

    def add_plain(self, seconds: float, owed_s: float, source: str) -> None:
        """A plain pass, of which a drafter before it owes `owed_s`."""
        self._add(seconds, seconds - owed_s, source)

    def _add(self, seconds: float, plain_s: float, source: str) -> None:
        self.spent_s += seconds
        self.plain_s += plain_s
        self.lost_s[source] = self.lost_s.get(source, 0.0) + seconds - plain_s

    def revise(self, factor: float) -> None:
        """Plain passes take `factor` times what they were taken to."""
        for source, estimated_s in self.estimated_s.items():
            more_s = (factor - 1) * estimated_s
            self.estimated_s[source] += more_s
            self.plain_s += more_s
            self.lost_s[source] -= more_s


class Ledger:
    """One session's; `begin` opens a reply."""

    def __init__(self) -> None:
        self.session = Account()
        self.reply = Account()
        self.n_timed = 0
        """Plain passes of the session that were timed."""

    def begin(self) -> Account:
        """A new reply, and its account; what earlier ones saved is not spent on it."""
        lost_s = self.session.lost_s
        self.session.lost_s = {source: max(0.0, lost) for source, lost in lost_s.items()}
        self.reply = Account()
        return self.reply

    def add(self, seconds: float, plain_s: float, source: str) -> None:
        """A step of that drafter took `seconds`, for tokens that take plain decoding `plain_s`."""
        self.session.add(seconds, plain_s, source)
        self.reply.add(seconds, plain_s, source)

    def add_plain(self, seconds: float, owed_s: float, source: str) -> None:
        """A plain pass, of which a drafter before it owes `owed_s`: it is its own measure."""
        self.session.add_plain(seconds, owed_s, source)
        self.reply.add_plain(seconds, owed_s, source)

    def left_s(
        self, source: str, plain_pass_s: float, n_expected: int, share: float = SHARE
    ) -> float:
        """How many seconds a drafter that may use up to `share` of the budget's time may lose in a
        reply of at least `n_expected` tokens; below 0: the budget is overdrawn."""
        session, reply = self.session, self.reply
        of_session_s = share * max(session.plain_s, AHEAD * plain_pass_s)
        of_reply_s = share * max(reply.plain_s, min(AHEAD, n_expected) * plain_pass_s)
        unsure_s = (
            ERROR / sqrt(1 + min(self.n_timed, N_TIMED_COUNTED)) * sum(reply.estimated_s.values())
        )
        return min(
            of_session_s - session.lost_s.get(source, 0.0),
            of_reply_s - reply.loss_s - unsure_s,
        )
