"""The child process of the probe, so that an engine that crashes takes nothing with it.

    python -m localspec.engine.probe.child REQUEST

It prints `stage SENTENCE` as it goes and `found PROBE` in the end, both documents as JSON.
"""

import json
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from localspec.engine.probe.passes import (
    WIDTHS,
    AttentionCost,
    Points,
    attention,
    memory_read_bytes_per_s,
    overhead,
    weights,
)
from localspec.engine.probe.run import ProbeSetting
from localspec.hardware.activity import Watch
from localspec.hardware.probe_results import END_WIDTHS, AttentionCase, Probe, WeightCase

BUDGET_S = 16.0
"""Without the overhead, a plain read of memory and the start of the engine, some 3 s."""
LOADING_PARTS, ATTENTION_PARTS = 2, 8
"""To load models of one weight type takes as long as to measure so many widths of a pass."""


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
    setting = ProbeSetting(request["n_threads"], request["n_gpu_layers"], request["repack"])
    watch = Watch.now()
    _say("measuring the overhead of passes and layers")
    fixed = overhead(setting)
    read_bytes_per_s = None
    if request["with_overhead"] and setting.n_gpu_layers == 0:
        _say("reading memory")
        read_bytes_per_s = memory_read_bytes_per_s(setting.n_threads)
    wanted = [(WeightCase.parse(name), WIDTHS) for name in request["weights"]]
    wanted += [(WeightCase.parse(name), END_WIDTHS) for name in request["weights_at_ends"]]
    cases = [AttentionCase.parse(name) for name in request["attention"]]
    n_parts = sum(map(_parts, wanted)) + ATTENTION_PARTS * len(cases)
    time = Allowance(perf_counter() + BUDGET_S, n_parts)
    weight_s: dict[WeightCase, Points] = {}
    for case, widths in wanted:
        megabytes = case.size_bytes // 1_000_000
        _say(f"measuring {megabytes} MB of {case.type} weights, {case.width} wide")
        until_s = time.until(_parts((case, widths)))
        weight_s[case] = weights(setting, case, fixed, widths, weight_s, until_s)
    attention_s: dict[AttentionCase, tuple[AttentionCost, ...]] = {}
    for case in cases:
        _say(f"measuring attention with {case.type_k} keys and {case.type_v} values")
        attention_s[case] = attention(setting, case, time.until(ATTENTION_PARTS))
    found = Probe("", "", *fixed, weight_s, attention_s, read_bytes_per_s, watch.others_share())
    sys.stdout.write(f"found {json.dumps(found.to_json())}\n")
    return 0


def _parts(asked: tuple[WeightCase, tuple[int, ...]]) -> int:
    return LOADING_PARTS + len(asked[1])


def _say(sentence: str) -> None:
    sys.stdout.write(f"stage {sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
