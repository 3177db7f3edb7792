"""An export, and the questions that all exports ask of a configuration."""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from localspec.session.config import SessionConfig
from localspec.settings import ROWS

DEFAULT_DRAFT = 3
"""Draft length where localspec would adapt it: other engines need a fixed one."""
ADAPTS = "adapt the draft length to its cost and gain, or stop drafting where it does not pay"

USUAL = frozenset({"ctx", "threads", "ubatch", "gpu_layers", "mmap", "flash_attn", "kv_k", "kv_v"})
"""Settings that every engine on llama.cpp knows."""


@dataclass(frozen=True, slots=True)
class Exported:
    """`text`: to run or to save. `cannot`: clauses after "it cannot". `notes`: sentences."""

    text: str
    cannot: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def draft_of(config: SessionConfig) -> Path | None:
    """The draft model, where one is used."""
    return config.draft if config.settings.spec in ("auto", "draft") else None


def looks_up(config: SessionConfig) -> bool:
    """Whether drafts come from the text itself."""
    settings = config.settings
    return settings.spec == "lookup" or (settings.spec == "auto" and config.draft is None)


def draft_length(config: SessionConfig) -> int:
    return config.settings.draft_max or DEFAULT_DRAFT


def drafts(config: SessionConfig) -> bool:
    return config.settings.spec != "none"


def fp8_for(config: SessionConfig) -> bool:
    """Whether an 8-bit cache is nearest to the tuned one."""
    return not {config.settings.kv_k, config.settings.kv_v} <= {"f32", "f16", "bf16"}


def not_told(config: SessionConfig, told: Set[str]) -> list[str]:
    """Clauses on changed settings that the other engine does not know.

    `told`: names of settings that it knows, or that mean nothing to it.
    """
    return [
        f"be told {ROWS[name].text(value)}"
        for name, value in config.settings.changed.items()
        if (ROWS[name].is_engine or name == "template") and name not in told
    ]
