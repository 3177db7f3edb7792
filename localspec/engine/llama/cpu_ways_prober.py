"""Time the ways of computing on a processor, in a child process: `engine.cpu_ways` has the idea.

What is compared takes turns, there and back, and the least of its times counts: other programs only
add to them.

The question says when the time is up. Each way is timed once in any case, and again while there is
time. Where that is short, the measured model has fewer layers, the text is shorter, and keys that
are only offered are left out: what is large shows its differences sooner.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import product
from math import inf
from time import time
from typing import Any, TypeVar

import numpy as np

from localspec.engine.child import Say
from localspec.engine.cpu_ways import (
    ATTENTIVE_LAYERS,
    DEPTH,
    KEYS,
    N_READ,
    N_WIDE,
    THIN,
    VALUES,
    AttentionWay,
    WeightsWay,
)
from localspec.engine.cpu_ways_question import WayQuestion
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.llama.overhead import opened, switch, written
from localspec.engine.probe import ProbeSetting
from localspec.engine.timing import Clock, Timer, there_and_back
from localspec.gguf.types import BY_NAME
from localspec.model.kv import cache_type
from localspec.model.synthetic import Shape

SHAPE = Shape(n_embd=2048, n_heads=32, n_kv_heads=8, n_ff=8192)
N_LAYERS, LAYERS_BYTES = 5, 160e6
"""Of the measured model, and how many bytes do in any case: no usual cache holds them."""
LAYER_ELEMENTS = 2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192
ROUNDS, FEWEST_ROUNDS, LIMIT_S = 12, 3, 0.5
"""Turns of each comparison, those of all ways, and how long they may take."""
FAR_BEHIND = 1.3
"""Of the least time: that much no neighbour makes up for."""
SHORT_ROUNDS, SHORT_LIMIT_S = 24, 0.3
"""The same for passes of a fraction of a millisecond, which a neighbour disturbs all at once."""
OTHERS_BYTES = 64 << 20
"""Of what is read between them, as a model's other weights are."""
FILES_SHARE, WEIGHTS_SHARE = 0.5, 0.5
"""Of the time: for writing and loading models, and for all of the weights where attention follows.
"""
DEPTHS = (DEPTH // 8, DEPTH // 4, DEPTH // 2, DEPTH)
"""Of the text, as far as the time goes."""
READS_AHEAD = 8
"""As much of the time that is left as the last step took must be there for the next one: the second
half of a text takes two to four times as long as the first, and what is measured follows."""
BLOCK = 32
"""Numbers of a quantized key go in blocks of so many."""

T = TypeVar("T")
Kernel = tuple[bool, tuple[str, str]]
"""Whether it is the fused one, and the types of keys and values."""
Pass = tuple[float, float]
"""Seconds of a token, and of one in a prompt."""


def least(
    ways: Sequence[T], seconds: Callable[[T], float], n_rounds: int, clock: Clock
) -> dict[T, float]:
    """The least seconds of each way, in turns: some, and as many as fit into the time.

    The first one warms up, and counts. Who is far behind after that is not asked again.
    """
    best = dict.fromkeys(ways, inf)
    for i, order in enumerate(there_and_back(ways, n_rounds)):
        before_s, close_s = clock.left_s, FAR_BEHIND * min(best.values())
        for way in order:
            if i < FEWEST_ROUNDS or best[way] <= close_s:
                best[way] = min(best[way], seconds(way))
        if i + 1 >= FEWEST_ROUNDS and 2 * clock.left_s < before_s:
            break
    return best


def n_layers_within(kind: str, layer_s: float, limit_s: float) -> int:
    """Layers of the measured model: as many as make it large, if files of them take no longer than
    the limit."""
    layer_bytes = LAYER_ELEMENTS * BY_NAME[kind].bits_per_element / 8
    return max(1, min(N_LAYERS, round(LAYERS_BYTES / layer_bytes), int(limit_s / layer_s)))


def weights(question: WayQuestion, clock: Clock, end: float, say: Say) -> None:
    """One token by the weights of a large model, and a piece of a prompt by those of a small one:
    wide passes compute, so that its size does not matter, nor whether it is mapped.

    `end`: the share of the time when it is over.
    """
    kind, counts, loadings = question.weights or "", question.counts, question.loadings
    repacks = list(dict.fromkeys(repack for repack, _ in loadings))
    with ExitStack() as stack:

        def timer_of(path: Any, repack: bool, is_mapped: bool) -> Timer:
            setting = ProbeSetting(max(counts), 0, repack, is_mapped=is_mapped)
            return stack.enter_context(opened(path, setting))

        one_layer = stack.enter_context(written(SHAPE, 1, kind))
        small = {repack: timer_of(one_layer, repack, False) for repack in repacks}
        layer_s, files_s = clock.spent_s, clock.until(FILES_SHARE * end)
        n_layers = n_layers_within(kind, layer_s * len(loadings) / len(repacks), files_s)
        path, large = one_layer, {(repack, False): timer for repack, timer in small.items()}
        if n_layers > 1:
            path, large = stack.enter_context(written(SHAPE, n_layers, kind)), {}
        # What is mapped comes last: it makes the system forget how it has cached the file.
        for way in sorted(loadings, key=lambda way: way[1]):
            large[way] = large.get(way) or timer_of(path, *way)

        def token_s(way: tuple[tuple[bool, bool], int]) -> float:
            loading, n = way
            large[loading].context.engine.set_threads(n, n)
            return large[loading].seconds(1, 0)

        def read_s(way: tuple[bool, int]) -> float:
            repack, n = way
            small[repack].context.engine.set_threads(n, n)
            return small[repack].seconds(N_READ, 0) / N_READ

        narrow = clock.within(0.6 * clock.until(end), LIMIT_S)
        tokens = least(list(product(loadings, counts)), token_s, ROUNDS, narrow)
        wide = clock.within(clock.until(end), LIMIT_S)
        reads = least(list(product(repacks, counts)), read_s, ROUNDS, wide)
        scale = N_LAYERS / n_layers
        load_s = {way: scale * _load_s(timer) for way, timer in large.items()}
    for (loading, n), seconds in tokens.items():
        repack, is_mapped = loading
        times = scale * seconds, reads[repack, n], load_s[loading]
        say(WeightsWay(repack, n, *times, is_mapped))


def _load_s(timer: Timer) -> float:
    engine = timer.context.engine
    assert isinstance(engine, LlamaEngine)
    return engine.load_s


def attention(question: WayQuestion, clock: Clock, say: Say) -> None:
    """A token and a piece of a prompt through thin layers of the model's heads, behind nothing and
    behind a text."""
    assert question.heads
    n_heads, n_kv_heads, head_size = question.heads
    shape = Shape(
        n_embd=THIN, n_ff=THIN, n_heads=n_heads, n_kv_heads=n_kv_heads, own_head_size=head_size
    )
    setting = ProbeSetting(max(question.counts), 0, repack=False)
    with ExitStack() as stack:
        path = stack.enter_context(written(shape, ATTENTIVE_LAYERS))
        timers = {
            (flash, (k, v)): stack.enter_context(
                opened(path, setting, kv_k=k, kv_v=v, flash_attn=switch(flash))
            )
            for flash, (k, v) in kernels_of(head_size, question.types)
        }
        times = attention_times(timers, question.types, clock)
    for (flash, (kv_k, kv_v)), seconds in times.items():
        say(AttentionWay(flash, kv_k, *seconds, kv_v=kv_v))


def kernels_of(head_size: int, chosen: tuple[str, str]) -> list[Kernel]:
    """Those to compare; the plain kernel multiplies no quantized values."""
    types = [(kind, VALUES) for kind in (KEYS if head_size % BLOCK == 0 else KEYS[:1])]
    types = list(dict.fromkeys([*types, chosen]))
    return [
        (flash, kv)
        for kv, flash in product(types, (True, False))
        if flash or not cache_type(kv[1]).is_quantized
    ]


def attention_times(
    timers: Mapping[Kernel, Timer], chosen: tuple[str, str], clock: Clock
) -> dict[Kernel, tuple[float, ...]]:
    """Seconds of a token behind nothing and behind DEPTH, and of one in a prompt alike.

    What lies between grows in proportion, so that a shorter text tells it, too. A model's layers
    find their program in the processor's caches, and their text not: what a text adds is measured
    with caches that hold neither, and added to passes that find both.
    """
    kernels = list(timers)
    warm = least(
        kernels,
        lambda each: timers[each].seconds(1, 0),
        SHORT_ROUNDS,
        clock.within(clock.left_s / 16, SHORT_LIMIT_S),
    )
    empty = _passes(timers, 0, clock.within(clock.left_s / 4))
    if READS_AHEAD * N_WIDE * sum(read_s for _, read_s in empty.values()) > clock.left_s:
        decisive = (chosen, (KEYS[0], VALUES))
        timers = {kernel: timer for kernel, timer in timers.items() if kernel[1] in decisive}
    depth = filled(list(timers.values()), clock)
    deep = _passes(timers, depth, clock)
    found: dict[Kernel, tuple[float, ...]] = {}
    for kernel in timers:
        token_s, read_s = (
            max(0.0, then - now) * DEPTH / depth
            for now, then in zip(empty[kernel], deep[kernel], strict=True)
        )
        own_s, prompt_s = warm[kernel], empty[kernel][1]
        found[kernel] = own_s, own_s + token_s, prompt_s, prompt_s + read_s
    return found


def _passes(timers: Mapping[Kernel, Timer], depth: int, clock: Clock) -> dict[Kernel, Pass]:
    """Seconds of a token, and of one in a prompt, behind a text."""
    kernels, short = list(timers), clock.within(clock.left_s / 2, SHORT_LIMIT_S)

    def token_s(kernel: Kernel) -> float:
        _others().sum()  # as a token's weights, which leave no text in the processor's caches
        return timers[kernel].seconds(1, depth)

    tokens = least(kernels, token_s, SHORT_ROUNDS, short)
    long = clock.within(clock.left_s, LIMIT_S)
    reads = least(kernels, lambda each: timers[each].seconds(N_WIDE, depth), ROUNDS, long)
    return {each: (tokens[each], reads[each] / N_WIDE) for each in kernels}


@cache
def _others() -> "np.ndarray[Any, np.dtype[np.uint64]]":
    return np.ones(OTHERS_BYTES // 8, np.uint64)


def filled(timers: Sequence[Timer], clock: Clock) -> int:
    """How many tokens all caches hold now: twice as many again while there is time.

    The second half of a text takes two to four times as long as the first one.
    """
    depth = 0
    for depth in DEPTHS:
        before_s = clock.left_s
        for timer in timers:
            timer.hold(depth)
        if READS_AHEAD * (before_s - clock.left_s) > clock.left_s:
            break
    return depth


def tell_ways(question: WayQuestion, until: float, say: Say) -> None:
    """Each way as soon as its seconds are known; `until` is a time of `time.time`."""
    clock = Clock(until - time())
    if question.weights:
        weights(question, clock, WEIGHTS_SHARE if question.heads else 1.0, say)
    if question.heads:
        attention(question, clock, say)
