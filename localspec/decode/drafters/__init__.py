"""Everybody who can draft: a new drafter is one class (see base.Drafter) and one line here."""

from localspec.decode.drafters.base import Drafter
from localspec.decode.drafters.draft_model import ModelDrafter
from localspec.decode.drafters.forced import ForcedDrafter
from localspec.decode.drafters.heads import DflashDrafter, Eagle3Drafter, HeadDrafter, MtpDrafter
from localspec.decode.drafters.lookup import LookupDrafter
from localspec.engine.base import Engine, Head
from localspec.model.facts import HeadMethod

DRAFTERS: tuple[type[Drafter], ...] = (
    LookupDrafter, ForcedDrafter, ModelDrafter, MtpDrafter, Eagle3Drafter, DflashDrafter,
)  # fmt: skip

LABELS = {kind.source: kind.label for kind in DRAFTERS}
"""Their names for people, by source."""

OPTIONS = {kind.source: kind.option for kind in DRAFTERS}
"""Their --spec values, by source."""


def head_kind(method: HeadMethod) -> type[HeadDrafter]:
    """Who drafts with heads of that method."""
    kinds = (kind for kind in DRAFTERS if issubclass(kind, HeadDrafter))
    return next(kind for kind in kinds if method in kind.methods)


N_CONFIDENCES = {kind.source: kind.n_confidences for kind in DRAFTERS}
"""How many bins of confidence they have, by source."""


def drafters_for(
    target: Engine, draft: Engine | None, head: Head | None = None
) -> dict[str, Drafter]:
    """One of each that these engines allow, by its --spec value."""
    made = {kind.option: kind.of(target, draft, head) for kind in DRAFTERS}
    return {option: drafter for option, drafter in made.items() if drafter}
