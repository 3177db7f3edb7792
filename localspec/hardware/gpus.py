"""Graphics processors that the operating system shows, without an engine."""

import platform
from functools import cache
from pathlib import Path

import psutil

from localspec.hardware.system import NVIDIA_QUERY, Gpu, amd_gpus, amd_name, apple_gpus, nvidia_gpus
from localspec.hardware.tools import line_of, output_of

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
