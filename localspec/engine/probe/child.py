"""The child process of the probe, so that an engine that crashes takes nothing with it.

    python -m localspec.engine.probe.child REQUEST

It prints `stage SENTENCE` as it goes and `found PROBE` in the end, both documents as JSON.
"""

import json
import sys
from typing import Any

from localspec.engine.probe import measure
from localspec.engine.probe.machine import ProbeSetting
from localspec.engine.probe.memory_read import memory_read_bytes_per_s
from localspec.hardware.measured import Probe, attention_key, weight_key


def main() -> int:
    request: dict[str, Any] = json.loads(sys.argv[1])
    setting = ProbeSetting(
        request["n_threads"], request["n_gpu_layers"], request["use_extra_buffers"]
    )
    _say("measuring the overhead of passes and layers")
    fixed = measure.overhead(setting)
    read_bytes_per_s = None
    if request["with_overhead"] and setting.n_gpu_layers == 0:
        _say("reading memory")
        read_bytes_per_s = memory_read_bytes_per_s(setting.n_threads)
    weight_s: dict[str, measure.Points] = {}
    for name, n_embd in request["weights"]:
        _say(f"measuring {name} weights in matrices {n_embd} wide")
        weight_s[weight_key(name, n_embd)] = measure.weights(setting, name, n_embd, fixed)
    attention_s: dict[str, tuple[measure.AttentionCost, ...]] = {}
    for kv_k, kv_v, flash in request["attention"]:
        _say(f"measuring attention with {kv_k} keys and {kv_v} values")
        costs = measure.attention(setting, kv_k, kv_v, flash=flash)
        attention_s[attention_key(kv_k, kv_v, flash=flash)] = costs
    found = Probe("", "", *fixed, weight_s, attention_s, read_bytes_per_s)
    sys.stdout.write(f"found {json.dumps(found.to_json())}\n")
    return 0


def _say(sentence: str) -> None:
    sys.stdout.write(f"stage {sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
