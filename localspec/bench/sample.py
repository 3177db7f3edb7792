"""What measuring gives: samples as they came, with nothing derived stored."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition. Seconds on the wall's clock; None is what was not measured.

    `prefill_s`: all sequences' prompts evaluated. `first_s`: from the request to the first token.
    `decode_s`: from the first token to the last, in which `n_tokens` came (of all sequences) with
    `n_passes` of the target; `engine_s` of it inside the target's engine, `draft_s` in drafting.
    """

    prefill_s: float | None = None
    first_s: float | None = None
    n_prompt: int = 0
    decode_s: float | None = None
    engine_s: float = 0.0
    draft_s: float = 0.0
    n_tokens: int = 0
    n_passes: int = 0
    drafted: int = 0
    accepted: int = 0
    category: str | None = None

    @property
    def decode_tps(self) -> float | None:
        """Of all sequences."""
        return self.n_tokens / self.decode_s if self.decode_s and self.n_tokens else None

    @property
    def prefill_tps(self) -> float | None:
        return self.n_prompt / self.prefill_s if self.prefill_s else None

    @property
    def outside_s(self) -> float | None:
        """Of `decode_s`: sampling, text and Python."""
        return None if self.decode_s is None else self.decode_s - self.engine_s - self.draft_s

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Raises TypeError where it is none."""
        known = {name: document[name] for name in cls.__slots__ if name in document}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one visit to a case gave. `curve`: seconds of single passes, by width in tokens.

    `peak_bytes`: of the process, resident. `speculation`: what "auto" turned out to be.
    `notes`: what the session said while it was opened.
    """

    samples: tuple[Sample, ...]
    curve: Mapping[int, tuple[float, ...]] = field(default_factory=dict[int, tuple[float, ...]])
    load_s: float | None = None
    peak_bytes: int | None = None
    speculation: str = "none"
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "samples": [
                {name: value for name, value in asdict(sample).items() if value is not None}
                for sample in self.samples
            ],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError or AttributeError where it is none."""
        return cls(
            samples=tuple(Sample.from_json(sample) for sample in document["samples"]),
            curve={int(n): tuple(times) for n, times in document["curve"].items()},
            load_s=document["load_s"],
            peak_bytes=document["peak_bytes"],
            speculation=document["speculation"],
            notes=tuple(document["notes"]),
        )
