"""A better model for this machine than the starter, by what its memory holds and how fast it reads.

    bytes = parameters (from the name) * bits of the quantization / 8
    tokens per second = REACHED * bandwidth / bytes that a token streams

It is a rough guess before anything is fetched; `localspec predict NAME` reads the model's header
and says it with an interval. Of mixtures only the active parameters are streamed ("30b-a3b").
"""

import re
from dataclasses import dataclass

from localspec.registry.schema import Entry

REACHED = 0.75
"""The share of the memory's speed that decoding reaches, roughly (docs/prediction.md)."""
PLEASANT_TPS = 6.0
"""As fast as people read."""
ROOM = 0.7
"""Of the free memory, for weights; the rest is for the cache and other programs."""
BITS = {"Q4_K_M": 4.85, "Q8_0": 8.5, "MXFP4": 4.3}
_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)b(?:-a(\d+(?:\.\d+)?)b)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A model that fits, its size, and about how fast it would be."""

    name: str
    n_bytes: float
    tps: float

    @property
    def sentence(self) -> str:
        return (
            f"better here: `localspec pull {self.name}` ({self.n_bytes / 1e9:.1f} GB, about"
            f" {self.tps:.0f} tok/s); `localspec predict {self.name}` says more"
        )


def advice(n_threads: int | None) -> str | None:
    """The sentence for this machine; None where nothing is better, or a GPU would decide it."""
    from localspec.engine.build import gpu_backends
    from localspec.engine.probe.memory_read import memory_read_bytes_per_s
    from localspec.hardware.detect import available_memory_bytes, usable_cores
    from localspec.registry.catalog import load_catalog

    if gpu_backends():
        return "`localspec list --all` shows what is here, `localspec predict NAME` what would fit"
    bandwidth = memory_read_bytes_per_s(n_threads or usable_cores())
    found = suggestion(list(load_catalog().values()), available_memory_bytes(), bandwidth)
    return found.sentence if found else None


def suggestion(
    entries: list[Entry], free_bytes: float, bandwidth_bytes_per_s: float
) -> Suggestion | None:
    """The largest model that fits and is pleasant to read along; None where there is none."""
    found = [_of(entry, bandwidth_bytes_per_s) for entry in entries if not _is_special(entry)]
    fitting = [
        one for one in found if one and one.n_bytes <= ROOM * free_bytes and one.tps >= PLEASANT_TPS
    ]
    return max(fitting, key=lambda one: one.n_bytes, default=None)


def _of(entry: Entry, bandwidth_bytes_per_s: float) -> Suggestion | None:
    match = _SIZE.search(f" {entry.name.replace('-', ' ', 1)}") or _SIZE.search(entry.title)
    if match is None:
        return None
    bits = next((bits for name, bits in BITS.items() if name.lower() in entry.file.lower()), 4.85)
    n_bytes = float(match[1]) * 1e9 * bits / 8
    streamed = float(match[2] or match[1]) * 1e9 * bits / 8
    return Suggestion(entry.name, n_bytes, REACHED * bandwidth_bytes_per_s / streamed)


def _is_special(entry: Entry) -> bool:
    """Models of code only are not what a first conversation wants."""
    return "code" in entry.name
