"""What is left open and changes no answer but for rounding, as it is fastest here for this context.

A model's settings of threads, repacking, mapping, attention and micro-batches are compared by what
`engine.ways` measured of this machine. Choosing takes milliseconds; measuring, once for a type of
weights and heads, takes up to three seconds. On devices the engine's own choices stand.
"""

from dataclasses import replace
from functools import partial

from localspec.engine.base import EngineConfig
from localspec.engine.threads import thread_counts
from localspec.engine.way_question import WayQuestion, measured_ways
from localspec.engine.ways import KEYS, VALUES
from localspec.errors import EngineError
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import ModelFacts
from localspec.model.kv import cache_type
from localspec.notify import Notify
from localspec.session.asking import Expected, SessionConfig
from localspec.session.fastest import FastestHere, main_heads, main_type, repacks_here
from localspec.session.loading import EnginePlan

ROOM_SHARE = 0.1
"""Of the free memory, for the scores that the plain kernel writes out."""


def chosen_plan(plan: EnginePlan, config: SessionConfig, notify: Notify) -> EnginePlan:
    """The plan with the fastest of what is open; `notify` hears what differs from the engine's own
    choice, and why."""
    if not config.open:
        return plan
    choose = partial(_chosen, config.open, config.expected)
    target, reasons = choose(plan.target, plan.facts, notify)
    if reasons:
        notify(f"fastest here: {', '.join(reasons)} (--no-auto leaves it)")
    draft = plan.draft
    if draft and plan.draft_facts:
        draft, _ = choose(draft, plan.draft_facts, notify)
    return replace(plan, target=target, draft=draft)


def _chosen(
    names: frozenset[str],
    expected: Expected,
    config: EngineConfig,
    facts: ModelFacts,
    notify: Notify,
) -> tuple[EngineConfig, list[str]]:
    """The settings in `names` as they are fastest, and a clause on each that differs."""
    question = _question(names, config, facts)
    if config.settings.gpu_layers or config.settings.workers or question.is_empty:
        return config, []
    told = "measuring once what is fastest on this machine"
    try:
        ways = measured_ways(question, lambda: notify(told))
    except EngineError as error:
        notify(f"{error}; the engine's own choices stand")
        return config, []
    return FastestHere(config, facts, ways, expected).of(names)


def _question(names: frozenset[str], config: EngineConfig, facts: ModelFacts) -> WayQuestion:
    counts = thread_counts()
    is_threaded = names & {"threads", "threads_batch"} and len(counts) > 1
    is_open = is_threaded or names & {"repack", "mmap"}
    repacks = (True, False) if repacks_here(config, facts) else (False,)
    types = config.settings.kv_k, config.settings.kv_v
    is_chosen = types != (KEYS[0], VALUES)  # what it costs is said
    may_differ = "flash_attn" in names and may_be_plain(config, facts)
    heads = main_heads(facts) if may_differ or is_chosen else None
    weights = main_type(facts) if is_open or heads else None
    return WayQuestion(weights, heads, counts, repacks, types)


def may_be_plain(config: EngineConfig, facts: ModelFacts) -> bool:
    """Whether the plain kernel can be used: not with quantized values, or scores beyond memory."""
    settings = config.settings
    if settings.flash_attn != "auto" or cache_type(settings.kv_v).is_quantized:
        return False
    n_heads = max((layer.n_heads or 0 for layer in facts.layers), default=0)
    scores_bytes = 4 * n_heads * config.n_ctx * min(settings.ubatch, config.n_ctx)
    return 0 < scores_bytes <= ROOM_SHARE * available_memory_bytes()
