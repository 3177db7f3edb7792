"""The table of devices: published figures, each with its source, as devices.toml keeps them."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Self

from localspec.errors import HardwareError

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Device:
    """One device; None is what no source says.

    `fp16_flops_per_s` is the dense matrix rate. `same_name_bytes_per_s`: bandwidths of other parts
    that report this name and this memory, so that nothing tells them apart. `kind` is the backend
    that its figures are for, `also` others that it runs on, "cpu" memory for a processor.
    """

    name: str
    kind: str
    vendor: str
    matches: tuple[str, ...]
    bandwidth_bytes_per_s: float
    fp16_flops_per_s: float | None
    fp32_flops_per_s: float | None
    memory_bytes: tuple[int, ...]
    gpu_cores: int | None
    note: str | None
    source: str
    fp16_source: str
    memory_source: str | None = None
    same_name_bytes_per_s: tuple[float, ...] = ()
    shares_memory: bool = False
    also: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Self:
        """From an entry of devices.toml.

        Raises KeyError, TypeError or ValueError where it is not whole.
        """
        bandwidth = entry["bandwidth_gbps"] * 1e9
        if bandwidth <= 0 or not entry["source"] or not entry["match"]:
            raise ValueError(f"{entry['name']}: bandwidth, source and match must not be empty")
        return cls(
            name=entry["name"],
            kind=entry["kind"],
            vendor=entry["vendor"],
            matches=tuple(entry["match"]),
            bandwidth_bytes_per_s=bandwidth,
            fp16_flops_per_s=entry["fp16_tflops"] * 1e12 or None,
            fp32_flops_per_s=entry.get("fp32_tflops", 0.0) * 1e12 or None,
            memory_bytes=tuple(round(size * GIB) for size in entry["memory_gb"]),
            gpu_cores=entry.get("gpu_cores"),
            note=entry.get("note"),
            source=entry["source"],
            fp16_source=entry["fp16_source"],
            memory_source=entry.get("memory_source"),
            same_name_bytes_per_s=tuple(rate * 1e9 for rate in entry.get("same_name_gbps", ())),
            shares_memory=entry.get("shares_memory", False),
            also=tuple(entry.get("also", ())),
        )


@cache
def all_devices() -> tuple[Device, ...]:
    """The whole table. Raises HardwareError if it is damaged."""
    text = (resources.files("localspec.hardware") / "devices.toml").read_text("utf-8")
    return read_table(text)


def read_table(text: str) -> tuple[Device, ...]:
    """Every entry of a table. Raises HardwareError where one is not whole."""
    try:
        return tuple(Device.of(entry) for entry in tomllib.loads(text)["device"])
    except KeyError as error:
        raise _damaged(f"{error} is missing") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise _damaged(str(error)) from error


def _damaged(reason: str) -> HardwareError:
    return HardwareError(f"devices.toml is damaged ({reason}): install localspec again")
