"""Graphics processors as tools of the operating system and Linux's /sys show them, engine or not.

Each parser takes the text of one tool and gives plain values, or nothing for any other text.
Formats: nvidia-smi --query-gpu (CSV), system_profiler SPDisplaysDataType -json, rocm-smi --json,
amdgpu.ids of libdrm. Tools may be absent, fail or hang.

amdgpu tells a card's own memory (VRAM) and how much of the machine's memory it may map (GTT). A
part of the processor has little of the first, whatever the firmware set aside, and computes in the
second: both count. A node in KFD's topology tells the target that ROCm compiles for, as
major * 10000 + minor * 100 + stepping, of which the last two are written in hexadecimal: 90010 is
gfx90a. Some targets exist in processors alone. Kernels up to 6.5 also gave such a part a node with
cores of both kinds; newer ones give it a node of its own, like a card's. Whoever may not open a
card's render node has no GPU, and drivers say nothing of it.

Sources: the kernel's Documentation/gpu/amdgpu/driver-misc.rst and drivers/gpu/drm/amd/amdkfd/
kfd_topology.c; the processors that LLVM's AMDGPUUsage lists as APUs; sysctl iogpu.wired_limit_mb of
macOS, in which 0 is the system's own limit.
"""

import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

MIB = 2**20
NVIDIA_QUERY = "name,memory.total,driver_version,power.limit"
_SIZE = re.compile(r"(\d+)(?: MiB)?|\[(?:N/A|Not Supported|Unknown Error)\]")
_WATTS = re.compile(r"(\d+(?:\.\d+)?)(?: W)?")
_TOTAL = re.compile(r"VRAM Total Memory \(B\)", re.IGNORECASE)
_NO_NAME = re.compile(r"(?:0x[0-9a-f]+|n/a|none|)", re.IGNORECASE)
_OLD_APPLE = re.compile(r"kHW_Apple(M\d+)(\w*)Item")


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
    entries = _document(text).get("SPDisplaysDataType")
    gpus: list[Gpu] = []
    for entry in entries if isinstance(entries, list) else ():
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


TOOL_LIMIT_S = 5


def output_of(*command: str, limit_s: float = TOOL_LIMIT_S) -> str:
    """What a tool prints; nothing if it is absent, fails or hangs."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace",
            timeout=limit_s, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def line_of(path: Path) -> str | None:
    """The text of a small file of the kernel; None if it is absent, unreadable or empty."""
    try:
        return path.read_text("utf-8", "replace").strip() or None
    except OSError:
        return None


def int_of(path: Path) -> int | None:
    """The number in a small file of the kernel, None if there is none."""
    text = line_of(path)
    return int(text) if text and text.isdecimal() else None


_CARDS = Path("/sys/class/drm")
_AMD = "0x1002"
_AMD_IDS = (Path("/usr/share/libdrm/amdgpu.ids"), Path("/opt/amdgpu/share/libdrm/amdgpu.ids"))


@cache
def system_gpus() -> tuple[Gpu, ...]:
    """Graphics processors of this machine; empty where no tool tells of any."""
    if platform.system() == "Darwin":
        shown = output_of("system_profiler", "SPDisplaysDataType", "-json")
        return apple_gpus(shown, psutil.virtual_memory().total)
    query = f"--query-gpu={NVIDIA_QUERY}"
    nvidia = nvidia_gpus(output_of("nvidia-smi", query, "--format=csv,noheader,nounits"))
    amd = amd_gpus(output_of("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json"))
    return nvidia + (amd or driver_gpus(_CARDS, _AMD_IDS))


def driver_gpus(cards: Path, ids: tuple[Path, ...]) -> tuple[Gpu, ...]:
    """AMD's by what the kernel driver says, where rocm-smi is not installed: Vulkan runs there."""
    table = next((text for text in map(line_of, ids) if text), "")
    folders = sorted(cards.glob("card[0-9]*/device")) if cards.is_dir() else []
    return tuple(gpu for folder in folders if (gpu := _driver_gpu(folder, table)))


def _driver_gpu(folder: Path, table: str) -> Gpu | None:
    total = line_of(folder / "mem_info_vram_total")
    if line_of(folder / "vendor") != _AMD or total is None or not total.isdecimal():
        return None
    device, revision = line_of(folder / "device") or "", line_of(folder / "revision") or ""
    name = line_of(folder / "product_name") or amd_name(table, device, revision)
    return Gpu(name or f"AMD GPU {device}", "vulkan", int(total))


_VENDORS = {"0x1002": "AMD", "0x8086": "Intel", "0x10de": "NVIDIA"}
_PROCESSORS_OWN = frozenset({
    "gfx700", "gfx801", "gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036",
    "gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153",
})  # fmt: skip
_NODES = "sys/class/kfd/kfd/topology/nodes/*/properties"


@dataclass(frozen=True, slots=True)
class Card:
    """One card; None is what the kernel does not say. `is_part_of_processor` shares its memory."""

    vendor: str
    driver: str | None = None
    render_node: str | None = None
    is_open: bool = True
    gfx_target: str | None = None
    own_bytes: int | None = None
    mappable_bytes: int | None = None
    is_part_of_processor: bool | None = None

    @property
    def memory_bytes(self) -> int | None:
        """What models can have at most."""
        if self.own_bytes is None or not self.is_part_of_processor:
            return self.own_bytes
        return self.own_bytes + (self.mappable_bytes or 0)

    @property
    def problem(self) -> str | None:
        """What keeps the card from being used, with the cure."""
        if self.is_open:
            return None
        return (
            f"this user may not open {self.render_node}: `sudo usermod -aG render,video $USER` and"
            " a new login change that"
        )


def system_cards(root: Path = Path("/")) -> tuple[Card, ...]:
    """AMD's, Intel's and NVIDIA's cards; empty on other systems."""
    nodes = _kfd_nodes(root)
    folders = sorted(root.glob("sys/class/drm/card[0-9]*/device"), key=str)
    return tuple(card for folder in folders if (card := _card(folder, root, nodes)))


def wired_limit_bytes(text: str | None = None) -> int | None:
    """What macOS lets graphics have of the memory, where a user has set it; None: its own limit."""
    if text is None:
        is_mac = platform.system() == "Darwin"
        text = output_of("sysctl", "-n", "iogpu.wired_limit_mb") if is_mac else ""
    megabytes = text.strip()
    return int(megabytes) * MIB or None if megabytes.isdecimal() else None


def gfx_target(version: int) -> str:
    """ROCm's name of a target by its number in the topology."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _card(folder: Path, root: Path, nodes: dict[str, dict[str, int]]) -> Card | None:
    vendor = _VENDORS.get(line_of(folder / "vendor") or "")
    if vendor is None:
        return None
    name = next((each.name for each in sorted((folder / "drm").glob("renderD*"))), None)
    path = root / "dev/dri" / name if name else None
    driver = folder / "driver"
    node = nodes.get(name or "", {})
    version = node.get("gfx_target_version", 0)
    target = gfx_target(version) if version else None
    is_part = target in _PROCESSORS_OWN or node.get("cpu_cores_count", 0) > 0
    return Card(
        vendor=vendor,
        driver=driver.resolve().name if driver.exists() else None,
        render_node=f"/dev/dri/{name}" if name else None,
        is_open=path is None or os.access(path, os.R_OK | os.W_OK),
        gfx_target=target,
        own_bytes=int_of(folder / "mem_info_vram_total"),
        mappable_bytes=int_of(folder / "mem_info_gtt_total"),
        is_part_of_processor=is_part if node else None,
    )


def _kfd_nodes(root: Path) -> dict[str, dict[str, int]]:
    """Properties of nodes with GPU cores, by the name of their render node."""
    found: dict[str, dict[str, int]] = {}
    for path in root.glob(_NODES):
        words = [line.split() for line in (line_of(path) or "").splitlines()]
        numbers = {w[0]: int(w[1]) for w in words if len(w) == 2 and w[1].isdecimal()}
        if numbers.get("simd_count") and "drm_render_minor" in numbers:
            found[f"renderD{numbers['drm_render_minor']}"] = numbers
    return found
