"""What a constraint leaves no choice about: the rest of a key, a constant, a closing bracket.

The text is certain, its split into tokens is not: the target may say `"na` and `me"` where the
vocabulary's own split is `"name"`. So the tokens are verified as any draft, and the answer is that
of the same constraint without drafts. A token that is the only one to follow cannot be refused.
"""

from collections.abc import Sequence
from typing import ClassVar, Self

from localspec.decode.drafters.base import NO_DRAFT, Draft, DraftRequest
from localspec.engine.base import Engine, Head
from localspec.engine.constraint import Constraint


class ForcedDrafter:
    """Drafts the usual tokens of what must follow; nothing without a constraint."""

    source: ClassVar[str] = "forced"
    option: ClassVar[str] = "forced"
    label: ClassVar[str] = "grammar"
    is_free: ClassVar[bool] = True
    n_confidences: ClassVar[int] = 1
    n_longest: int | None = None
    is_at_once: bool = True

    @classmethod
    def of(cls, target: Engine, draft: Engine | None, head: Head | None) -> Self:
        """For any target."""
        return cls()

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """One draft for each request."""
        drafts: list[Draft] = []
        for each in requests:
            if not each.n_tokens:
                drafts.append(NO_DRAFT)
            else:
                drafts.append(self._one(each, each.constraint) if each.constraint else _NOTHING)
        return drafts

    def forget(self) -> None:
        """It knows nothing of earlier replies."""

    def _one(self, request: DraftRequest, constraint: Constraint) -> Draft:
        tokens = constraint.forced(request.history)[: request.n_tokens]
        return Draft(tokens, self.source, None, (0,) * len(tokens))


_NOTHING = Draft((), ForcedDrafter.source)
