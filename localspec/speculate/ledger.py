"""Seconds lost to speculation, so that no reply takes much longer than it would without.

    loss = seconds spent - tokens x seconds of a plain pass

Tries whose gain is uncertain are paid from a budget: a share of the time that plain decoding takes.
Some of it may be spent ahead, once a session and as far as the reply at hand can be expected to
earn it. The bound holds as far as the seconds of a plain pass are known.
"""

from dataclasses import dataclass, field

SHARES = {"model": 0.018, "suffix": 0.008}
"""Of plain time, for tries of each drafter; one that fails must not stop the other."""
OTHER_SHARE = 0.02
AHEAD = 256
"""Tokens whose share may be spent before they are there."""


@dataclass(slots=True)
class Account:
    """Seconds spent, those of plain decoding for the same tokens, and what each drafter lost."""

    spent_s: float = 0.0
    plain_s: float = 0.0
    lost_s: dict[str, float] = field(default_factory=dict[str, float])
    """Negative: saved."""

    @property
    def gain(self) -> float | None:
        """Times plain speed."""
        return self.plain_s / self.spent_s if self.spent_s else None

    def passes_without(self, source: str) -> float:
        """Plain passes a token without that drafter: below 1 where others save some."""
        others_s = sum(lost for other, lost in self.lost_s.items() if other != source)
        return 1 + others_s / self.plain_s if self.plain_s else 1.0

    def add(self, seconds: float, plain_s: float, source: str) -> None:
        self.spent_s += seconds
        self.plain_s += plain_s
        self.lost_s[source] = self.lost_s.get(source, 0.0) + seconds - plain_s

    def left_s(self, source: str, ahead_s: float) -> float:
        """How much more may be lost, when plain decoding takes at least `ahead_s`; below 0: the
        budget is overdrawn."""
        share = SHARES.get(source, OTHER_SHARE)
        return share * max(self.plain_s, ahead_s) - self.lost_s.get(source, 0.0)


class Ledger:
    """One session's; `begin` opens a reply."""

    def __init__(self) -> None:
        self.session = Account()
        self.reply = Account()

    def begin(self) -> Account:
        """A new reply, and its account; what earlier ones saved is not spent on it."""
        lost_s = self.session.lost_s
        self.session.lost_s = {source: max(0.0, lost) for source, lost in lost_s.items()}
        self.reply = Account()
        return self.reply

    def add(self, seconds: float, plain_s: float, source: str) -> None:
        """A step took `seconds` for tokens that take plain decoding `plain_s`."""
        self.session.add(seconds, plain_s, source)
        self.reply.add(seconds, plain_s, source)

    def left_s(self, source: str, plain_pass_s: float, n_expected: int) -> float:
        """How many seconds more may be lost in a reply of at least `n_expected` tokens."""
        return min(
            self.session.left_s(source, AHEAD * plain_pass_s),
            self.reply.left_s(source, min(AHEAD, n_expected) * plain_pass_s),
        )
