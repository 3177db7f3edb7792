"""Time passes of random models: medians, each measured twice, on the way there and on the way back.

What other programs do meanwhile only ever adds time, so the lower of the two medians counts. Where
time is over, the rest of the way back is left out; weights take it from one token on.

How fast threads can read memory and do nothing else: the ceiling of decoding on a processor.
"""

from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from localspec.engine.base import EngineConfig
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.probe.run import ProbeSetting
from localspec.errors import EngineError
from localspec.gguf.types import BY_NAME
from localspec.hardware.probe_results import (
    SIZES_BYTES,
    AttentionCase,
    AttentionCost,
    Points,
    WeightCase,
    value_at,
)
from localspec.model.synthetic import Shape, write_random_model

WIDTHS = (1, 2, 3, 4, 5, 8, 9, 16, 32, 128)
OVERHEAD_WIDTHS = (1, 2, 4, 8, 16, 32, 128)
ATTENTION_WIDTHS = (1, 2, 4, 8, 16, 64)
WIDE = 128
"""Wide passes compute: how large the model is does not matter, and a small one tells it sooner."""
CELLS = (1, 1024)
THIN = Shape(n_embd=128, n_heads=2, n_kv_heads=2, n_ff=128)
THIN_LAYERS = (4, 36)
HEAD_SIZE, FF = 64, 6
"""Few layers with much in each, so that little depends on the overhead that is taken off."""
ATTENTIVE_LAYERS, ATTENTIVE_NUMBERS, HEADS_PER_KV = 8, 512, 2
"""Keys and values beyond a core's own cache, of heads that are too few to take long."""
FEWEST, MOST, ENOUGH_S, LONG_S = 2, 25, 0.03, 0.05
"""Repeats of a pass on one way: until they have taken enough; a long one is not repeated."""

Medians = dict[tuple[int, int], float]
"""Seconds by width of the pass and depth."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A loaded model of one sequence, ready to be timed at a depth."""

    engine: LlamaEngine
    context: LlamaContext

    def seconds(self, width: int, depth: int) -> float:
        """Of one pass of `width` tokens after `depth` cached ones, which stay cached."""
        tokens = [(7 * i + width) % 500 for i in range(width)]
        before = self.engine.busy_s
        self.context.eval(tokens, 1)
        elapsed = self.engine.busy_s - before
        self.context.truncate(depth)
        return elapsed

    def move_to(self, depth: int) -> None:
        """Cache as many tokens, or forget what is beyond them."""
        n_more = depth - len(self.context.tokens)
        if n_more > 0:
            self.context.eval([i % 500 for i in range(n_more)], 0)
        else:
            self.context.truncate(depth)

    def typical(self, width: int, depth: int) -> float:
        """The median of some passes, after one that warms up."""
        self.move_to(depth)
        first_s = self.seconds(width, depth)
        if first_s > LONG_S:
            return first_s
        times: list[float] = []
        while len(times) < FEWEST or (len(times) < MOST and sum(times) < ENOUGH_S):
            times.append(self.seconds(width, depth))
        return median(times)


def overhead(setting: ProbeSetting) -> tuple[Points, Points]:
    """Seconds of a pass without layers, and of a layer without weights, by width."""
    n_few, n_many = THIN_LAYERS
    with _loaded(setting, THIN, n_few) as few, _loaded(setting, THIN, n_many) as many:
        short, long = dict[int, float](), dict[int, float]()
        for width in (*OVERHEAD_WIDTHS, *reversed(OVERHEAD_WIDTHS)):
            for model, times in ((few, short), (many, long)):
                times[width] = min(model.typical(width, 0), times.get(width, inf))
    layers = {w: max(0.0, (long[w] - short[w]) / (n_many - n_few)) for w in OVERHEAD_WIDTHS}
    passes = {w: max(0.0, short[w] - n_few * layers[w]) for w in OVERHEAD_WIDTHS}
    return tuple(passes.items()), tuple(layers.items())


def weights(
    setting: ProbeSetting,
    case: WeightCase,
    fixed: tuple[Points, Points],
    widths: tuple[int, ...],
    known: Mapping[WeightCase, Points],
    until_s: float,
) -> Points:
    """Seconds an element by width of the pass, less the overhead of passes and layers.

    What is `known` of wide passes of the same matrices in another number is not measured again.
    """
    narrow = tuple(width for width in widths if width < WIDE)
    points = _element_s(setting, case, fixed, narrow, until_s)
    if not points[0][1]:
        raise EngineError("the machine was too busy to be measured: close other programs first")
    alike = (known[c] for c in known if (c.type, c.width) == (case.type, case.width))
    wide = tuple(point for point in next(alike, ()) if point[0] >= WIDE)
    if not wide:
        small = replace(case, size_bytes=min(SIZES_BYTES))
        wide = _element_s(setting, small, fixed, widths[len(narrow) :], until_s)
    return points + wide


def _element_s(
    setting: ProbeSetting,
    case: WeightCase,
    fixed: tuple[Points, Points],
    widths: tuple[int, ...],
    until_s: float,
) -> Points:
    heads = case.width // HEAD_SIZE
    shape = Shape(
        n_embd=case.width, n_heads=heads, n_kv_heads=max(1, heads // 4), n_ff=FF * case.width
    )
    layer_bytes = _elements(shape) * BY_NAME[case.type].bits_per_element / 8
    n_layers = max(2, round(case.size_bytes / layer_bytes))
    n_elements = n_layers * _elements(shape) + shape.n_vocab * shape.n_embd
    with _loaded(setting, shape, n_layers, case.type) as model:
        times = _medians(model, [(width, 0) for width in reversed(widths)], until_s)
    points: list[tuple[float, float]] = []
    for width in widths:
        overhead_s = value_at(fixed[0], width) + n_layers * value_at(fixed[1], width)
        points.append((width, max(times[width, 0] - overhead_s, 0.0) / n_elements))
    return tuple(points)


def attention(
    setting: ProbeSetting, case: AttentionCase, until_s: float
) -> tuple[AttentionCost, ...]:
    """Seconds a head and number of a head, by width and by cells in the cache."""
    shape = _attentive(case.head_size, setting.n_threads)
    kv, n_layers = (case.type_k, case.type_v), ATTENTIVE_LAYERS
    places = [(width, cells) for cells in CELLS for width in ATTENTION_WIDTHS]
    with _loaded(setting, shape, n_layers, kv=kv, flash=case.flash) as model:
        times = _medians(model, places, until_s)
    unit = n_layers * shape.n_heads * shape.head_size
    return tuple(
        AttentionCost(width, tuple((c, _more(times, width, c) / unit) for c in CELLS))
        for width in ATTENTION_WIDTHS
    )


def _more(times: Medians, width: int, cells: int) -> float:
    """What a cache of so many cells takes longer than an empty one."""
    return max(0.0, times[width, cells] - times[width, CELLS[0]])


def _medians(model: Timed, places: list[tuple[int, int]], until_s: float) -> Medians:
    """By width and depth."""
    found: Medians = {}
    for place in (*places, *reversed(places)):
        if place in found and perf_counter() > until_s:
            break
        found[place] = min(model.typical(*place), found.get(place, inf))
    return found


def _attentive(head_size: int, n_threads: int) -> Shape:
    """Heads of one size, enough for all threads, and little else."""
    n_numbers = max(ATTENTIVE_NUMBERS, n_threads * head_size)
    n_kv_heads = -(-n_numbers // (HEADS_PER_KV * head_size))
    return Shape(
        n_embd=256,
        n_heads=HEADS_PER_KV * n_kv_heads,
        n_kv_heads=n_kv_heads,
        n_ff=256,
        own_head_size=head_size,
    )


def _elements(shape: Shape) -> int:
    n_q, n_kv = shape.n_heads * shape.head_size, shape.n_kv_heads * shape.head_size
    return shape.n_embd * (2 * n_q + 2 * n_kv + 3 * shape.n_ff)


@contextmanager
def _loaded(
    setting: ProbeSetting,
    shape: Shape,
    n_layers: int,
    weight_type: str = "F16",
    kv: tuple[str, str] = ("f16", "f16"),
    flash: bool | None = None,
) -> Generator[Timed]:
    """A random model on disk and in the engine, until the end of the block."""
    with TemporaryDirectory(prefix="localspec-") as folder:
        path = Path(folder) / "probe.gguf"
        write_random_model(path, replace(shape, n_layers=n_layers), weight_type)
        config = EngineConfig.of(
            path,
            ctx=2048,
            threads=setting.n_threads,
            kv_k=kv[0],
            kv_v=kv[1],
            flash_attn="auto" if flash is None else "on" if flash else "off",
            gpu_layers=setting.n_gpu_layers,
            repack=setting.repack,
        )
        engine = LlamaEngine(config)
        try:
            yield Timed(engine, engine.context())
        finally:
            engine.close()


SIZE_BYTES = 512 << 20
REPEATS = 5


def memory_read_bytes_per_s(n_threads: int) -> float:
    """The best of several reads of 512 MB by `n_threads`; NumPy lets go of the interpreter."""
    parts = np.array_split(np.empty(SIZE_BYTES // 8), n_threads)
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(_fill, parts))
        return max(SIZE_BYTES / _seconds(pool, parts) for _ in range(REPEATS))


def _fill(part: np.ndarray) -> None:
    """By the thread that reads it, so that the memory is near to it."""
    part.fill(1.0)


def _seconds(pool: ThreadPoolExecutor, parts: list[np.ndarray]) -> float:
    started = perf_counter()
    list(pool.map(np.max, parts))
    return perf_counter() - started
