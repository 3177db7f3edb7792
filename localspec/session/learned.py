"""What a session knows of its speed and its drafts when it begins, and what it keeps at its end.

First a prediction of the roofline, from what an earlier probe measured of this machine; then the
measurements of `calibration`; then what earlier sessions of the same pair learned from every pass.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from localspec.decode.chances import Learned
from localspec.decode.costs import PassCosts
from localspec.decode.curve import PassCurve, predicted
from localspec.decode.drafters.draft_model import ModelDrafter
from localspec.decode.offers import WINDOW
from localspec.forecast.forecast import Expectation
from localspec.session.calibration import (
    LIMIT_S,
    TARGET_SHARE,
    calibration_path,
    kept_costs,
    measure,
    measure_change,
)
from localspec.session.loading import EnginePlan

if TYPE_CHECKING:
    from localspec.engine.llama.engine import LlamaEngine

WIDTHS = (4, 2, 3, 5, 8, 6, 12, 17)
"""Of verification batches, by their usual worth."""
CHANGE_LIMIT_S = 0.2
"""Where passes take longer, a change of width does not matter."""
DRAFT_WIDTHS = (WINDOW, 2)
_MEMORY = 0.5
"""How much of what earlier sessions learned of acceptance still counts."""
_FORMER_SOURCES = {"suffix": "lookup"}


class LearnedStore:
    """Loads and keeps what is learned of a pair of engines."""

    def __init__(
        self, plan: EnginePlan, target: "LlamaEngine", draft: "LlamaEngine | None"
    ) -> None:
        self._target, self._draft = target, draft
        self._facts, self._max_draft = plan.facts, plan.max_draft
        self._kept = kept_costs(calibration_path(target.config, draft.config if draft else None))
        self.learned: Learned | None = None

    def load(self) -> Learned:
        """What is kept, or measured now."""
        kept = self._kept.load()
        if kept is None:
            kept = self._measured()
            self._kept.save(kept)
        target = PassCosts(PassCurve.of(kept["target"]), change_s=kept["change_s"])
        self.learned = Learned(target)
        if self._draft and kept["draft"]:
            draft = PassCosts(PassCurve.of(kept["draft"]), reference=target)
            self.learned.drafting[ModelDrafter.source] = draft
        acceptance: dict[str, dict[str, Any]] = kept.get("acceptance", {})
        for law, by_source in acceptance.items():
            for source, counts in by_source.items():
                chances = self.learned.chances(law, _FORMER_SOURCES.get(source, source))
                chances.recall(_counts(counts), _MEMORY)
        return self.learned

    def keep(self) -> None:
        """Keep what was learned; what cannot be written is measured again the next time."""
        learned = self.learned
        if learned is None:
            return
        acceptance = {
            law: {
                source: chances.counts()
                for source, chances in by_source.items()
                if chances.n_judged
            }
            for law, by_source in learned.by_law.items()
        }
        draft = learned.drafting.get(ModelDrafter.source)
        document = {
            "target": learned.target.learned().rows,
            "change_s": learned.target.change_s,
            "draft": draft.learned().rows if draft else None,
            "acceptance": acceptance,
        }
        try:
            self._kept.save(document)
        except OSError:
            return

    def _measured(self) -> dict[str, Any]:
        widths = [n for n in WIDTHS if n <= self._max_draft + 1]
        share = TARGET_SHARE if self._draft else 1.0
        target = measure(self._target, widths, share * LIMIT_S, self._prediction([1, *widths]))
        change_s = measure_change(self._target, target.seconds(1, 0), CHANGE_LIMIT_S)
        draft = None
        if self._draft:
            draft = measure(self._draft, DRAFT_WIDTHS, (1 - share) * LIMIT_S)
        return {
            "target": target.rows,
            "change_s": change_s,
            "draft": draft.rows if draft else None,
        }

    def _prediction(self, widths: Sequence[int]) -> PassCurve | None:
        """The roofline's, if this machine was probed for such a model before."""
        expected = Expectation.of(self._target.config, self._facts)
        return expected and predicted(expected.roofline.seconds, sorted(widths))


def _counts(kept: dict[str, Any]) -> dict[str, Any]:
    """Counts by bin; the first edition named them otherwise."""
    if "bins" in kept:
        return kept
    return {"n_judged": kept["n_seen"], "any": kept["all"], "bins": kept["by_quality"]}
