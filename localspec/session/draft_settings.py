"""With or without flash attention, which drafts faster? Tried once for a draft model and machine.

Drafts are verified, so the settings of the draft model are free. On a processor whose flash
attention is slow at one token, a draft costs half without it; on GPUs it is the other way round.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from localspec.engine.base import EngineConfig
from localspec.model.facts import cache_type
from localspec.session.calibration import calibration_path, keep, measure

if TYPE_CHECKING:
    from localspec.engine.llama.engine import LlamaEngine

DRAFT_LIMIT_S = 0.7
"""For each of the two."""
DRAFT_DEPTH = 256
FLASH_CHOICES: tuple[Literal["auto", "off"], ...] = ("auto", "off")


def fastest_draft(
    config: EngineConfig, load: Callable[[EngineConfig], "LlamaEngine"]
) -> EngineConfig:
    """`config` with the flash attention that drafts fastest, unless the user chose it.

    Loads the draft model twice where this is not known yet; both are closed again.
    """
    if config.flash_attn != "auto" or cache_type(config.kv_v).is_quantized:
        return config
    path = calibration_path(config, None).with_suffix(".draft.json")
    flash = _kept_flash(path.read_text()) if path.exists() else None
    if flash is None:
        seconds = {choice: _draft_s(replace(config, flash_attn=choice), load) for choice in FLASH_CHOICES}
        flash = min(FLASH_CHOICES, key=lambda choice: seconds[choice])
        keep(path, {"flash_attn": flash, "token_s": seconds})
    return replace(config, flash_attn=flash)


def _kept_flash(text: str) -> Literal["auto", "off"] | None:
    try:
        flash = json.loads(text)["flash_attn"]
    except (ValueError, TypeError, KeyError):
        return None
    return flash if flash in FLASH_CHOICES else None


def _draft_s(config: EngineConfig, load: Callable[[EngineConfig], "LlamaEngine"]) -> float:
    """Seconds of one drafted token behind some text."""
    engine = load(config)
    try:
        return measure(engine, (), DRAFT_LIMIT_S).seconds(1, DRAFT_DEPTH)
    finally:
        engine.close()
