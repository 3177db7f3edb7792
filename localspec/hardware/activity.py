"""What the machine did while something was measured: power, heat, other programs.

A thread that another program holds up keeps all others waiting at the end of every matrix, so a
small share costs much. Shares are of all processors' time between two looks at the system's
counters; a virtual machine's neighbours show as stolen time and as nothing else.
"""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

import psutil

from localspec.format import percent
from localspec.hardware.detect import power
from localspec.hardware.gpus import int_of
from localspec.notify import Notify

_THROTTLES = "/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"
BUSY = 0.10
"""Of the machine, taken by others: worth a word."""
SLOWED = 0.85


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What went on between two looks; None is what the system does not say."""

    power: str
    elapsed_s: float
    others_share: float | None = None
    stolen_share: float | None = None
    mhz_before: float | None = None
    mhz_after: float | None = None
    n_throttles: int | None = None

    @property
    def taken_share(self) -> float:
        """What other programs and a hypervisor had of all processors, 0 to 1."""
        return min(1.0, (self.others_share or 0.0) + (self.stolen_share or 0.0))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes a number doubtful, in a few words each."""
        return (*self.disturbances, *([self.power] if self.is_saving_power else []))

    @property
    def is_saving_power(self) -> bool:
        return "on battery" in self.power or "low power" in self.power

    @property
    def disturbances(self) -> tuple[str, ...]:
        """Of them what passes, so that a calm visit says more."""
        words: list[str] = []
        if self.n_throttles:
            words.append("the processor throttled for heat")
        if self.mhz_before and self.mhz_after and self.mhz_after < SLOWED * self.mhz_before:
            words.append(f"clock fell from {self.mhz_before:,.0f} to {self.mhz_after:,.0f} MHz")
        if self.others_share is not None and self.others_share > BUSY:
            words.append(f"other programs took {percent(self.others_share)} of the processor")
        if self.stolen_share is not None and self.stolen_share > BUSY:
            words.append(f"the host withheld {percent(self.stolen_share)} of the processor")
        return tuple(words)


class Watch:
    """Looks at the machine now and at `stop`."""

    def __init__(self) -> None:
        self._started_s = perf_counter()
        self._busy_s, self._own_s, self._stolen_s = _busy_s(), _own_s(), _stolen_s()
        self._mhz, self._throttles = _mhz(), _throttles()

    @property
    def elapsed_s(self) -> float:
        """Since it began."""
        return perf_counter() - self._started_s

    def stop(self) -> Circumstances:
        """What went on since then; children that did the work must have ended."""
        elapsed_s = self.elapsed_s
        all_s = elapsed_s * (psutil.cpu_count() or 1)
        others_s = _busy_s() - self._busy_s - (_own_s() - self._own_s)
        throttles, stolen_s = _throttles(), _stolen_s()
        return Circumstances(
            power=power().text,
            elapsed_s=elapsed_s,
            others_share=max(0.0, others_s / all_s),
            stolen_share=None if stolen_s is None else (stolen_s - (self._stolen_s or 0.0)) / all_s,
            mhz_before=self._mhz,
            mhz_after=_mhz(),
            n_throttles=None if throttles is None else throttles - (self._throttles or 0),
        )


LOOK_S, LOOKS = 0.5, 10
"""How long a look at the machine takes, and how many a measurement waits for calm."""


def is_calm(watch: Watch | None = None) -> bool:
    """Whether other programs leave the processors alone, by half a second of watching.

    A `watch` that began while something else was done saves that time.
    """
    watch = watch or Watch()
    sleep(max(0.0, LOOK_S - watch.elapsed_s))
    return watch.stop().taken_share <= BUSY


def await_calm(notify: Notify) -> bool:
    """Wait some seconds for other programs to end; whether they did."""
    if is_calm():
        return True
    notify("waiting for other programs to leave the processor alone")
    return any(is_calm() for _ in range(LOOKS))


def _busy_s() -> float:
    """Of all processors; not every system has every counter, and guests count as users already."""
    times, names = psutil.cpu_times(), ("user", "nice", "system", "irq", "softirq")
    return sum(getattr(times, name, 0.0) for name in names)


def _stolen_s() -> float | None:
    return getattr(psutil.cpu_times(), "steal", None)


def _own_s() -> float:
    """This process's own time and that of children that have ended."""
    times = psutil.Process().cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def _mhz() -> float | None:
    """What most systems say is the clock's nominal rate; some the present one."""
    try:
        frequency = psutil.cpu_freq()
    except (AttributeError, OSError, ValueError, RuntimeError, NotImplementedError):
        return None
    return frequency.current or None if frequency else None


def _throttles() -> int | None:
    counts = [int_of(path) for path in sorted(Path("/").glob(_THROTTLES[1:]))]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
