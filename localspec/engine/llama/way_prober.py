"""The child process that times the ways of computing on a processor: `engine.ways` has the idea.

    python -m localspec.engine.llama.way_prober REQUEST

It prints `weights REPACK THREADS TOKEN_S READ_S LOAD_S` for each way of multiplying, and
`attention FLASH KEYS TOKEN_S DEEP_TOKEN_S READ_S DEEP_READ_S` for each kernel and type of keys.
What is compared takes turns, there and back, and the least of its times counts: other programs only
add to them.
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
    Heads,
)
from localspec.model.synthetic import Shape

SHAPE = Shape(n_embd=2048, n_heads=32, n_kv_heads=8, n_ff=8192)
N_LAYERS = 5
"""With SHAPE and four bits a weight some 170 MB, which no usual cache holds."""
ROUNDS, LIMIT_S = 3, 0.6
"""Turns of each comparison, and how long the later ones may take."""
BLOCK = 32
"""Numbers of a quantized key go in blocks of so many."""

T = TypeVar("T")


def least(ways: Sequence[T], seconds: Callable[[T], float]) -> dict[T, float]:
    """The least seconds of each way, in turns; the first turn warms up, and counts."""
    best, until_s = dict.fromkeys(ways, inf), perf_counter() + LIMIT_S
    for i, order in enumerate(there_and_back(ways, ROUNDS)):
        if i > 1 and perf_counter() > until_s:
            break
        for way in order:
            best[way] = min(best[way], seconds(way))
    return best


def weights(kind: str, counts: Sequence[int], repacks: Sequence[bool]) -> None:
    """One token by the weights of a large model, and a piece of a prompt by those of a small one:
    wide passes compute, so that its size does not matter."""
    ways = list(product(repacks, counts))
    with ExitStack() as stack:

        def timer_of(repack: bool, n_layers: int) -> Timer:
            setting = ProbeSetting(max(counts), 0, repack)
            return stack.enter_context(loaded(setting, SHAPE, n_layers, kind))

        large = {repack: timer_of(repack, N_LAYERS) for repack in repacks}
        small = {repack: timer_of(repack, 1) for repack in repacks}

        def token_s(way: tuple[bool, int]) -> float:
            repack, n = way
            large[repack].context.engine.set_threads(n, n)
            return large[repack].median(1, 0)

        def read_s(way: tuple[bool, int]) -> float:
            repack, n = way
            small[repack].context.engine.set_threads(n, n)
            return small[repack].seconds(N_READ, 0) / N_READ

        tokens, reads = least(ways, token_s), least(ways, read_s)
        load_s = {repack: _load_s(timer) for repack, timer in large.items()}
    for repack, n in ways:
        way = repack, n
        _say("weights", int(repack), n, tokens[way], reads[way], load_s[repack])


def _load_s(timer: Timer) -> float:
    engine = timer.context.engine
    assert isinstance(engine, LlamaEngine)
    return engine.load_s


def attention(heads: Heads, n_threads: int) -> None:
    """A token and a piece of a prompt through thin layers of the model's heads, behind nothing and
    behind a text."""
    n_heads, n_kv_heads, head_size = heads
    shape = Shape(
        n_embd=THIN, n_ff=THIN, n_heads=n_heads, n_kv_heads=n_kv_heads, own_head_size=head_size
    )
    setting, depths = ProbeSetting(n_threads, 0, repack=False), (0, DEPTH)
    keys = KEYS if head_size % BLOCK == 0 else KEYS[:1]
    kernels = list(product((True, False), keys))
    found: dict[tuple[tuple[bool, str], int, int], float] = {}
    with ExitStack() as stack:
        timers = {
            (flash, kind): stack.enter_context(
                loaded(setting, shape, ATTENTIVE_LAYERS, kv=(kind, "f16"), flash=flash)
            )
            for flash, kind in kernels
        }
        for depth in depths:
            for width in (1, N_READ_WIDE):
                best = least(kernels, lambda each, w=width, d=depth: timers[each].median(w, d))
                found |= {(each, width, depth): best[each] / width for each in kernels}
    for flash, kind in kernels:
        times = (found[(flash, kind), *place] for place in product((1, N_READ_WIDE), depths))
        _say("attention", int(flash), kind, *times)


def _say(*words: Any) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main() -> int:
    request: dict[str, Any] = json.loads(sys.argv[1])
    if request["weights"]:
        weights(request["weights"], request["counts"], request["repacks"])
    if request["heads"]:
        attention(tuple(request["heads"]), max(request["counts"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
