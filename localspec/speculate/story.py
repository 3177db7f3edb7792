"""What speculation did for a reply, and why, in one line for people."""

from dataclasses import dataclass

from localspec.speculate.account import SpeculationCount

NAMES = {"suffix": "look-up", "model": "draft model"}


@dataclass(frozen=True, slots=True)
class Gain:
    """Times plain speed: what was expected of the passes with drafts, and what all of the reply
    came to; None where nothing was drafted or a policy does not estimate it.
    """

    predicted: float | None = None
    measured: float | None = None


def story(counts: SpeculationCount, gain: Gain, verdict: str) -> str:
    """E.g. "1.84 tokens a pass · draft model: 61 of 80 stood · 1.21 x plain (expected 1.25)"."""
    parts: list[str] = []
    if counts.drafted and counts.tokens_per_pass:
        parts.append(f"{counts.tokens_per_pass:.2f} tokens a pass")
    for source, count in counts.by_source.items():
        if count.drafted:
            parts.append(
                f"{NAMES.get(source, source)}: {count.accepted} of {count.drafted} drafts stood"
            )
    if gain.measured is not None and counts.drafted:
        expected = "" if gain.predicted is None else f" (expected {gain.predicted:.2f})"
        parts.append(f"about {gain.measured:.2f} x plain{expected}")
    if verdict:
        parts.append(verdict)
    return " · ".join(parts)
