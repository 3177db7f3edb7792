"""What a device that gets no layers costs the processor: passes beside those where none is seen.

Each turn is a process of its own, A B B A: with the environment as it is, and with one in which the
engine finds no device. Decoding and a prompt are timed, because a device that should rest may take
the processor's memory layout, and long passes, to itself.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from localspec.engine.base import EngineConfig
from localspec.engine.graphics import graphics
from localspec.engine.timing import Timer, there_and_back

N_TOKENS, N_PROMPT, N_TIMES = 64, 256, 3
HIDDEN = {
    "GGML_BACKEND_PATH": "", "GGML_VK_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": "",
    "HIP_VISIBLE_DEVICES": "", "ONEAPI_DEVICE_SELECTOR": "",
}  # fmt: skip


def no_layers(path: Path, rounds: int, n_threads: int) -> list[dict[str, Any]]:
    """Milliseconds with and without a device in sight, medians, and the ratio of speeds."""
    devices = [f"{device.name} ({device.description})" for device in graphics()]
    if not devices:
        return [{"devices": "none is here: GGML_BACKEND_PATH may name a module"}]
    times: list[list[list[float]]] = [[], []]
    for turn in there_and_back((0, 1), 2 * rounds):
        for i in turn:
            times[i].append(_measured(path, n_threads, HIDDEN if i else {}))
    rows: list[dict[str, Any]] = []
    for what, seen, hidden in zip(
        ("decoding", f"prompt of {N_PROMPT}"), *(zip(*each, strict=True) for each in times),
        strict=True,
    ):  # fmt: skip
        seen_ms, hidden_ms = 1e3 * median(seen), 1e3 * median(hidden)
        figures = {"seen_ms": seen_ms, "hidden_ms": hidden_ms, "ratio": hidden_ms / seen_ms}
        rows.append({"what": what, "devices": devices, "threads": n_threads, **figures})
    return rows


def _measured(path: Path, n_threads: int, environment: dict[str, str]) -> list[float]:
    kept = {name: value for name, value in os.environ.items() if name not in environment}
    added = {name: value for name, value in environment.items() if name != "GGML_BACKEND_PATH"}
    done = subprocess.run(
        [sys.executable, "-B", __file__, path, str(n_threads)], env=kept | added, check=True,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def main() -> None:
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

    config = EngineConfig.of(Path(sys.argv[1]), ctx=1024, threads=int(sys.argv[2]), gpu_layers=0)
    engine = LlamaEngine(config)
    timer = Timer(engine.context())
    timer.token_s(8, 0)
    timer.seconds(N_PROMPT, 0)
    found = [
        min(timer.token_s(N_TOKENS, 0) for _ in range(N_TIMES)),
        min(timer.seconds(N_PROMPT, 0) for _ in range(N_TIMES)),
    ]
    engine.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
