"""What this machine runs on: on battery a laptop is another machine than when plugged in."""

import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from localspec.hardware.system import low_power_mode
from localspec.hardware.tools import line_of, output_of

_PROFILE = Path("/sys/firmware/acpi/platform_profile")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True, slots=True)
class Power:
    """Supply and settings; None where the system does not say."""

    on_battery: bool | None
    low_power_mode: bool | None
    profile: str | None
    governor: str | None = None

    @property
    def text(self) -> str:
        """For people, and part of the key under which measurements are kept."""
        supply = {True: "on battery", False: "on mains power", None: "power supply unknown"}
        parts = [supply[self.on_battery]]
        if self.low_power_mode:
            parts.append("low power mode")
        if self.profile:
            parts.append(f"profile {self.profile}")
        if self.governor:
            parts.append(f"governor {self.governor}")
        return ", ".join(parts)


def power() -> Power:
    """Asked each time: a laptop's changes."""
    low = low_power_mode(output_of("pmset", "-g")) if platform.system() == "Darwin" else None
    return Power(_on_battery(), low, line_of(_PROFILE), line_of(_GOVERNOR))


def _on_battery() -> bool | None:
    """psutil reads what drivers of batteries write, which is not always a number."""
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, ValueError, RuntimeError, psutil.Error):
        return None
    plugged = None if battery is None else battery.power_plugged
    return None if plugged is None else not plugged
