"""The child process that times numbers of threads: `engine.threads` has the idea.

    python -m localspec.engine.llama.thread_prober REQUEST

It prints `NUMBER SECONDS` for each number: the lowest median of a one-token pass. One context
takes all numbers in turn, so that memory and caches are the same for each.
"""

import json
import sys
from itertools import chain
from math import inf
from typing import Any

from localspec.engine.llama.prober import loaded
from localspec.engine.probe import ProbeSetting
from localspec.engine.timing import there_and_back
from localspec.model.synthetic import Shape

SHAPE = Shape(n_embd=2048, n_heads=32, n_kv_heads=8, n_ff=8192)
N_LAYERS = 5
"""With SHAPE and four bits a weight some 170 MB, which no usual cache holds."""
ROUNDS = 4


def main() -> int:
    request: dict[str, Any] = json.loads(sys.argv[1])
    counts: list[int] = request["counts"]
    setting = ProbeSetting(max(counts), 0, request["repack"])
    best = dict.fromkeys(counts, inf)
    with loaded(setting, SHAPE, N_LAYERS, "Q4_0") as timer:
        timer.median(1, 0)
        for n in chain.from_iterable(there_and_back(counts, ROUNDS)):
            timer.context.engine.set_threads(n, n)
            best[n] = min(best[n], timer.median(1, 0))
    for n, seconds in best.items():
        sys.stdout.write(f"{n} {seconds}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
