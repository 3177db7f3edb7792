"""What building for AMD's and Intel's GPUs needs, as plain values: Vulkan, ROCm and oneAPI.

Looks, decides nothing, and fails nowhere; `plan` says what follows.
"""

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from _setup.run import output_of

_VENDORS = {"0x1002": "AMD", "0x8086": "Intel", "0x10de": "NVIDIA"}
_INCLUDES = ("/usr/include", "/usr/local/include", "/opt/homebrew/include")
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/lib")
_FEATURES = {
    "cooperative matrices": "#extension GL_KHR_cooperative_matrix : require",
    "integer dot products": "#extension GL_EXT_integer_dot_product : require",
}


@dataclass(frozen=True, slots=True)
class Vulkan:
    """`headers`: their version; None: none. `lacking`: what glslc cannot compile."""

    headers: tuple[int, int, int] | None = None
    glslc: str | None = None
    spirv_headers: bool = False
    loader: bool = False
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rocm:
    """AMD's toolkit, and the targets of the GPUs here, as gfx1100."""

    home: str
    compiler: str
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OneApi:
    """Intel's compilers, as its setvars.sh puts them on PATH."""

    cc: str
    cxx: str


@dataclass(frozen=True, slots=True)
class Card:
    """A graphics card of the kernel's list; `is_open`: this user may compute on it."""

    vendor: str
    node: str | None = None
    is_open: bool = True


def cards(drm: Path = Path("/sys/class/drm"), dev: Path = Path("/dev/dri")) -> tuple[Card, ...]:
    """AMD's, Intel's and NVIDIA's. A card computes through its render node."""
    found: list[Card] = []
    for folder in sorted(drm.glob("card[0-9]*/device")) if drm.is_dir() else []:
        vendor = _VENDORS.get(_text(folder / "vendor"))
        if vendor is None:
            continue
        node = next((dev / each.name for each in sorted((folder / "drm").glob("renderD*"))), None)
        is_open = node is None or os.access(node, os.R_OK | os.W_OK)
        found.append(Card(vendor, str(node) if node else None, is_open))
    return tuple(found)


def vulkan() -> Vulkan:
    """Found where the SDK, the system or Homebrew puts it."""
    sdk = os.environ.get("VULKAN_SDK")
    places = [Path(sdk)] if sdk else []
    glslc = shutil.which("glslc", path=_path(places))
    return Vulkan(
        headers=_header_version([*(p / "include" for p in places), *map(Path, _INCLUDES)]),
        glslc=glslc,
        spirv_headers=_has_spirv_headers([*places, Path("/usr"), Path("/usr/local")]),
        loader=_has_loader([*(p / "lib" for p in places), *map(Path, _LIBRARIES)]),
        lacking=_lacking(glslc) if glslc else (),
    )


def rocm() -> Rocm | None:
    """AMD's toolkit; None where its compiler does not answer."""
    home = os.environ.get("ROCM_PATH") or "/opt/rocm"
    config = shutil.which("hipconfig") or shutil.which("hipconfig", path=f"{home}/bin")
    compiler = (output_of(config, "-l") or "").strip() if config else ""
    if not config or not compiler:
        return None
    root = (output_of(config, "-R") or home).strip()
    lister = shutil.which("rocm_agent_enumerator") or f"{root}/bin/rocm_agent_enumerator"
    targets = set(re.findall(r"^gfx(?!000)\w+$", output_of(lister) or "", re.MULTILINE))
    return Rocm(root, str(Path(compiler, "clang")), tuple(sorted(targets)))


def one_api() -> OneApi | None:
    """Intel's compilers on PATH."""
    cc, cxx = shutil.which("icx"), shutil.which("icpx")
    return OneApi(cc, cxx) if cc and cxx else None


def _path(places: list[Path]) -> str:
    return os.pathsep.join([*(str(p / "bin") for p in places), os.environ.get("PATH", "")])


def _header_version(folders: list[Path]) -> tuple[int, int, int] | None:
    texts = (_text(folder / "vulkan" / "vulkan_core.h") for folder in folders)
    text = next(filter(None, texts), "")
    patch = re.search(r"#define VK_HEADER_VERSION (\d+)", text)
    whole = re.search(r"VK_HEADER_VERSION_COMPLETE \w+\(\s*\d+,\s*(\d+),\s*(\d+)", text)
    return (int(whole[1]), int(whole[2]), int(patch[1])) if patch and whole else None


def _has_spirv_headers(roots: list[Path]) -> bool:
    name = "SPIRV-HeadersConfig.cmake"
    places = ("share/cmake/*", "lib/cmake/*", "lib64/cmake/*", "lib/*/cmake/*")
    return any(any(root.glob(f"{place}/{name}")) for root in roots for place in places)


def _has_loader(folders: list[Path]) -> bool:
    names = ("libvulkan.so", "libvulkan.so.1", "libvulkan.dylib", "*-linux-gnu/libvulkan.so*")
    return any(any(folder.glob(name)) for folder in folders for name in names)


def _lacking(glslc: str) -> tuple[str, ...]:
    """llama.cpp leaves out the fast kernels whose extension its shader compiler does not know."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "feature.comp")
        found: list[str] = []
        for name, line in _FEATURES.items():
            file.write_text(f"#version 460\n{line}\nvoid main() {{}}\n")
            made = output_of(glslc, "--target-env=vulkan1.3", "-o", os.devnull, str(file))
            if made is None:
                found.append(name)
    return tuple(found)


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""
