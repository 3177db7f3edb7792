"""The child process that times the ways of computing on a processor: `engine.ways` has the idea.

    python -m localspec.engine.llama.way_prober REQUEST

It prints `weights REPACK THREADS TOKEN_S READ_S LOAD_S MAPPED` for each way of multiplying, and
`attention FLASH KEYS VALUES TOKEN_S DEEP_TOKEN_S READ_S DEEP_READ_S` for each kernel and types of
keys and values. What is compared takes turns, there and back, and the least of its times counts:
other programs only add to them.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import product
from math import inf
from time import perf_counter
from typing import Any, TypeVar

from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.llama.overhead import loaded
from localspec.engine.probe import ProbeSetting
from localspec.engine.timing import Timer, there_and_back
from localspec.engine.ways import (
    ATTENTIVE_LAYERS,
    DEPTH,
    KEYS,
    N_READ,
    N_READ_WIDE,
    THIN,
    VALUES,
    Heads,
)
from localspec.model.kv import cache_type
from localspec.model.synthetic import Shape

SHAPE = Shape(n_embd=2048, n_heads=32, n_kv_heads=8, n_ff=8192)
N_LAYERS = 5
"""With SHAPE and four bits a weight some 170 MB, which no usual cache holds."""
ROUNDS, LIMIT_S = 3, 0.6
"""Turns of each comparison, and how long the later ones may take."""
SHORT_ROUNDS, SHORT_LIMIT_S = 24, 0.25
"""The same for passes of a fraction of a millisecond, which a neighbour disturbs all at once."""
BLOCK = 32
"""Numbers of a quantized key go in blocks of so many."""

T = TypeVar("T")


def least(
    ways: Sequence[T],
    seconds: Callable[[T], float],
    n_rounds: int = ROUNDS,
    limit_s: float = LIMIT_S,
) -> dict[T, float]:
    """The least seconds of each way, in turns; the first turn warms up, and counts."""
    best, until_s = dict.fromkeys(ways, inf), perf_counter() + limit_s
    for i, order in enumerate(there_and_back(ways, n_rounds)):
        if i > 1 and perf_counter() > until_s:
            break
        for way in order:
            best[way] = min(best[way], seconds(way))
    return best


def weights(kind: str, counts: Sequence[int], loadings: Sequence[tuple[bool, bool]]) -> None:
    """One token by the weights of a large model, and a piece of a prompt by those of a small one:
    wide passes compute, so that its size does not matter, nor whether it is mapped."""
    repacks = list(dict.fromkeys(repack for repack, _ in loadings))
    with ExitStack() as stack:

        def timer_of(repack: bool, is_mapped: bool, n_layers: int) -> Timer:
            setting = ProbeSetting(max(counts), 0, repack, is_mapped=is_mapped)
            return stack.enter_context(loaded(setting, SHAPE, n_layers, kind))

        large = {way: timer_of(*way, N_LAYERS) for way in loadings}
        small = {repack: timer_of(repack, False, 1) for repack in repacks}

        def token_s(way: tuple[tuple[bool, bool], int]) -> float:
            loading, n = way
            large[loading].context.engine.set_threads(n, n)
            return large[loading].median(1, 0)

        def read_s(way: tuple[bool, int]) -> float:
            repack, n = way
            small[repack].context.engine.set_threads(n, n)
            return small[repack].seconds(N_READ, 0) / N_READ

        tokens = least(list(product(loadings, counts)), token_s)
        reads = least(list(product(repacks, counts)), read_s)
        load_s = {way: _load_s(timer) for way, timer in large.items()}
    for (loading, n), seconds in tokens.items():
        repack, is_mapped = loading
        times = seconds, reads[repack, n], load_s[loading]
        _say("weights", int(repack), n, *times, int(is_mapped))


def _load_s(timer: Timer) -> float:
    engine = timer.context.engine
    assert isinstance(engine, LlamaEngine)
    return engine.load_s


def attention(heads: Heads, n_threads: int, chosen: tuple[str, str]) -> None:
    """A token and a piece of a prompt through thin layers of the model's heads, behind nothing and
    behind a text."""
    n_heads, n_kv_heads, head_size = heads
    shape = Shape(
        n_embd=THIN, n_ff=THIN, n_heads=n_heads, n_kv_heads=n_kv_heads, own_head_size=head_size
    )
    setting, depths = ProbeSetting(n_threads, 0, repack=False), (0, DEPTH)
    usual = [(kind, VALUES) for kind in (KEYS if head_size % BLOCK == 0 else KEYS[:1])]
    types = list(dict.fromkeys([*usual, chosen]))
    # The plain kernel multiplies no quantized values.
    kernels = [
        (flash, kv)
        for flash, kv in product((True, False), types)
        if flash or not cache_type(kv[1]).is_quantized
    ]
    found: dict[tuple[tuple[bool, tuple[str, str]], int, int], float] = {}
    with ExitStack() as stack:
        timers = {
            (flash, kv): stack.enter_context(
                loaded(setting, shape, ATTENTIVE_LAYERS, kv=kv, flash=flash)
            )
            for flash, kv in kernels
        }
        for depth in depths:
            for width in (1, N_READ_WIDE):
                turns = (SHORT_ROUNDS, SHORT_LIMIT_S) if width == 1 else (ROUNDS, LIMIT_S)
                best = least(
                    kernels, lambda each, w=width, d=depth: timers[each].median(w, d), *turns
                )
                found |= {(each, width, depth): best[each] / width for each in kernels}
    for flash, kv in kernels:
        times = (found[(flash, kv), *place] for place in product((1, N_READ_WIDE), depths))
        _say("attention", int(flash), *kv, *times)


def _say(*words: Any) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main() -> int:
    request: dict[str, Any] = json.loads(sys.argv[1])
    if request["weights"]:
        loadings = [(repack, is_mapped) for repack, is_mapped in request["loadings"]]
        weights(request["weights"], request["counts"], loadings)
    if request["heads"]:
        attention(tuple(request["heads"]), max(request["counts"]), tuple(request["types"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
