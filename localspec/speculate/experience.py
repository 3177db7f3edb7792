"""What a session has learned, and goes on to learn, of its costs and its drafters."""

from dataclasses import dataclass, field

from localspec.speculate.acceptance import LOOKUP_PRIOR, MODEL_PRIOR, Acceptance
from localspec.speculate.costs import PassCosts
from localspec.speculate.ledger import Ledger
from localspec.speculate.parking import Parking
from localspec.speculate.rest import Rest

READ_WIDTH = 64
"""A batch of the draft model as it reads; its seconds a token are taken from one this wide."""


@dataclass(slots=True)
class Experience:
    target: PassCosts
    draft: PassCosts | None = None
    by_regime: dict[str, dict[str, Acceptance]] = field(
        default_factory=dict[str, dict[str, Acceptance]]
    )
    ledger: Ledger = field(default_factory=Ledger)
    parking: Parking = field(default_factory=Parking)
    rest: Rest = field(default_factory=Rest)

    def acceptance(self, regime: str) -> dict[str, Acceptance]:
        """By drafter. Greedy replies, matched and rejected samples accept differently."""
        return self.by_regime.setdefault(
            regime,
            {"suffix": Acceptance(LOOKUP_PRIOR, 0.5), "model": Acceptance(MODEL_PRIOR, 0.7)},
        )
