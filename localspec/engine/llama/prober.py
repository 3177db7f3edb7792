"""Time passes of random models, in a child process: an engine that crashes there takes nothing
with it.

Each case is measured twice, on the way there and on the way back, and the
lower of the two medians counts, because other programs only ever add time. When time is up, the
rest of the way back is left out; weights are measured on it from one token upwards.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from localspec.engine.child import Say
from localspec.engine.llama.devices import reported
from localspec.engine.llama.overhead import compile_passes, least, loaded, overhead, way_to
from localspec.engine.probe import GRAPHICS, ProbeSetting
from localspec.engine.threads import default_threads
from localspec.engine.timing import Clock, Timer, shortest
from localspec.errors import EngineError
from localspec.gguf.types import BY_NAME
from localspec.hardware.activity import Watch
from localspec.hardware.machine import memory_read_bytes_per_s
from localspec.hardware.probe_results import (
    END_WIDTHS,
    SIZES_BYTES,
    AttentionCase,
    AttentionCost,
    Curve,
    Probe,
    ProbeNeeds,
    WeightCase,
)
from localspec.model.synthetic import Shape

WIDTHS = (1, 2, 3, 4, 5, 8, 9, 16, 32, 128)
ATTENTION_WIDTHS = (1, 2, 4, 8, 16, 64)
WIDE = 128
"""Wide passes compute: how large the model is does not matter, and a small one tells it sooner."""
CELLS = (1, 1024)
MORE_TRIES = 2
BUDGET_S = 16.0
"""Without the overhead, a plain read of memory and the start of the engine, some 3 s."""
LOADING_PARTS, ATTENTION_PARTS = 2, 8
"""Loading models of one weight type takes as long as measuring this many widths."""
HEAD_SIZE, FF = 64, 6
"""Few layers with much in each, so that little depends on the overhead that is taken off."""
ATTENTIVE_LAYERS, ATTENTIVE_NUMBERS, HEADS_PER_KV = 8, 512, 2
"""Keys and values beyond a core's own cache, of heads that are too few to take long."""

Medians = dict[tuple[int, int], float]
"""Seconds by width of the pass and depth."""


def weights(
    setting: ProbeSetting,
    case: WeightCase,
    fixed: tuple[Curve, Curve],
    widths: tuple[int, ...],
    known: Mapping[WeightCase, Curve],
    clock: Clock,
) -> Curve:
    """Seconds an element by width of the pass, less the overhead of passes and layers.

    What is `known` of wide passes of the same matrices in another number is not measured again.
    """
    narrow = tuple(width for width in widths if width < WIDE)
    found = _element_s(setting, case, fixed, narrow, clock)
    for _ in range(MORE_TRIES):
        if found[0][1]:
            break
        # Disturbed then or now: the least of both counts.
        fixed = least(fixed, overhead(setting))
        found = _element_s(setting, case, fixed, narrow, clock)
    if not found[0][1]:
        raise EngineError("the machine was too busy to be measured: close other programs first")
    alike = (known[c] for c in known if (c.type, c.width) == (case.type, case.width))
    wide = [point for point in next(alike, ()) if point[0] >= WIDE]
    if not wide:
        small = replace(case, size_bytes=min(SIZES_BYTES))
        wide = [*_element_s(setting, small, fixed, widths[len(narrow) :], clock)]
    return Curve((*found, *wide))


def _element_s(
    setting: ProbeSetting,
    case: WeightCase,
    fixed: tuple[Curve, Curve],
    widths: tuple[int, ...],
    clock: Clock,
) -> Curve:
    heads = case.width // HEAD_SIZE
    shape = Shape(
        n_embd=case.width, n_heads=heads, n_kv_heads=max(1, heads // 4), n_ff=FF * case.width
    )
    layer_bytes = _elements(shape) * BY_NAME[case.type].bits_per_element / 8
    n_layers = max(2, round(case.size_bytes / layer_bytes))
    n_elements = n_layers * _elements(shape) + shape.n_vocab * shape.n_embd
    with loaded(setting, shape, n_layers, case.type) as timer:
        times = _medians(timer, [(width, 0) for width in reversed(widths)], clock)
    overhead_s = {n: fixed[0].at(n) + n_layers * fixed[1].at(n) for n in widths}
    return Curve((n, max(times[n, 0] - overhead_s[n], 0.0) / n_elements) for n in widths)


def attention(
    setting: ProbeSetting, case: AttentionCase, clock: Clock
) -> tuple[AttentionCost, ...]:
    """Seconds a head and number of a head, by width and by cells in the cache."""
    shape = _attentive(case.head_size, setting.n_threads)
    kv, n_layers = (case.type_k, case.type_v), ATTENTIVE_LAYERS
    places = [(width, cells) for cells in CELLS for width in ATTENTION_WIDTHS]
    with loaded(setting, shape, n_layers, kv=kv, flash=case.flash) as timer:
        times = _medians(timer, places, clock)
    unit = n_layers * shape.n_heads * shape.head_size
    more = {place: max(0.0, s - times[place[0], CELLS[0]]) / unit for place, s in times.items()}
    return tuple(
        AttentionCost(width, Curve((cells, more[width, cells]) for cells in CELLS))
        for width in ATTENTION_WIDTHS
    )


def _medians(timer: Timer, places: list[tuple[int, int]], clock: Clock) -> Medians:
    """By width and depth."""
    compile_passes(timer, places)
    return shortest(places, lambda place: timer.median(*place), 2, lambda: clock.left_s < 0)


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


def probed(setting: ProbeSetting, needs: ProbeNeeds, with_overhead: bool, say: Say) -> Probe:
    """All that is needed, in a child process; `say` hears of each stage."""
    watch = Watch()
    say("measuring the overhead of passes and layers")
    fixed = overhead(setting)
    link = read_bytes_per_s = None
    if with_overhead and setting.n_gpu_layers:
        say("measuring the way to the device and back")
        link = way_to(setting, fixed)
    elif with_overhead:
        say("reading memory")
        read_bytes_per_s = memory_read_bytes_per_s(setting.n_threads)
    wanted = [(case, WIDTHS) for case in needs.weights]
    wanted += [(case, END_WIDTHS) for case in needs.weights_at_ends]
    parts = [LOADING_PARTS + len(widths) for _, widths in wanted]
    clocks = shares(Clock(BUDGET_S), [*parts, *([ATTENTION_PARTS] * len(needs.attention))])
    weight_s: dict[WeightCase, Curve] = {}
    for (case, widths), clock in zip(wanted, clocks, strict=False):
        megabytes = case.size_bytes // 1_000_000
        say(f"measuring {megabytes} MB of {case.type} weights, {case.width} wide")
        weight_s[case] = weights(setting, case, fixed, widths, weight_s, clock)
    attention_s: dict[AttentionCase, tuple[AttentionCost, ...]] = {}
    for case, clock in zip(needs.attention, clocks, strict=True):
        say(f"measuring attention with {case.type_k} keys and {case.type_v} values")
        attention_s[case] = attention(setting, case, clock)
    taken_share = watch.stop().taken_share
    return Probe("", "", *fixed, weight_s, attention_s, read_bytes_per_s, taken_share, link)


def shares(clock: Clock, parts: Sequence[int]) -> Iterator[Clock]:
    """A budget for each stage by its parts, from when it is asked for: what one leaves is for those
    after it."""
    for i, n_parts in enumerate(parts):
        yield clock.within(clock.left_s * n_parts / sum(parts[i:]))


REPLY_SHAPE = Shape(n_embd=1024, n_heads=16, n_kv_heads=4, n_ff=4096)
REPLY_LAYERS, REPLY_TYPE = 4, "Q4_K"
N_PROMPT, N_ANSWER, N_TIMED = 128, 128, 16


def reply_s(backend: str, name: str, say: Say) -> float | None:
    """Seconds of a prompt and an answer on one device, with a random model whose passes are long
    enough to be more than overhead; None where there is no such device.

    `name` is a device's, or a worker's address where the backend is rpc.
    """
    if backend != "rpc" and name not in {device.name for device in reported()}:
        return None  # the engine would compute on the processor
    device, workers = ((), (name,)) if backend == "rpc" else ((name,), ())
    setting = ProbeSetting(default_threads(), GRAPHICS, True, device, workers)
    with loaded(setting, REPLY_SHAPE, REPLY_LAYERS, REPLY_TYPE) as timer:
        compile_passes(timer, [(1, 0), (N_PROMPT, 0)])
        prompt_s = timer.seconds(N_PROMPT, 0, turn=1)
        return prompt_s + N_ANSWER * timer.token_s(N_TIMED, 0)
