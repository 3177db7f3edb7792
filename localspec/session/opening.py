"""A session that opens: its plan is made and its weights load while the rest is imported.

with opening(config, notify) as begun:
    from localspec.session.session import Session       # NumPy, drafters, the dialogue
    session = Session.opened(begun)

Its plan has its draft head, and all that was left open and changes no answer but for rounding as it
is fastest here for this context: threads, repacking, mapping, attention and micro-batches, by what
`engine.cpu_ways` measured of this machine. Choosing takes milliseconds; measuring, once for a type
of weights and heads, takes up to three seconds. On devices the engine's own choices stand.

What would be faster and changes numbers is offered once, with its gain and its cost. Coarser keys
are read faster, but with some kernels a prompt is not, and every number moves a little. So nobody
gets them unasked; `tune` measures gain and divergence on the model itself. So it is with lighter
weights (`session.lighter_weights`), which `quality` measures.
"""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from localspec import paths
from localspec.dialogue.renderer import RENDERER
from localspec.engine.base import EngineConfig
from localspec.engine.cpu_ways import KEYS, VALUES, kept_ways
from localspec.engine.cpu_ways_question import WayQuestion, measured_ways
from localspec.engine.interrupt import Interrupt
from localspec.engine.threads import thread_counts
from localspec.errors import EngineError
from localspec.format import count
from localspec.gguf.reader import fingerprint
from localspec.hardware.activity import Watch
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import ModelFacts
from localspec.model.kv import cache_type
from localspec.notify import Notify, Progress, silent
from localspec.session.chat_template import choose_template
from localspec.session.fastest import FastestHere, main_heads, main_type, repacks_here
from localspec.session.loading import EnginePlan, sound_plan
from localspec.session.session_config import Expected, SessionConfig
from localspec.store import hashed

if TYPE_CHECKING:
    from localspec.engine.llama.parameters import EarlyWeights
    from localspec.engine.timing import TimedEngine, TimedHead


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


def load_head(
    plan: EnginePlan, target: "TimedEngine", notify: Notify
) -> "tuple[EnginePlan, TimedHead | None]":
    """The plan's draft head, or a sentence why this engine goes on without."""
    assert plan.head
    try:
        return plan, target.head(plan.head.facts, plan.max_draft)
    except EngineError as error:
        notify(f"drafts of {plan.head.name} are off: {error}")
        return replace(plan, head=None), None


def ready_plan(config: SessionConfig, notify: Notify) -> EnginePlan:
    """A sound plan in which everything that was left open is as it is fastest here."""
    plan = chosen_plan(sound_plan(config, notify), config, notify)
    if told := offered(plan, config):
        notify(told)
    return plan


def talking_plan(config: SessionConfig, notify: Notify) -> EnginePlan:
    """A ready plan whose chat template has been compiled."""
    RENDERER.start()
    plan = ready_plan(config, notify)
    choose_template(plan.facts.tokenizer, plan.template).compiled()
    return plan


SMALL_BYTES = 1 << 30
"""What loads in less than a second: nobody watches that or interrupts it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a session is made of. `early` None: its engine loads where it is made."""

    config: SessionConfig
    plan: EnginePlan
    interrupt: Interrupt
    notify: Notify
    on_progress: Progress
    early: "EarlyWeights | None"
    watch: Watch
    """On the machine since loading began."""


@contextmanager
def opening(
    config: SessionConfig,
    notify: Notify = silent,
    on_progress: Progress = lambda fraction: None,
    *,
    talks: bool = False,
) -> Generator[Begun]:
    """Check what can be checked without loading, then begin to load.

    What is not taken by `Session.opened` is freed at the end. `talks`: the chat template will be
    used, so that a broken one costs no loading. Raises LocalspecError.
    """
    plan = talking_plan(config, notify) if talks else ready_plan(config, notify)
    with Interrupt() as interrupt:
        early, watch = _begun(plan, interrupt, on_progress), Watch()
        try:
            yield Begun(config, plan, interrupt, notify, on_progress, early, watch)
        finally:
            if early:
                early.drop()


def _begun(plan: EnginePlan, interrupt: Interrupt, on_progress: Progress) -> "EarlyWeights | None":
    """None for an engine that stands in another process."""
    if plan.target.settings.workers:
        return None
    from localspec.engine.llama.parameters import EarlyWeights  # noqa: PLC0415 - loads libllama

    is_small = plan.facts.weight_bytes < SMALL_BYTES
    return EarlyWeights(plan.target, interrupt, None if is_small else on_progress)


SLOWER_PROMPTS = 0.8
"""Of the usual speed: worth a word."""
OFFERED, OFFER_GAIN, DIVERGENCE = KEYS[1], 1.1, 0.001
"""What is offered from which gain on, and its usual divergence in nats a token (llama.cpp, pull
request 7412: 0.00094 for LLaMA-3-8B with q8_0 keys; small models lose some 0.004)."""


def offered(plan: EnginePlan, config: SessionConfig) -> str | None:
    """A sentence on keys or weights that would be faster and change numbers; each only once for a
    model, and not where somebody tuned it or wants nothing chosen."""
    if not config.open:
        return None
    settings = plan.target.settings
    here = FastestHere(plan.target, plan.facts, kept_ways(), config.expected)
    if settings.gpu_layers or settings.workers:
        return offer_weights(here, by_bytes=True)
    return slower_prompts(here) or offer(here) or offer_weights(here)


def slower_prompts(here: FastestHere) -> str | None:
    """A sentence on keys and values that somebody chose and that make prompts take longer here."""
    settings = here.config.settings
    chosen, usual_types = (settings.kv_k, settings.kv_v), (KEYS[0], VALUES)
    usual = replace(here, config=here.config.with_settings(kv_k=KEYS[0], kv_v=VALUES))
    known = {way.types for way in here.attention_ways}
    if chosen == usual_types or not {chosen, usual_types} <= known:
        return None
    ratio = usual.read_s / here.read_s
    if ratio > SLOWER_PROMPTS:
        return None
    kinds = ((settings.kv_k, KEYS[0], "keys"), (settings.kv_v, VALUES, "values"))
    named = " and ".join(f"{kind} {noun}" for kind, usual_kind, noun in kinds if kind != usual_kind)
    return (
        f"prompts of {here.depth:,} tokens are read {ratio:.2f} x as fast with {named} as with"
        f" {KEYS[0]} ones here"
    )


def offer(here: FastestHere) -> str | None:
    """The same for a text that is expected."""
    faster = here.config.with_settings(kv_k=OFFERED)
    other = replace(here, config=faster)
    types = here.config.settings.kv_k, here.config.settings.kv_v
    is_known = (OFFERED, VALUES) in {way.types for way in here.attention_ways}
    if not is_known or types != (KEYS[0], VALUES) or not other.token_s:
        return None
    gain, reading = here.token_s / other.token_s, here.read_s / other.read_s
    if gain < OFFER_GAIN or not _first_time(here.config):
        return None
    return (
        f"{OFFERED} keys would decode {gain:.2f} x as fast {count(here.depth, 'token')} deep"
        f" and read prompts {reading:.2f} x as fast, for some {DIVERGENCE} nats a token:"
        " `localspec tune --quick` settles it"
    )


def offer_weights(here: FastestHere, *, by_bytes: bool = False) -> str | None:
    """The same for lighter weights, which are looked for once."""
    if not _first_time(here.config, " weights"):
        return None
    from localspec.session.lighter_weights import lighter_weights  # noqa: PLC0415 - once for a model

    return lighter_weights(here, by_bytes=by_bytes)


def _first_time(config: EngineConfig, what: str = "") -> bool:
    """Whether this model has not been offered that yet; from now on it has."""
    path = hashed(paths.cache_dir() / "offers", fingerprint(config.model) + what)
    is_first = not path.exists()
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return is_first
