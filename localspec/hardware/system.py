"""What tools of the operating system print about graphics and power, read without running them.

Each function takes the text of one tool and gives plain values; text that is no such output gives
nothing. Formats: nvidia-smi --query-gpu (CSV), system_profiler SPDisplaysDataType -json,
rocm-smi --json, amdgpu.ids of libdrm, pmset -g.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

MIB = 2**20
NVIDIA_QUERY = "name,memory.total,driver_version,power.limit"
_SIZE = re.compile(r"(\d+)(?: MiB)?|\[(?:N/A|Not Supported|Unknown Error)\]")
_WATTS = re.compile(r"(\d+(?:\.\d+)?)(?: W)?")
_TOTAL = re.compile(r"VRAM Total Memory \(B\)", re.IGNORECASE)
_NO_NAME = re.compile(r"(?:0x[0-9a-f]+|n/a|none|)", re.IGNORECASE)
_OLD_APPLE = re.compile(r"kHW_Apple(M\d+)(\w*)Item")
_LOW_POWER = re.compile(r"^\s*(?:lowpowermode|powermode)\s+(\d)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics processor as a tool names it; None is what the tool does not say."""

    name: str
    backend: str
    memory_bytes: int | None = None
    gpu_cores: int | None = None
    driver: str | None = None
    power_limit_w: float | None = None


def nvidia_gpus(text: str) -> tuple[Gpu, ...]:
    """From `nvidia-smi --query-gpu=NVIDIA_QUERY --format=csv,noheader,nounits`.

    A part that shares the machine's memory prints "[N/A]" as its size (GB10, Jetson).
    """
    rows = ([cell.strip() for cell in line.split(",")] for line in text.splitlines())
    return tuple(gpu for cells in rows if (gpu := _nvidia_gpu(cells)))


def _nvidia_gpu(cells: list[str]) -> Gpu | None:
    name, size, driver, watts = [*cells, *[""] * 4][:4]
    found = _SIZE.fullmatch(size)
    if not name or found is None:
        return None
    limit = _WATTS.fullmatch(watts)
    return Gpu(
        name=name,
        backend="cuda",
        memory_bytes=int(found[1]) * MIB if found[1] else None,
        driver=driver or None,
        power_limit_w=float(limit[1]) if limit else None,
    )


def apple_gpus(text: str, memory_bytes: int | None = None) -> tuple[Gpu, ...]:
    """From `system_profiler SPDisplaysDataType -json`; Apple's share the machine's memory."""
    entries = _list(_document(text).get("SPDisplaysDataType"))
    gpus: list[Gpu] = []
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        name = _apple_name(str(entry.get("sppci_model") or entry.get("_name") or ""))
        cores = str(entry.get("sppci_cores", ""))
        if name.startswith("Apple"):
            gpus.append(Gpu(name, "metal", memory_bytes, int(cores) if _is_number(cores) else None))
    return tuple(gpus)


def _apple_name(name: str) -> str:
    """macOS 11 prints the key of the first chips' name, untranslated: kHW_AppleM1Item."""
    found = _OLD_APPLE.fullmatch(name)
    return f"Apple {found[1]} {found[2]}".strip() if found else name


def amd_gpus(text: str) -> tuple[Gpu, ...]:
    """From `rocm-smi --showproductname --showmeminfo vram --json`; warnings may come before it."""
    gpus: list[Gpu] = []
    for card in _document(text[text.find("{") :] if "{" in text else "").values():
        if not isinstance(card, dict):
            continue
        keys = ("Card Series", "Card series", "Card Model", "Card model", "Device Name")
        names = (str(card.get(key, "")).strip() for key in keys)
        name = next((name for name in names if not _NO_NAME.fullmatch(name)), None)
        totals = [str(value) for key, value in card.items() if _TOTAL.search(str(key))]
        size = int(totals[0]) if totals and _is_number(totals[0]) else None
        if name:
            gpus.append(Gpu(name, "rocm", size))
    return tuple(gpus)


def amd_name(ids: str, device: str, revision: str) -> str | None:
    """The marketing name of a chip, from libdrm's amdgpu.ids; ids in hexadecimal as in sysfs."""
    wanted = (_bare(device), _bare(revision))
    rows = (line.split(",", 2) for line in ids.splitlines() if not line.startswith("#"))
    return next(
        (
            row[2].strip()
            for row in rows
            if len(row) == 3 and (_bare(row[0]), _bare(row[1])) == wanted
        ),
        None,
    )


def low_power_mode(text: str) -> bool | None:
    """From `pmset -g`, where newer machines print `powermode`: 1 is low; None without either."""
    found = _LOW_POWER.search(text)
    return None if found is None else found[1] == "1"


def _bare(number: str) -> str:
    return number.strip().lower().removeprefix("0x").lstrip("0")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
