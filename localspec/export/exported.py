"""An export, and the questions that all exports ask of a configuration."""

from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from localspec.gguf.reader import read_header
from localspec.model.facts import HeadMethod
from localspec.model.kind import kind_of
from localspec.session.session_config import SessionConfig
from localspec.settings import OWN, ROWS

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


_METHODS: dict[str, HeadMethod] = {
    "MTP head": "mtp",
    "assistant": "gemma4-assistant",
    "EAGLE-3 head": "eagle3",
    "DFlash head": "dflash",
    "DSpark head": "dspark",
}


@dataclass(frozen=True, slots=True)
class ExportedHead:
    """A draft head; `path` None: it is in the model's own file."""

    method: HeadMethod
    path: Path | None = None


def head_in(config: SessionConfig) -> ExportedHead | None:
    """The draft head, where one is used. Raises ModelError for a file that is damaged."""
    settings = config.settings
    if settings.spec in ("none", "lookup", "draft"):
        return None
    if settings.draft == OWN or (settings.spec == "mtp" and config.draft is None):
        return ExportedHead("mtp")
    method = _method_of(config.draft) if config.draft and config.draft.is_file() else None
    return ExportedHead(method, config.draft) if method else None


@lru_cache(maxsize=1)
def _method_of(path: Path) -> HeadMethod | None:
    return _METHODS.get(kind_of(read_header(path)).name)


def draft_of(config: SessionConfig) -> Path | None:
    """The draft model, where one is used."""
    is_used = config.settings.spec in ("auto", "draft") and not head_in(config)
    return config.draft if is_used else None


def looks_up(config: SessionConfig) -> bool:
    """Whether drafts come from the text itself."""
    settings = config.settings
    is_alone = config.draft is None and not head_in(config)
    return settings.spec == "lookup" or (settings.spec == "auto" and is_alone)


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
