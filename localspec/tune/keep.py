"""A search's outcome as a profile that later commands use."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localspec.engine.base import EngineConfig
from localspec.session.profile import Circumstances, Profile, save_profile
from localspec.tune.goal import Goal
from localspec.tune.search import Outcome

_FIELDS = {
    "kv_k": "kv_k",
    "kv_v": "kv_v",
    "flash_attn": "flash_attn",
    "n_threads": "n_threads",
    "n_threads_batch": "n_threads_batch",
    "n_batch": "n_batch",
    "n_gpu_layers": "n_gpu_layers",
    "n_cpu_moe": "n_cpu_moe",
    "use_mmap": "use_mmap",
    "use_extra_buffers": "repack",
}
"""Of an engine's configuration, by the session's name for it."""


def changed_settings(outcome: Outcome, config: EngineConfig) -> dict[str, Any]:
    """Fields of `SessionConfig` that the outcome sets otherwise than the defaults do."""
    defaults = outcome.default.applied(config)
    tuned = outcome.setting.applied(config)
    changed = {
        name: getattr(tuned, field)
        for field, name in _FIELDS.items()
        if getattr(tuned, field) != getattr(defaults, field)
    }
    # Decoding and prompts have their own numbers of threads: neither must follow the other.
    if "n_threads" in changed:
        changed["n_threads_batch"] = tuned.n_threads_batch
    return changed | {
        name: str(value) if isinstance(value, Path) else value
        for name, value in outcome.speculation.items()
        if (name, value) != ("spec", "auto")
    }


def profile_of(outcome: Outcome, model: Path, config: EngineConfig, goal: Goal) -> Profile:
    """What is to be kept. Raises EngineError without an engine."""
    ratio = outcome.ratio
    return Profile(
        model=model.name,
        taken=f"{datetime.now(UTC):%Y-%m-%d}",
        n_ctx=config.n_ctx,
        goal=goal.name,
        circumstances=Circumstances.now(),
        settings=changed_settings(outcome, config),
        ratio=(ratio.low or ratio.mid, ratio.mid, ratio.high or ratio.mid),
        kld=outcome.kld,
        seconds=round(outcome.seconds, 1),
    )


def keep(outcome: Outcome, model: Path, config: EngineConfig, goal: Goal) -> Profile:
    """Keep it, and say what was kept."""
    profile = profile_of(outcome, model, config, goal)
    save_profile(model, profile)
    return profile
