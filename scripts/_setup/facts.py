"""What the engine build needs to know of this machine, as plain values. Looks, decides nothing.

Nothing here fails: what cannot be found out is None or empty. `plan` says what follows from it.
"""

import os
import platform
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from _setup.graphics import Card, OneApi, Rocm, Vulkan, cards, one_api, rocm, vulkan
from _setup.run import output_of

USER_VARIABLES = ("CMAKE_ARGS", "CFLAGS", "CXXFLAGS", "CC", "CXX")
_COMPILER_PAIRS = (("cc", "c++"), ("gcc", "g++"), ("clang", "clang++"))
_CPUINFO_NAME = ("model name", "cpu family", "model", "CPU implementer", "CPU part", "cpu")


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C++ compiler that answered; `family` is gcc, clang or other."""

    family: str
    version: str
    cc: str
    cxx: str


@dataclass(frozen=True, slots=True)
class Cuda:
    """A CUDA toolkit, and whether what to link with is there: cuBLAS, and libcuda or its stub."""

    nvcc: str
    version: str
    cublas: bool = True
    driver_library: bool = True

    @property
    def major(self) -> str:
        return self.version.split(".")[0]


@dataclass(frozen=True, slots=True)
class Gpu:
    """An NVIDIA GPU; `arch` is its compute capability as CMake writes it ("90"), None: not told."""

    name: str
    arch: str | None


@dataclass(frozen=True, slots=True)
class Facts:
    """One machine, as far as it matters for building the engine."""

    system: str
    machine: str
    libc: str
    processor: str
    cpu_flags: frozenset[str]
    compiler: Compiler | None
    cuda: Cuda | None = None
    gpus: tuple[Gpu, ...] = ()
    n_jobs: int = 1
    user_environment: tuple[tuple[str, str], ...] = ()
    cards: tuple[Card, ...] = ()
    vulkan: Vulkan = field(default_factory=Vulkan)
    rocm: Rocm | None = None
    one_api: OneApi | None = None
    distribution: frozenset[str] = frozenset()


def gather() -> Facts:
    """Look at this machine; takes some hundredths of a second, more where a GPU answers."""
    processor, cpu_flags = _processor()
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        libc=" ".join(platform.libc_ver()).strip(),
        processor=processor,
        cpu_flags=cpu_flags,
        compiler=_compiler(),
        cuda=_cuda(),
        gpus=_gpus(),
        n_jobs=_n_jobs(),
        user_environment=tuple((k, os.environ[k]) for k in USER_VARIABLES if os.environ.get(k)),
        cards=cards(),
        vulkan=vulkan(),
        rocm=rocm(),
        one_api=one_api(),
        distribution=_distribution(),
    )


def _processor() -> tuple[str, frozenset[str]]:
    if platform.system() == "Darwin":
        return (output_of("sysctl", "-n", "machdep.cpu.brand_string") or "").strip(), frozenset()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    first = dict(re.findall(r"^(.+?)\s*: (.*)$", text.strip().split("\n\n")[0], re.MULTILINE))
    name = "/".join(first[key] for key in _CPUINFO_NAME if key in first)
    return name, frozenset((first.get("flags") or first.get("Features") or "").split())


def _compiler() -> Compiler | None:
    if platform.system() == "Windows":
        return _visual_studio()
    for cc, cxx in _compiler_candidates():
        # Asked by its macros, not its name or --version: wrappers, ccache and Apple's stub (which
        # is there without a compiler behind it) all answer truly.
        macros = output_of(*cxx.split(), "-dM", "-E", "-x", "c++", os.devnull)
        if macros and shutil.which(cc.split()[0]):
            version = re.search(r'#define __VERSION__ "(.*)"', macros)
            return Compiler(_family(macros), version[1] if version else "unknown", cc, cxx)
    return None


def _compiler_candidates() -> list[tuple[str, str]]:
    cc, cxx = os.environ.get("CC"), os.environ.get("CXX")
    if cc or cxx:
        return [(cc or "cc", cxx or "c++")]
    return [
        (found_cc, found_cxx)
        for names in _COMPILER_PAIRS
        if (found_cc := shutil.which(names[0])) and (found_cxx := shutil.which(names[1]))
    ]


def _family(macros: str) -> str:
    if "#define __clang__" in macros:
        return "clang"
    return "gcc" if "#define __GNUC__" in macros else "other"


def _visual_studio() -> Compiler | None:
    installer = Path(os.environ.get("PROGRAMFILES(X86)", "C:/Program Files (x86)"))
    vswhere = installer / "Microsoft Visual Studio" / "Installer" / "vswhere.exe"
    version = output_of(str(vswhere), "-latest", "-property", "installationVersion")
    if version or shutil.which("cl"):
        return Compiler("other", (version or "unknown").strip(), "cl", "cl")
    return None


def _cuda() -> Cuda | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home, "bin")))
    answer = output_of(nvcc, "--version") if nvcc else None
    if not nvcc or not answer:
        return None
    version = re.search(r"release ([\d.]+)", answer)
    return Cuda(
        nvcc,
        version[1] if version else "unknown",
        cublas=_has_library(Path(home), "cublas"),
        driver_library=_has_library(Path(home), "cuda"),
    )


def _has_library(home: Path, name: str) -> bool:
    """Is there something to link with, in the toolkit or where the system keeps libraries?"""
    toolkit = ("lib64", "lib", "lib/x64", "targets/*/lib", "lib64/stubs", "targets/*/lib/stubs")
    folders = [folder for pattern in toolkit for folder in home.glob(pattern)]
    folders += [Path("/usr/lib64"), Path("/usr/lib"), *Path("/usr/lib").glob("*-linux-gnu")]
    return any(
        (folder / f).exists() for folder in folders for f in (f"lib{name}.so", f"{name}.lib")
    )


def _gpus() -> tuple[Gpu, ...]:
    query = ("--query-gpu=name,compute_cap", "--format=csv,noheader")
    answer = output_of("nvidia-smi", *query) or ""
    asked = re.findall(r"^(.+), *(\d+)\.(\d+)$", answer, re.MULTILINE)
    if asked:
        return tuple(Gpu(name, major + minor) for name, major, minor in asked)
    told = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return tuple(Gpu(_model_of(file), None) for file in told)


def _model_of(information: Path) -> str:
    model = re.search(r"^Model:\s*(.+)$", information.read_text(errors="replace"), re.MULTILINE)
    return model[1] if model else "NVIDIA GPU"


def _distribution() -> frozenset[str]:
    """The system's own id and those of its kin: ubuntu, debian."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    values = re.findall(r'^ID(?:_LIKE)?="?([^"\n]*)', text, re.MULTILINE)
    return frozenset(" ".join(values).split())


def _n_jobs() -> int:
    """Parallel compilers: one a core that we may use, and 2 GiB of memory for each."""
    affinity = getattr(os, "sched_getaffinity", None)
    n_cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return n_cores
    return max(1, min(n_cores, memory_bytes // 2**31))
