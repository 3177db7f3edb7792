"""Joules, where the machine tells: counters of processors and GPUs, else the power of a battery.

Counters of parts count what those parts took, so memory and screen are missing; a battery tells
what the whole machine takes, and only while it feeds it. Parts are preferred: they are exact.

    processor  Intel's and AMD's RAPL counters, through Linux's powercap (readable by root since
               2020, CVE-2020-8694; others need a right to read `energy_uj`)
    GPU        NVML's counter of millijoules (Volta and later), or amdgpu's power in `hwmon`
    battery    `power_now`, or current times voltage, of Linux's power_supply; on macOS what
               AppleSmartBattery says

Sources: Documentation/power/powercap, Documentation/gpu/amdgpu/thermal and
Documentation/ABI/testing/sysfs-class-power of the Linux kernel; NVML API reference,
nvmlDeviceGetTotalEnergyConsumption. `powermetrics` of macOS asks for root and is not started.
"""

import ctypes
import platform
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Protocol, Self

from localspec.hardware.gpus import int_of, line_of, output_of

ROOT = Path("/")
SAMPLED_S = 0.1
"""Between two looks at a power: it changes slowly beside a reply."""


class EnergySource(Protocol):
    """Something that takes energy. `joules` grows; None: it does not tell now."""

    name: str

    def joules(self) -> float | None: ...


@dataclass(slots=True)
class Counter:
    """A counter in a file, in units of `unit` joules, that starts anew behind `range_`."""

    name: str
    path: Path
    unit: float = 1e-6
    range_: int | None = None
    _last: int | None = None
    _wrapped: int = 0

    def joules(self) -> float | None:
        found = int_of(self.path)
        if found is None:
            return None
        if self._last is not None and found < self._last:
            self._wrapped += self.range_ or self._last
        self._last = found
        return self.unit * (self._wrapped + found)


@dataclass(slots=True)
class Nvml:
    """Millijoules of one NVIDIA GPU since its driver started."""

    name: str
    library: ctypes.CDLL
    handle: ctypes.c_void_p

    def joules(self) -> float | None:
        found = ctypes.c_ulonglong()
        code = self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle, ctypes.byref(found))
        return found.value / 1e3 if code == 0 else None


@dataclass(slots=True)
class Sampled:
    """Watts, looked at every `SAMPLED_S` while somebody measures, and added up."""

    name: str
    watts: Callable[[], float | None]
    _sum: float = 0.0
    _at: float | None = None
    _known: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def joules(self) -> float | None:
        with self._lock:
            now, watts = perf_counter(), self.watts()
            self._known = watts is not None
            if watts is not None and self._at is not None:
                self._sum += watts * (now - self._at)
            self._at = now
            return self._sum if self._known else None


@dataclass(frozen=True, slots=True)
class Spent:
    """Joules, and who told: "processor", "GPU", "battery"."""

    joules: float
    sources: tuple[str, ...]


class Meter:
    """Energy between `start` and `stop`, whose use takes microseconds."""

    def __init__(self, sources: Sequence[EnergySource]) -> None:
        self._sources = sources
        self.tells = bool(sources)
        """Whether there is anything to measure."""
        self._before: list[float | None] = []
        self._over = threading.Event()

    @classmethod
    def here(cls) -> Self:
        """Of this machine; it measures nothing where the machine does not tell."""
        return cls(sources_here())

    def start(self) -> None:
        """From now on."""
        self._before = [source.joules() for source in self._sources]
        sampled = [source for source in self._sources if isinstance(source, Sampled)]
        if sampled:
            self._over = threading.Event()
            threading.Thread(target=_sample, args=(sampled, self._over), daemon=True).start()

    def stop(self) -> Spent | None:
        """What was spent since `start`; None without one, or where a source did not tell all
        along."""
        self._over.set()
        spent, self._before = self.so_far(), []
        return spent

    def so_far(self) -> Spent | None:
        """As `stop`, and go on."""
        after = [source.joules() for source in self._sources]
        pairs = list(zip(self._before, after, strict=False))
        if not pairs or len(pairs) < len(self._sources):
            return None
        spent = [b - a for a, b in pairs if a is not None and b is not None]
        if len(spent) < len(pairs) or sum(spent) <= 0:
            return None
        return Spent(sum(spent), tuple(dict.fromkeys(each.name for each in self._sources)))


def _sample(sources: Sequence[Sampled], over: threading.Event) -> None:
    while not over.wait(SAMPLED_S):
        for source in sources:
            source.joules()


@cache
def sources_here() -> tuple[EnergySource, ...]:
    """What tells on this machine: parts by their counters; a battery where no part does."""
    return sources_of(ROOT) or _of_macos()


def sources_of(root: Path) -> tuple[EnergySource, ...]:
    """Of Linux's files below `root`."""
    parts: list[EnergySource] = [*_processors(root), *_nvidia(), *_amd(root)]
    return tuple(parts) or tuple(_batteries(root))


def _processors(root: Path) -> list[Counter]:
    """Whole packages: their cores and memory controllers are counted within them."""
    found: list[Counter] = []
    for folder in sorted((root / "sys/class/powercap").glob("*:*")):
        is_package = (line_of(folder / "name") or "").startswith("package")
        if is_package and int_of(folder / "energy_uj") is not None:
            largest = int_of(folder / "max_energy_range_uj")
            found.append(Counter("processor", folder / "energy_uj", range_=largest))
    return found


def _amd(root: Path) -> list[Sampled]:
    """Cards of the amdgpu driver, in microwatts."""
    pattern = "sys/class/drm/card*/device/hwmon/hwmon*"
    folders = [f for f in sorted(root.glob(pattern)) if line_of(f / "name") == "amdgpu"]
    files = [next((p for n in ("power1_average", "power1_input") if (p := f / n).exists()), None)
             for f in folders]  # fmt: skip
    return [Sampled("GPU", _microwatts(path)) for path in files if path]


def _microwatts(path: Path) -> Callable[[], float | None]:
    def watts() -> float | None:
        found = int_of(path)
        return None if found is None else found / 1e6

    return watts


def _batteries(root: Path) -> list[Sampled]:
    """Those of the machine: a mouse's or a pen's has the scope "Device"."""
    folders = sorted((root / "sys/class/power_supply").glob("*"))
    own = [f for f in folders if line_of(f / "type") == "Battery"]
    own = [f for f in own if line_of(f / "scope") != "Device"]
    tells = ("power_now", "current_now")
    return [Sampled("battery", _battery(f)) for f in own if any((f / n).exists() for n in tells)]


def _battery(folder: Path) -> Callable[[], float | None]:
    """Watts while it feeds the machine. Some drivers count what flows out as negative."""

    def watts() -> float | None:
        if line_of(folder / "status") != "Discharging":
            return None
        power = _signed(folder / "power_now")
        if power is not None:
            return abs(power) / 1e6
        current, voltage = _signed(folder / "current_now"), _signed(folder / "voltage_now")
        return None if current is None or voltage is None else abs(current * voltage) / 1e12

    return watts


def _signed(path: Path) -> int | None:
    text = line_of(path) or ""
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def _nvidia() -> list[Nvml]:
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        if library.nvmlInit_v2():
            return []
        n = ctypes.c_uint()
        library.nvmlDeviceGetCount_v2(ctypes.byref(n))
        return [each for i in range(n.value) if (each := _nvidia_card(library, i))]
    return []


def _nvidia_card(library: ctypes.CDLL, i: int) -> Nvml | None:
    """None for a card that does not count."""
    handle = ctypes.c_void_p()
    if library.nvmlDeviceGetHandleByIndex_v2(i, ctypes.byref(handle)):
        return None
    card = Nvml("GPU", library, handle)
    return card if card.joules() is not None else None


def _of_macos() -> tuple[EnergySource, ...]:
    """A Mac's battery, while it feeds it."""
    if platform.system() != "Darwin" or apple_watts(_apple_battery()) is None:
        return ()
    return (Sampled("battery", lambda: apple_watts(_apple_battery())),)


def _apple_battery() -> str:
    return output_of("ioreg", "-rn", "AppleSmartBattery") or ""


def apple_watts(text: str) -> float | None:
    """Of what `ioreg` says: milliamperes, as 64 bits without a sign, times millivolts."""
    found = dict(re.findall(r'"(\w+)" = (\w+)', text))
    if found.get("ExternalConnected") != "No":
        return None
    try:
        milliamperes, millivolts = int(found["InstantAmperage"]), int(found["Voltage"])
    except (KeyError, ValueError):
        return None
    signed = milliamperes - 2**64 if milliamperes >= 2**63 else milliamperes
    return -signed * millivolts / 1e6 if signed < 0 else None
