"""What stands in the way of a build here: sentences with a way out, the first one first."""

from collections.abc import Callable
from dataclasses import dataclass

from _setup.facts import Facts


@dataclass(frozen=True, slots=True)
class Target:
    """Whether it is known which GPU to build for, and whether cuBLAS is there or is lent."""

    is_known: bool
    has_cublas: bool


def obstacles(facts: Facts, backend: str, target: Target) -> list[str]:
    """Sentences; the first is what the user is told. Empty: the build can go ahead."""
    found = [] if facts.compiler else [_no_compiler(facts)]
    return found + (_OF[backend](facts, target) if backend in _OF else [])


def _metal(facts: Facts, target: Target) -> list[str]:
    if facts.system == "Darwin":
        return []
    return [f"Metal is built on macOS only, and this is {facts.system}."]


def _cuda(facts: Facts, target: Target) -> list[str]:
    found: list[str] = []
    if facts.cuda is None:
        found.append(
            "The CUDA backend needs nvcc, which is not on PATH, in CUDA_HOME or in /usr/local/cuda:"
            " install the CUDA toolkit."
        )
    elif not target.has_cublas:
        found.append(
            f"The CUDA toolkit of {facts.cuda.nvcc} has no cuBLAS:"
            " install it (libcublas-dev on Debian and Ubuntu, libcublas-devel on Fedora)."
        )
    if not target.is_known:
        found.append(
            "No NVIDIA GPU is here to build for: name its architecture (--cuda-arch 90 is an H100)."
        )
    return found


def _rocm(facts: Facts, target: Target) -> list[str]:
    if facts.rocm is None:
        return [
            "The ROCm backend needs AMD's HIP compiler, and no hipconfig answers: install ROCm 6.1"
            " or newer (hipcc, librocblas-dev and libhipblas-dev on Debian and Ubuntu), or use"
            " --backend vulkan."
        ]
    if not target.is_known:
        return ["No AMD GPU is here to build for: name its target (--gpu-target gfx1100)."]
    return []


def _sycl(facts: Facts, target: Target) -> list[str]:
    if facts.one_api:
        return []
    return [
        "The SYCL backend needs Intel's icx and icpx on PATH: install oneAPI and run `source"
        " /opt/intel/oneapi/setvars.sh`, or use --backend vulkan."
    ]


LEAST_HEADERS = (1, 3, 272)
"""VK_EXT_layer_settings, which ggml-vulkan uses without asking (ggml 0.25.3)."""
_SDK = "the SDK of vulkan.lunarg.com with VULKAN_SDK set"
_PACKAGES = {
    "ubuntu": "apt install libvulkan-dev glslc spirv-headers",
    "debian": "apt install libvulkan-dev glslc spirv-headers",
    "fedora": "dnf install vulkan-loader-devel vulkan-headers glslc spirv-headers-devel",
    "arch": "pacman -S vulkan-headers vulkan-icd-loader shaderc spirv-headers",
}


def vulkan_obstacles(facts: Facts) -> list[str]:
    """What a Vulkan build lacks here."""
    vulkan = facts.vulkan
    parts = {
        "the Vulkan headers": vulkan.headers is not None,
        "glslc": vulkan.glslc is not None,
        "the SPIR-V headers": vulkan.spirv_headers,
        "the Vulkan loader": vulkan.loader,
    }
    absent = [name for name, is_there in parts.items() if not is_there]
    if absent:
        return [f"The Vulkan backend needs {_listed(absent)}: {_how_to_get_vulkan(facts)}."]
    if vulkan.headers and vulkan.headers < LEAST_HEADERS:
        have, need = (".".join(map(str, v)) for v in (vulkan.headers, LEAST_HEADERS))
        return [
            f"The Vulkan headers are {have}, and {need} is needed: take those of Debian 13, Ubuntu"
            f" 24.04 or newer, or {_SDK}."
        ]
    return []


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _how_to_get_vulkan(facts: Facts) -> str:
    if facts.system == "Darwin":
        return f"install {_SDK}"
    known = next((how for name, how in _PACKAGES.items() if name in facts.distribution), "")
    others = "; ".join(f"`{how}`" for how in dict.fromkeys(_PACKAGES.values()))
    return f"{known or others}, or {_SDK}"


def _no_compiler(facts: Facts) -> str:
    named = [f"{k}={v}" for k, v in facts.user_environment if k in ("CC", "CXX")]
    if named:
        return f"The C++ compiler {' '.join(named)} does not work here: mend or unset it."
    how = {
        "Darwin": "xcode-select --install",
        "Windows": "winget install Microsoft.VisualStudio.2022.BuildTools, with the C++ workload",
    }.get(facts.system, "apt install g++ on Debian and Ubuntu, dnf install gcc-c++ on Fedora")
    return f"Building the engine needs a C++ compiler, and none was found: {how}."


_OF: dict[str, Callable[[Facts, Target], list[str]]] = {
    "metal": _metal,
    "cuda": _cuda,
    "rocm": _rocm,
    "sycl": _sycl,
    "vulkan": lambda facts, _: vulkan_obstacles(facts),
}
