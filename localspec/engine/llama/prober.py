"""The child process of the probe: an engine that crashes here takes nothing with it.

    python -m localspec.engine.llama.prober REQUEST

It prints `stage SENTENCE` for each stage and `found PROBE` at the end, both as JSON. It times
passes of random models. Each case is measured twice, on the way there and on the way back, and the
lower of the two medians counts, because other programs only ever add time. When time is up, the
rest of the way back is left out; weights are measured on it from one token upwards.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from math import inf
from time import perf_counter
from typing import Any

from localspec.engine.llama.overhead import compile_passes, least, loaded, overhead, way_to
from localspec.engine.probe import ProbeSetting
from localspec.engine.timing import Timer, there_and_back
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
    WeightCase,
)
from localspec.model.synthetic import Shape
from localspec.store import document_of

WIDTHS = (1, 2, 3, 4, 5, 8, 9, 16, 32, 128)
ATTENTION_WIDTHS = (1, 2, 4, 8, 16, 64)
WIDE = 128
"""Wide passes compute: how large the model is does not matter, and a small one tells it sooner."""
CELLS = (1, 1024)
MORE_TRIES = 2
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
    until_s: float,
) -> Curve:
    """Seconds an element by width of the pass, less the overhead of passes and layers.

    What is `known` of wide passes of the same matrices in another number is not measured again.
    """
    narrow = tuple(width for width in widths if width < WIDE)
    found = _element_s(setting, case, fixed, narrow, until_s)
    for _ in range(MORE_TRIES):
        if found[0][1]:
            break
        # Disturbed then or now: the least of both counts.
        fixed = least(fixed, overhead(setting))
        found = _element_s(setting, case, fixed, narrow, until_s)
    if not found[0][1]:
        raise EngineError("the machine was too busy to be measured: close other programs first")
    alike = (known[c] for c in known if (c.type, c.width) == (case.type, case.width))
    wide = [point for point in next(alike, ()) if point[0] >= WIDE]
    if not wide:
        small = replace(case, size_bytes=min(SIZES_BYTES))
        wide = [*_element_s(setting, small, fixed, widths[len(narrow) :], until_s)]
    return Curve((*found, *wide))


def _element_s(
    setting: ProbeSetting,
    case: WeightCase,
    fixed: tuple[Curve, Curve],
    widths: tuple[int, ...],
    until_s: float,
) -> Curve:
    heads = case.width // HEAD_SIZE
    shape = Shape(
        n_embd=case.width, n_heads=heads, n_kv_heads=max(1, heads // 4), n_ff=FF * case.width
    )
    layer_bytes = _elements(shape) * BY_NAME[case.type].bits_per_element / 8
    n_layers = max(2, round(case.size_bytes / layer_bytes))
    n_elements = n_layers * _elements(shape) + shape.n_vocab * shape.n_embd
    with loaded(setting, shape, n_layers, case.type) as timer:
        times = _medians(timer, [(width, 0) for width in reversed(widths)], until_s)
    overhead_s = {n: fixed[0].at(n) + n_layers * fixed[1].at(n) for n in widths}
    return Curve((n, max(times[n, 0] - overhead_s[n], 0.0) / n_elements) for n in widths)


def attention(
    setting: ProbeSetting, case: AttentionCase, until_s: float
) -> tuple[AttentionCost, ...]:
    """Seconds a head and number of a head, by width and by cells in the cache."""
    shape = _attentive(case.head_size, setting.n_threads)
    kv, n_layers = (case.type_k, case.type_v), ATTENTIVE_LAYERS
    places = [(width, cells) for cells in CELLS for width in ATTENTION_WIDTHS]
    with loaded(setting, shape, n_layers, kv=kv, flash=case.flash) as timer:
        times = _medians(timer, places, until_s)
    unit = n_layers * shape.n_heads * shape.head_size
    more = {place: max(0.0, s - times[place[0], CELLS[0]]) / unit for place, s in times.items()}
    return tuple(
        AttentionCost(width, Curve((cells, more[width, cells]) for cells in CELLS))
        for width in ATTENTION_WIDTHS
    )


def _medians(timer: Timer, places: list[tuple[int, int]], until_s: float) -> Medians:
    """By width and depth."""
    compile_passes(timer, places)
    found: Medians = {}
    for place in chain.from_iterable(there_and_back(places, 2)):
        if place in found and perf_counter() > until_s:
            break
        found[place] = min(timer.median(*place), found.get(place, inf))
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


BUDGET_S = 16.0
"""Without the overhead, a plain read of memory and the start of the engine, some 3 s."""
LOADING_PARTS, ATTENTION_PARTS = 2, 8
"""Loading models of one weight type takes as long as measuring this many widths."""


@dataclass(slots=True)
class Allowance:
    """Time that is shared out by parts; what one stage leaves is for those after it."""

    end_s: float
    n_parts: int

    def until(self, n_parts: int) -> float:
        """When the share of the next stage is over, by the clock of `perf_counter`."""
        now_s = perf_counter()
        left_s = max(0.0, self.end_s - now_s)
        self.n_parts, share = self.n_parts - n_parts, n_parts / self.n_parts
        return now_s + share * left_s


def main() -> int:
    request: dict[str, Any] = json.loads(sys.argv[1])
    setting = ProbeSetting(
        request["n_threads"], request["n_gpu_layers"], request["repack"],
        tuple(request["device"]), tuple(request["workers"]),
    )  # fmt: skip
    watch = Watch()
    _say("measuring the overhead of passes and layers")
    fixed = overhead(setting)
    link = None
    if setting.n_gpu_layers and request["with_overhead"]:
        _say("measuring the way to the device and back")
        link = way_to(setting, fixed)
    read_bytes_per_s = None
    if request["with_overhead"] and setting.n_gpu_layers == 0:
        _say("reading memory")
        read_bytes_per_s = memory_read_bytes_per_s(setting.n_threads)
    wanted = [(WeightCase.parse(name), WIDTHS) for name in request["weights"]]
    wanted += [(WeightCase.parse(name), END_WIDTHS) for name in request["weights_at_ends"]]
    cases = [AttentionCase.parse(name) for name in request["attention"]]
    n_parts = sum(map(_parts, wanted)) + ATTENTION_PARTS * len(cases)
    time = Allowance(perf_counter() + BUDGET_S, n_parts)
    weight_s: dict[WeightCase, Curve] = {}
    for case, widths in wanted:
        megabytes = case.size_bytes // 1_000_000
        _say(f"measuring {megabytes} MB of {case.type} weights, {case.width} wide")
        until_s = time.until(_parts((case, widths)))
        weight_s[case] = weights(setting, case, fixed, widths, weight_s, until_s)
    attention_s: dict[AttentionCase, tuple[AttentionCost, ...]] = {}
    for case in cases:
        _say(f"measuring attention with {case.type_k} keys and {case.type_v} values")
        attention_s[case] = attention(setting, case, time.until(ATTENTION_PARTS))
    taken_share = watch.stop().taken_share
    found = Probe("", "", *fixed, weight_s, attention_s, read_bytes_per_s, taken_share, link)
    sys.stdout.write(f"found {json.dumps(document_of(found))}\n")
    return 0


def _parts(asked: tuple[WeightCase, tuple[int, ...]]) -> int:
    return LOADING_PARTS + len(asked[1])


def _say(sentence: str) -> None:
    sys.stdout.write(f"stage {sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
