"""Time passes of random models. Medians; the models of a pair take turns (A B B A)."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from localspec.engine.base import EngineConfig
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.probe.machine import ProbeSetting
from localspec.hardware.measured import AttentionCost, Points, value_at
from localspec.model.ggml_types import BY_NAME
from localspec.model.synthetic import Shape, write_random_model

WIDTHS = (1, 2, 3, 4, 5, 8, 9, 16, 32, 128)
OVERHEAD_WIDTHS = (1, 2, 4, 8, 16, 32, 128)
ATTENTION_WIDTHS = (1, 2, 4, 8, 16, 64)
CELLS = (1, 256, 512, 1024)
THIN = Shape(n_embd=128, n_heads=2, n_kv_heads=2, n_ff=128)
THIN_LAYERS = (4, 36)
WIDE_BYTES = 120_000_000
"""Well beyond the last-level cache of most processors, and written in a moment."""
HEAD_SIZE = 64
ATTENTIVE = Shape(n_layers=4, n_embd=512, n_heads=8, n_kv_heads=4, n_ff=256)
REPEATS, LONG_REPEATS = 7, 2
LONG_WIDTH = 32


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

    def fill(self, depth: int) -> None:
        self.context.eval([i % 500 for i in range(depth - len(self.context.tokens))], 0)


def overhead(setting: ProbeSetting) -> tuple[Points, Points]:
    """Seconds of a pass without layers, and of a layer without weights, by width."""
    with (
        _loaded(setting, THIN, THIN_LAYERS[0]) as few,
        _loaded(setting, THIN, THIN_LAYERS[1]) as many,
    ):
        passes: list[tuple[float, float]] = []
        layers: list[tuple[float, float]] = []
        for width in OVERHEAD_WIDTHS:
            short, long = _in_turns(few, many, width)
            layer = max(0.0, (long - short) / (THIN_LAYERS[1] - THIN_LAYERS[0]))
            layers.append((width, layer))
            passes.append((width, max(0.0, short - THIN_LAYERS[0] * layer)))
    return tuple(passes), tuple(layers)


def weights(
    setting: ProbeSetting, weight_type: str, n_embd: int, fixed: tuple[Points, Points]
) -> Points:
    """Seconds an element of a weight type, by width, less the overhead of passes and layers."""
    heads = n_embd // HEAD_SIZE
    shape = Shape(n_embd=n_embd, n_heads=heads, n_kv_heads=max(1, heads // 4), n_ff=3 * n_embd)
    per_layer = _elements(shape)
    n_layers = max(2, round(WIDE_BYTES / (per_layer * BY_NAME[weight_type].bits_per_element / 8)))
    with _loaded(setting, shape, n_layers, weight_type) as model:
        points: list[tuple[float, float]] = []
        for width in WIDTHS:
            spent = (
                _typical(model, width, 0)
                - value_at(fixed[0], width)
                - n_layers * value_at(fixed[1], width)
            )
            points.append((width, max(spent, 0.0) / (n_layers * per_layer)))
    return tuple(points)


def attention(
    setting: ProbeSetting, kv_k: str, kv_v: str, *, flash: bool
) -> tuple[AttentionCost, ...]:
    """Seconds a head and number of a head, by width and by cells in the cache."""
    with _loaded(setting, ATTENTIVE, ATTENTIVE.n_layers, kv=(kv_k, kv_v), flash=flash) as model:
        times: dict[int, list[tuple[float, float]]] = {width: [] for width in ATTENTION_WIDTHS}
        for cells in CELLS:
            model.fill(cells)
            for width in ATTENTION_WIDTHS:
                times[width].append((cells, _typical(model, width, cells)))
    unit = ATTENTIVE.n_layers * ATTENTIVE.n_embd
    return tuple(
        AttentionCost(
            width, tuple((cells, max(0.0, s - points[0][1]) / unit) for cells, s in points)
        )
        for width, points in times.items()
    )


def _elements(shape: Shape) -> int:
    kv = shape.n_kv_heads * shape.head_size
    return shape.n_embd * (2 * shape.n_embd + 2 * kv + 3 * shape.n_ff)


def _typical(model: Timed, width: int, depth: int) -> float:
    model.seconds(width, depth)
    n = REPEATS if width < LONG_WIDTH else LONG_REPEATS
    return median(model.seconds(width, depth) for _ in range(n))


def _in_turns(a: Timed, b: Timed, width: int) -> tuple[float, float]:
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in [0, 1, *([0, 1, 1, 0] * REPEATS)]:
        times[turn].append((a, b)[turn].seconds(width, 0))
    return median(times[0][1:]), median(times[1][1:])


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
        config = EngineConfig(
            path,
            n_ctx=2048,
            n_threads=setting.n_threads,
            kv_k=kv[0],
            kv_v=kv[1],
            flash_attn="auto" if flash is None else "on" if flash else "off",
            n_gpu_layers=setting.n_gpu_layers,
            use_extra_buffers=setting.use_extra_buffers,
        )
        engine = LlamaEngine(config)
        try:
            yield Timed(engine, engine.context())
        finally:
            engine.close()
