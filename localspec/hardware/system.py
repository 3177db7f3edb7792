"""What tools of the operating system print about graphics and power, read without running them.

Each function takes the text of one tool and gives plain values; text that is no such output gives
nothing. Formats: nvidia-smi --query-gpu (CSV), system_profiler SPDisplaysDataType -json,
rocm-smi --json, and the names in ggml's device list.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

MIB = 2**20
_TOTAL = re.compile(r"VRAM Total Memory \(B\)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics processor as a tool names it; None is what the tool does not say."""

    name: str
    backend: str
    memory_bytes: int | None = None
    gpu_cores: int | None = None


def nvidia_gpus(text: str) -> tuple[Gpu, ...]:
    """From `nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits`."""
    gpus: list[Gpu] = []
    for line in text.splitlines():
        name, _, memory = (part.strip() for part in line.partition(","))
        size = memory.split(",")[0].strip().removesuffix("MiB").strip()
        if name and _ and "failed" not in name.lower() and "error" not in name.lower():
            gpus.append(Gpu(name, "cuda", int(size) * MIB if size.isdecimal() else None))
    return tuple(gpus)


def apple_gpus(text: str, memory_bytes: int | None = None) -> tuple[Gpu, ...]:
    """From `system_profiler SPDisplaysDataType -json`; Apple's share the machine's memory."""
    displays = _document(text).get("SPDisplaysDataType")
    entries = [entry for entry in _list(displays) if isinstance(entry, dict)]
    gpus: list[Gpu] = []
    for entry in entries:
        name = entry.get("sppci_model", entry.get("_name"))
        cores = str(entry.get("sppci_cores", ""))
        if isinstance(name, str) and name.startswith("Apple"):
            gpus.append(Gpu(name, "metal", memory_bytes, int(cores) if cores.isdecimal() else None))
    return tuple(gpus)


def amd_gpus(text: str) -> tuple[Gpu, ...]:
    """From `rocm-smi --showproductname --showmeminfo vram --json`."""
    gpus: list[Gpu] = []
    for card in _document(text).values():
        if not isinstance(card, dict):
            continue
        names = [card.get(key) for key in ("Card Series", "Card series", "Device Name")]
        name = next((n for n in names if isinstance(n, str) and n), None)
        totals = [str(value) for key, value in card.items() if _TOTAL.search(str(key))]
        size = int(totals[0]) if totals and totals[0].isdecimal() else None
        if name:
            gpus.append(Gpu(name, "rocm", size))
    return tuple(gpus)


def low_power_mode(text: str) -> bool | None:
    """From `pmset -g`; None where it does not say."""
    found = re.search(r"^\s*(?:lowpowermode|powermode)\s+(\d)", text, re.MULTILINE)
    return None if found is None else found[1] == "1"


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
