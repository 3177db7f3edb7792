"""The one event: what a pass of the target added to a reply. All statistics are folds over it."""

from collections.abc import Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """The tokens that one pass of the target added to a reply, who drafted them, and what it took.

    `accepted` of the `drafted` tokens are among `tokens`. An end-of-generation token is not.
    `source` is who drafted, "none" for a plain pass. A drafter that was asked and found nothing
    worth verifying is named with `drafted` 0. `evaluated` counts the tokens that the target took
    in. With the first step these are all tokens of the prompt that its cache did not hold.

    `draft_s` and `eval_s` are seconds of drafting and of the target, `seconds` those of the whole
    step. Requests that share a pass share its seconds by their rows. `confidences` are those of the
    draft, `why` names the decision. The step of a
    request that failed has no tokens.
    """

    tokens: tuple[int, ...]
    drafted: int
    accepted: int
    source: str
    evaluated: int
    draft_s: float
    eval_s: float
    confidences: Sequence[int] = ()
    why: str = ""
    seconds: float = 0.0

    def cut(self, n_tokens: int) -> "Step":
        """The same with its first `n_tokens` tokens only, because a stop string ended there."""
        n_accepted = min(self.accepted, n_tokens)
        return self._replace(tokens=self.tokens[:n_tokens], accepted=n_accepted)
