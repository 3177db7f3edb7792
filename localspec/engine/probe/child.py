"""The child process of the probe, so that an engine that crashes takes nothing with it.

    python -m localspec.engine.probe.child REQUEST

It prints `stage SENTENCE` as it goes and `found PROBE` in the end, both documents as JSON.
"""

import json
import sys
from typing import Any

from localspec.engine.probe import measure
from localspec.engine.probe.disturbance import Watch
from localspec.engine.probe.machine import ProbeSetting
from localspec.engine.probe.memory_read import memory_read_bytes_per_s
from localspec.hardware.measured import AttentionCase, Probe, WeightCase


def main() -> int:
    request: dict[str, Any] = json.loads(sys.argv[1])
    setting = ProbeSetting(
        request["n_threads"], request["n_gpu_layers"], request["use_extra_buffers"]
    )
    watch = Watch.now()
    _say("measuring the overhead of passes and layers")
    fixed = measure.overhead(setting)
    read_bytes_per_s = None
    if request["with_overhead"] and setting.n_gpu_layers == 0:
        _say("reading memory")
        read_bytes_per_s = memory_read_bytes_per_s(setting.n_threads)
    weight_s: dict[WeightCase, measure.Points] = {}
    for case in map(WeightCase.parse, request["weights"]):
        megabytes = case.size_bytes // 1_000_000
        _say(f"measuring {megabytes} MB of {case.type} weights, {case.width} wide")
        weight_s[case] = measure.weights(setting, case, fixed)
    attention_s: dict[AttentionCase, tuple[measure.AttentionCost, ...]] = {}
    for case in map(AttentionCase.parse, request["attention"]):
        _say(f"measuring attention with {case.type_k} keys and {case.type_v} values")
        attention_s[case] = measure.attention(setting, case)
    found = Probe("", "", *fixed, weight_s, attention_s, read_bytes_per_s, watch.others_share())
    sys.stdout.write(f"found {json.dumps(found.to_json())}\n")
    return 0


def _say(sentence: str) -> None:
    sys.stdout.write(f"stage {sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
