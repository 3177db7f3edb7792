"""temporary"""
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

@dataclass(frozen=True, slots=True)
class HeadFacts:
    method: Literal["mtp", "gemma4-assistant", "eagle3", "dflash", "dspark"]
    path: Path | None = None
    n_heads: int = 1
    n_draft_max: int | None = None
    taps: tuple[int, ...] = ()
    n_embd: int = 0
    n_vocab_draft: int | None = None
    needs_target_cache: bool = False
    bytes: int = 0
