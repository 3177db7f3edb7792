"""What an export is, and the questions that all of them ask of a configuration."""

from dataclasses import dataclass
from pathlib import Path

from localspec.session.config import SessionConfig

DEFAULT_DRAFT = 3
"""Where the length is left to localspec, which adapts it; others have one for all."""
ADAPTS = (
    "adapt the draft length to what it costs and gains, or stop drafting where that does not pay"
)


@dataclass(frozen=True, slots=True)
class Exported:
    """`text` is what to run or to save; `cannot`: clauses after "it cannot"; `notes`: sentences."""

    text: str
    cannot: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def draft_of(config: SessionConfig) -> Path | None:
    """The draft model, where one is used."""
    return config.draft if config.spec in ("auto", "draft") else None


def looks_up(config: SessionConfig) -> bool:
    """Whether drafts come from the text itself."""
    return config.spec == "lookup" or (config.spec == "auto" and config.draft is None)


def draft_length(config: SessionConfig) -> int:
    return config.draft_max or DEFAULT_DRAFT


def drafts(config: SessionConfig) -> bool:
    return config.spec != "none"


def is_exact(config: SessionConfig) -> bool:
    """Whether the cache is the usual f16 one."""
    return config.kv_k == config.kv_v == "f16"


def fp8_for(config: SessionConfig) -> bool:
    """Whether an 8-bit cache is the nearest to what was tuned."""
    return not {config.kv_k, config.kv_v} <= {"f32", "f16", "bf16"}
