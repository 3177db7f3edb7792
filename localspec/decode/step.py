"""The one event: what a pass of the target added to a reply. All statistics are folds over it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Step:
    """One pass of the target: the tokens that it added to the reply and where they came from.

    `accepted` of the `drafted` tokens are among `tokens`. An end-of-generation token is not.
    `evaluated` counts what the target took in: with the first step, all of the prompt that its
    cache did not hold. `source` is who drafted, "none" for a plain pass; a drafter that was asked
    and found nothing worth verifying is named with `drafted` 0. `confidences` are those of the draft,
    `why` names the decision.
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

    def cut(self, n_tokens: int) -> "Step":
        """The same with its first `n_tokens` tokens only, because a stop string ended there."""
        n_accepted = min(self.accepted, n_tokens)
        return replace(self, tokens=self.tokens[:n_tokens], accepted=n_accepted)
