"""Which attention kernel: the fused one or the plain one, as measured here.

Both give the same answer but for rounding. Which is faster depends on processor, build, model and
depth: on x86 the fused kernel is slow for heads of 64. On GPUs it is the faster one, and a driver
may compile for minutes before it can be timed. So where the setting is open and the processor
computes all layers, the loaded weights are asked: two small caches take turns behind some text.
What was found is kept by model, machine, engine build, settings and power state.
"""

from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, cast

from localspec.engine.base import EngineConfig
from localspec.engine.timing import TimedEngine, Timer, there_and_back
from localspec.hardware.activity import BUSY, Watch
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import ModelFacts
from localspec.model.kv import CELLS_STEP, cache_type, padded_cells
from localspec.notify import Notify
from localspec.session.calibration import calibration_path
from localspec.settings import FlashAttention
from localspec.store import Kept, document_of, value_of

if TYPE_CHECKING:
    from localspec.engine.llama.engine import LlamaEngine

CHOICES: tuple[FlashAttention, ...] = ("auto", "off")
DEPTH, LEAST_DEPTH, FIRST = 1024, 128, 64
"""Tokens behind which passes are timed: at most, at least, and to see how many can be read."""
READING_S = 0.6
"""For each of the two."""
ROUNDS, N_TOKENS = 4, 4
ANSWER_SHARE = 0.25
"""An answer is taken to be a quarter as long as what it is behind."""
CLEARLY = 1.05
"""Noise must not move a default."""
ROOM_SHARE = 0.1
"""Of the free memory, for the scores that the plain kernel writes out."""


@dataclass(frozen=True, slots=True)
class Found:
    """Seconds of one text and its answer with each kernel, `depth` tokens deep; 0: not timed."""

    depth: int
    auto_s: float
    off_s: float

    @property
    def choice(self) -> FlashAttention:
        return "off" if CLEARLY * self.off_s < self.auto_s else "auto"

    @property
    def text(self) -> str:
        """Why the fused kernel is off."""
        gain = self.auto_s / self.off_s
        return (
            f"flash attention is off: {gain:.2f} x as fast here, {self.depth:,} tokens deep"
            " (--no-auto leaves it on)"
        )


def is_open(config: EngineConfig, facts: ModelFacts) -> bool:
    """Whether there is a choice: not on GPUs, with quantized values, or with scores beyond
    memory."""
    settings = config.settings
    if settings.flash_attn != "auto" or cache_type(settings.kv_v).is_quantized:
        return False
    if settings.gpu_layers or settings.workers:
        return False
    n_heads = max((layer.n_heads or 0 for layer in facts.layers), default=0)
    scores_bytes = 4 * n_heads * config.n_ctx * min(settings.ubatch, config.n_ctx)
    return 0 < scores_bytes <= ROOM_SHARE * available_memory_bytes()


def fastest(
    config: EngineConfig, load: Callable[[EngineConfig], TimedEngine], notify: Notify
) -> tuple[EngineConfig, TimedEngine]:
    """The configuration with the faster kernel, loaded; `notify` hears where that is the plain one.

    Where it is not known yet, it is measured on the loaded weights, which are loaded again if the
    plain kernel wins. That other programs left no time to read anything is not kept.
    """
    kept = _kept(config)
    found = kept.load()
    engine = load(_chosen(config, found))
    if found is None:
        notify("measuring once which attention is faster here")
        found = _kept_if_calm(kept, config, engine)
        if _chosen(config, found) != config:
            engine.close()
            engine = load(_chosen(config, found))
    if found.choice == "off":
        notify(found.text)
    return _chosen(config, found), engine


def _chosen(config: EngineConfig, found: Found | None) -> EngineConfig:
    return config.with_settings(flash_attn=found.choice) if found else config


def _kept_if_calm(kept: Kept[Found], config: EngineConfig, engine: TimedEngine) -> Found:
    """Closes the engine where measuring fails or is interrupted."""
    watch = Watch()
    try:
        found = _measured(config, cast("LlamaEngine", engine))  # `is_open` leaves out the other one
    except BaseException:
        engine.close()
        raise
    if found.depth or watch.stop().taken_share <= BUSY:
        with suppress(OSError):
            kept.save(found)
    return found


def _measured(config: EngineConfig, engine: "LlamaEngine") -> Found:
    with ExitStack() as stack:
        timers = [
            Timer(stack.enter_context(closing(_sibling(config, engine, choice))).context())
            for choice in CHOICES
        ]
        depth = _depth(timers[0], config)
        if depth < LEAST_DEPTH:
            return Found(0, 0.0, 0.0)
        reading = [timer.hold(depth) for timer in timers]
        token = [inf, inf]
        for order in there_and_back(range(len(timers)), ROUNDS):
            for i in order:
                token[i] = min(token[i], timers[i].token_s(N_TOKENS, depth))
    auto_s, off_s = (
        read + ANSWER_SHARE * depth * each for read, each in zip(reading, token, strict=True)
    )
    return Found(depth, auto_s, off_s)


def _sibling(config: EngineConfig, engine: "LlamaEngine", choice: FlashAttention) -> "LlamaEngine":
    """A small cache of its own on the same weights."""
    n_ctx = min(padded_cells(DEPTH + FIRST), max(CELLS_STEP, config.n_ctx))
    small = config.with_settings(flash_attn=choice, ctx=n_ctx, n_sequences=1, n_rs_seq=0)
    return engine.sibling(replace(small, n_outputs=1))


def _depth(timer: Timer, config: EngineConfig) -> int:
    """As deep as can be read in time, in whole steps."""
    timer.seconds(FIRST, 0)
    token_s = timer.seconds(FIRST, 0, 1) / FIRST
    room = min(DEPTH, config.n_ctx - FIRST)
    return max(0, min(room, int(READING_S / token_s))) // FIRST * FIRST


def _kept(config: EngineConfig) -> Kept[Found]:
    path = calibration_path(config.with_settings(flash_attn="auto"), None)
    return Kept(path.with_suffix(".flash.json"), partial(value_of, Found), document_of)
