"""How many threads decode: what a measurement of this machine says, else its usable cores.

Memory can be busy with fewer threads than there are cores, and a neighbour, a slow core or a
hypervisor can make a thread more a loss. A child process times one-token passes of one large
random model with each number in turn, there and back. The usable cores stay unless another number
is clearly faster, because noise must not move a default.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from localspec import paths
from localspec.engine.child import run_module
from localspec.engine.health import engine_fingerprint
from localspec.errors import EngineError
from localspec.hardware.activity import BUSY, Watch
from localspec.hardware.cores import allowed_cpus
from localspec.hardware.detect import thread_limit, usable_cores
from localspec.hardware.machine import machine_key
from localspec.notify import Notify
from localspec.store import Kept, hashed

CHILD = "localspec.engine.llama.thread_prober"
LIMIT_S = 60.0
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""How threads wait for each other decides how fast small models are."""
CLEARLY = 1.08
"""Of the speed with the usable cores."""


def thread_counts() -> tuple[int, ...]:
    """Numbers to try: parts and all of the usable cores, and all that the system allows."""
    cores, most = usable_cores(), thread_limit()
    counts = {
        max(1, cores // 2),
        max(1, 3 * cores // 4),
        max(1, cores - 1),
        cores,
        max(cores, most),
    }
    return tuple(sorted(counts))


def default_threads() -> int:
    """What was measured here with this engine build and power state, else the usable cores."""
    try:
        return _kept().load() or usable_cores()
    except EngineError:
        return usable_cores()


def measured_threads(notify: Notify, *, repack: bool, again: bool = False) -> int:
    """What was kept or, if nothing was, measured now, which takes seconds.

    Raises EngineError where the engine cannot be measured.
    """
    kept = None if again else _kept().load()
    if kept is not None:
        return kept
    counts = thread_counts()
    if len(counts) == 1:
        return counts[0]
    notify("measuring how many threads are fastest")
    watch = Watch()
    seconds = _seconds(counts, repack=repack)
    if watch.stop().taken_share > BUSY:
        return usable_cores()
    best = fastest(seconds, usable_cores())
    _kept().save(best)
    return best


def fastest(seconds: Mapping[int, float], usual: int) -> int:
    """The number with the shortest pass; `usual` where that is not clearly slower."""
    best = min(seconds, key=lambda n: (seconds[n], n))
    return best if seconds[usual] > CLEARLY * seconds[best] else usual


def _seconds(counts: tuple[int, ...], *, repack: bool) -> dict[int, float]:
    found: dict[int, float] = {}

    def on_line(line: str) -> None:
        n, _, seconds = line.partition(" ")
        found[int(n)] = float(seconds)

    request = json.dumps({"counts": counts, "repack": repack})
    ending = run_module(CHILD, [request], on_line, LIMIT_S)
    ending.raise_known()
    if not ending.is_success or set(found) != set(counts):
        raise EngineError(
            f"the engine could not be measured ({ending.reason}): `localspec doctor` explains it"
        )
    return found


def _kept() -> Kept[int]:
    parts = f"{machine_key()} {engine_fingerprint()} {sorted(allowed_cpus())}"
    parts += "".join(f" {os.environ.get(name)}" for name in WAITING)
    return Kept(hashed(paths.cache_dir() / "threads", parts), _read, lambda n: {"threads": n})


def _read(document: Any) -> int:
    """Raises KeyError, TypeError or ValueError where it is none."""
    n = int(document["threads"])
    if n < 1:
        raise ValueError(n)
    return n
