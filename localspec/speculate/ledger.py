"""Seconds lost to speculation, so that no reply takes much longer than it would without.

    loss = seconds spent - tokens x seconds of a plain pass

Tries whose gain is uncertain are paid from a budget: a share of the time that plain decoding takes.
Some of it may be spent ahead, once a session and as far as the reply at hand can be expected to
earn it. The bound holds as far as the seconds of a plain pass are known.
"""

from dataclasses import dataclass

SHARE = 0.022
"""Of plain time, for tries; promised are 0.03, and costs are known to some per cent."""
AHEAD = 256
"""Tokens whose share may be spent before they are there."""


@dataclass(slots=True)
class Account:
    """Seconds that were spent, and that plain decoding would have taken for the same tokens."""

    spent_s: float = 0.0
    plain_s: float = 0.0

    @property
    def loss_s(self) -> float:
        """Negative: seconds saved."""
        return self.spent_s - self.plain_s

    @property
    def gain(self) -> float | None:
        """Times plain speed."""
        return self.plain_s / self.spent_s if self.spent_s else None

    def add(self, seconds: float, plain_s: float) -> None:
        self.spent_s += seconds
        self.plain_s += plain_s

    def affords(self, worst_s: float, ahead_s: float) -> bool:
        """Whether `worst_s` more may be lost, when plain decoding takes at least `ahead_s`."""
        return self.loss_s + worst_s <= SHARE * max(self.plain_s, ahead_s)


class Ledger:
    """One session's; `begin` opens a reply."""

    def __init__(self) -> None:
        self.session = Account()
        self.reply = Account()

    def begin(self) -> Account:
        """A new reply, and its account; what earlier ones saved is not spent on it."""
        self.session.spent_s = max(self.session.spent_s, self.session.plain_s)
        self.reply = Account()
        return self.reply

    def add(self, seconds: float, plain_s: float) -> None:
        """A step took `seconds` for tokens that take plain decoding `plain_s`."""
        self.session.add(seconds, plain_s)
        self.reply.add(seconds, plain_s)

    def affords(self, worst_s: float, plain_pass_s: float, n_expected: int) -> bool:
        """Whether `worst_s` more may be lost in a reply of at least `n_expected` tokens."""
        ahead_s = AHEAD * plain_pass_s
        return self.session.affords(worst_s, ahead_s) and self.reply.affords(
            worst_s, min(AHEAD, n_expected) * plain_pass_s
        )
