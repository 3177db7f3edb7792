"""Graphics cards as Linux shows them in /sys, and the share of memory that macOS gives graphics.

amdgpu tells a card's own memory (VRAM) and how much of the machine's memory it may map (GTT). A
part of the processor has little of the first, whatever the firmware set aside, and computes in the
second: both count. A node in KFD's topology tells the target that ROCm compiles for, as
major * 10000 + minor * 100 + stepping, of which the last two are written in hexadecimal: 90010 is
gfx90a. Some targets exist in processors alone. Kernels up to 6.5 also gave such a part a node with
cores of both kinds; newer ones give it a node of its own, like a card's.

Whoever may not open a card's render node has no GPU, and drivers say nothing of it.

Sources: the kernel's Documentation/gpu/amdgpu/driver-misc.rst and drivers/gpu/drm/amd/amdkfd/
kfd_topology.c; the processors that LLVM's AMDGPUUsage lists as APUs; sysctl iogpu.wired_limit_mb of
macOS, in which 0 is the system's own limit.
"""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from localspec.hardware.gpus import line_of, output_of

MIB = 2**20
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
        own_bytes=_number(folder / "mem_info_vram_total"),
        mappable_bytes=_number(folder / "mem_info_gtt_total"),
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


def _number(path: Path) -> int | None:
    text = line_of(path)
    return int(text) if text and text.isdecimal() else None
