"""How busy other programs keep the processor meanwhile: what they take, a measurement misses.

A thread that another program holds up keeps all others waiting at the end of every matrix, so a
small share costs much. Seen from the system's counters; what a hypervisor takes counts as well.
"""

from dataclasses import dataclass
from time import perf_counter
from typing import Self

import psutil

DISTURBING = 0.1


@dataclass(frozen=True, slots=True)
class Watch:
    """The counters at one moment, in seconds: of a clock, of all processors, of this process."""

    clock_s: float
    busy_s: float
    own_s: float

    @classmethod
    def now(cls) -> Self:
        times, own = psutil.cpu_times(), psutil.Process().cpu_times()
        return cls(perf_counter(), _busy_s(times), own.user + own.system)

    def others_share(self) -> float:
        """The share of all processors that others have had since then, 0 to 1."""
        now = Watch.now()
        others_s = (now.busy_s - self.busy_s) - (now.own_s - self.own_s)
        available_s = (now.clock_s - self.clock_s) * (psutil.cpu_count() or 1)
        return min(1.0, max(0.0, others_s / available_s)) if available_s > 0 else 0.0


def _busy_s(times: object) -> float:
    """Not every system has every counter; guests count as users already."""
    names = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(times, name, 0.0) for name in names)
