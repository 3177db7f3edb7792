"""Which engine to build for a machine, and how: a pure function of facts and wishes.

The engine is llama-cpp-python, built lean: no tools, no server, no vision library. A build for
this machine uses all that its processor has. A build for another machine (`portable`) assumes only
the common ground of its kind.
"""

import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from typing import Literal

from _setup.facts import Facts
from _setup.module import LEAST_GLIBC, PACKAGE
from _setup.obstacles import Target, obstacles, vulkan_obstacles

Backend = Literal["cpu", "cuda", "metal", "vulkan", "rocm", "sycl"]

LEAN = (
    "-DLLAVA_BUILD=OFF",
    "-DLLAMA_BUILD_TOOLS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_SERVER=OFF",
    "-DGGML_RPC=ON",
)
# Said aloud, because ggml's default turns around where SOURCE_DATE_EPOCH is set.
NATIVE = ("-DGGML_NATIVE=ON",)
# x86-64-v3: what every server and PC of the last ten years has. No AVX-512, no AMX.
PORTABLE_X86 = (
    "-DGGML_SSE42=ON",
    "-DGGML_AVX=ON",
    "-DGGML_AVX2=ON",
    "-DGGML_BMI2=ON",
    "-DGGML_FMA=ON",
    "-DGGML_F16C=ON",
)
# Apple M1, AWS Graviton 2, NVIDIA Grace, Raspberry Pi 5 and newer.
PORTABLE_ARM = ("-DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16",)
# GCC's _tile_loadconfig tells the optimizer that it reads 8 of the 64 bytes of a tile
# configuration, so the stores to the rest are dropped as dead, and the processor faults at
# `ldtilecfg` in the first batch of two or more tokens. Without dead-store elimination they stay,
# and the engine keeps AMX.
KEEP_TILE_CONFIG = "-fno-tree-dse -fno-dse"
# Pairs of K and V types that flash attention reads on CUDA; of others it makes f16 copies, slowly.
FA_QUANTS = "f16-f16;bf16-bf16;q8_0-q8_0;q4_0-q4_0;q8_0-q4_0"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for; `backend` None means: choose."""

    version: str
    backend: Backend | None = None
    cuda_arch: str | None = None
    portable: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """An engine build: what, why, and what stands in the way of it here."""

    version: str
    backend: Backend
    reason: str
    environment: tuple[tuple[str, str], ...]
    target: tuple[str, ...]
    compiler: tuple[str, ...]
    n_jobs: int
    cublas_package: str | None
    is_prebuilt: bool
    """Whether the backend is a module that others have built, beside an engine for the CPU."""
    notes: tuple[str, ...]
    obstacles: tuple[str, ...]

    @property
    def engine_id(self) -> str:
        """Names the engine that is wanted here; changes with version, flags and processor."""
        flags = [pair for pair in self.environment if pair[0] not in ("CC", "CXX")]
        engine = "cpu" if self.is_prebuilt else self.backend
        return f"{self.version}-{engine}-{_digest([self.version, flags, self.target])}"

    @property
    def installed_id(self) -> str:
        """What lies in `.venv`: the engine, and whether a module does beside it."""
        return f"{self.engine_id}-module" if self.is_prebuilt else self.engine_id

    @property
    def build_id(self) -> str:
        """Names one build of it; changes with the compiler as well."""
        return _digest([self.engine_id, self.environment, self.compiler])


def make_plan(facts: Facts, wishes: Wishes) -> Plan:
    """Choose a backend where none is asked for, and everything that follows from it."""
    backend, reason = _choose(facts, wishes)
    arch = _cuda_arch(facts, wishes) if backend == "cuda" else None
    is_prebuilt = backend == "vulkan" and _needs_module(facts, wishes)
    return Plan(
        version=wishes.version,
        backend=backend,
        reason=reason,
        environment=_environment(facts, wishes, "cpu" if is_prebuilt else backend, arch),
        target=_target(facts, wishes),
        compiler=_compiler_identity(facts, backend),
        n_jobs=facts.n_jobs,
        cublas_package=_cublas_package(facts, wishes) if backend == "cuda" else None,
        is_prebuilt=is_prebuilt,
        notes=tuple(_notes(facts, wishes, backend)),
        obstacles=tuple(
            obstacles(
                facts,
                "cpu" if is_prebuilt else backend,
                _target_of(facts, wishes, backend, arch),
            )
        ),
    )


def _target_of(facts: Facts, wishes: Wishes, backend: Backend, arch: str | None) -> Target:
    targets = _rocm_targets(facts, wishes) if backend == "rocm" else (arch,)
    return Target(
        any(targets), bool(facts.cuda and facts.cuda.cublas) or bool(_cublas_package(facts, wishes))
    )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _choose(facts: Facts, wishes: Wishes) -> tuple[Backend, str]:
    if wishes.backend:
        return wishes.backend, "asked for with --backend"
    if facts.system == "Darwin" and facts.machine == "arm64":
        return "metal", "this is a Mac with Apple silicon"
    cuda, gpu = facts.cuda, facts.gpus[0].name if facts.gpus else None
    if cuda and gpu:
        return "cuda", f"CUDA {cuda.version} and an {gpu} are here"
    vendor = next((card.vendor for card in facts.cards), None)
    if vendor and (not vulkan_obstacles(facts) or _needs_module(facts, wishes)):
        return "vulkan", f"a GPU of {vendor} and Vulkan are here"
    if gpu:
        return "cpu", f"an {gpu} is here, but no nvcc (install the CUDA toolkit to use it)"
    if vendor:
        return (
            "cpu",
            f"a GPU of {vendor} is here: `scripts/setup --backend vulkan` uses it",
        )
    if cuda:
        return "cpu", f"CUDA {cuda.version} is here, but no NVIDIA GPU"
    return "cpu", "no GPU that the engine can use was found"


def _needs_module(facts: Facts, wishes: Wishes) -> bool:
    """Whether Vulkan cannot be compiled here, and a module of others runs here."""
    libc = re.fullmatch(r"glibc (\d+)\.(\d+)", facts.libc)
    runs = libc is not None and (int(libc[1]), int(libc[2])) >= LEAST_GLIBC
    runs &= facts.machine.lower() in ("x86_64", "amd64") and facts.vulkan.loader
    return runs and not wishes.portable and bool(vulkan_obstacles(facts))


def _cuda_arch(facts: Facts, wishes: Wishes) -> str | None:
    """`--cuda-arch`, else those of the GPUs here, else None: not known."""
    archs = sorted({gpu.arch for gpu in facts.gpus if gpu.arch})
    if wishes.cuda_arch or archs:
        return wishes.cuda_arch or ";".join(archs)
    return "native" if facts.gpus else None


def _environment(
    facts: Facts, wishes: Wishes, backend: Backend, arch: str | None
) -> tuple[tuple[str, str], ...]:
    user = dict(facts.user_environment)
    flags = [*LEAN, *_processor_flags(facts, wishes), *_backend_flags(facts, wishes, backend, arch)]
    values = {"CMAKE_ARGS": " ".join(map(shlex.quote, flags))}
    if facts.compiler and facts.system != "Windows":
        values |= {"CC": facts.compiler.cc, "CXX": facts.compiler.cxx}
    if backend == "cuda" and facts.cuda:
        values |= {"CUDACXX": facts.cuda.nvcc}
    if backend == "rocm" and facts.rocm:
        values |= {"HIPCXX": facts.rocm.compiler, "HIP_PATH": facts.rocm.home}
    if backend == "sycl" and facts.one_api:
        values |= {"CC": facts.one_api.cc, "CXX": facts.one_api.cxx}
    if _needs_tile_fix(facts, wishes) and backend != "sycl":
        values |= {"CFLAGS": KEEP_TILE_CONFIG, "CXXFLAGS": KEEP_TILE_CONFIG}
    for name in ("CMAKE_ARGS", "CFLAGS", "CXXFLAGS"):  # the user's own come last, so they win
        if name in user:
            values[name] = f"{values.get(name, '')} {user[name]}".strip()
    return tuple(values.items())


def _processor_flags(facts: Facts, wishes: Wishes) -> tuple[str, ...]:
    if not wishes.portable:
        return NATIVE
    is_x86 = facts.machine.lower() in ("x86_64", "amd64")
    return ("-DGGML_NATIVE=OFF", *(PORTABLE_X86 if is_x86 else PORTABLE_ARM))


def _backend_flags(
    facts: Facts, wishes: Wishes, backend: Backend, arch: str | None
) -> tuple[str, ...]:
    if backend == "cpu":
        return ()
    if backend == "metal":
        return ("-DGGML_METAL=ON", "-DGGML_METAL_EMBED_LIBRARY=ON")
    if backend == "vulkan":
        return ("-DGGML_VULKAN=ON",)
    if backend == "rocm":
        targets = ";".join(_rocm_targets(facts, wishes))
        return ("-DGGML_HIP=ON", *([f"-DGPU_TARGETS={targets}"] if targets else []))
    if backend == "sycl":
        return ("-DGGML_SYCL=ON", "-DGGML_SYCL_F16=ON")
    flags = ["-DGGML_CUDA=ON", f"-DCMAKE_CUDA_ARCHITECTURES={arch or 'native'}"]
    flags.append(f"-DGGML_CUDA_FA_QUANTS={FA_QUANTS}")
    if wishes.portable:  # a library that happens to be here need not be there
        flags.append("-DGGML_CUDA_NCCL=OFF")
    if facts.cuda and not facts.cuda.driver_library:
        flags.append("-DGGML_CUDA_NO_VMM=ON")
    return tuple(flags)


def _rocm_targets(facts: Facts, wishes: Wishes) -> tuple[str, ...]:
    """As asked for, else of the GPUs that are here."""
    asked = (wishes.cuda_arch or "").replace(",", ";").split(";")
    return tuple(filter(None, asked)) or (facts.rocm.targets if facts.rocm else ())


def _cublas_package(facts: Facts, wishes: Wishes) -> str | None:
    """Lent to a build for another machine, which brings its own; here it could not be loaded."""
    cuda = facts.cuda
    if cuda is None or cuda.cublas or not wishes.portable or facts.system != "Linux":
        return None
    return (
        f"nvidia-cublas=={cuda.version}.*"
        if cuda.major.isdigit() and int(cuda.major) >= 13
        else None
    )


def _needs_tile_fix(facts: Facts, wishes: Wishes) -> bool:
    has_amx = "amx_int8" in facts.cpu_flags and not wishes.portable
    return has_amx and (facts.compiler is None or facts.compiler.family == "gcc")


def _target(facts: Facts, wishes: Wishes) -> tuple[str, ...]:
    """What the library will run on; for a portable build its flags already say which processor."""
    base = (facts.system, facts.machine, facts.libc)
    return base if wishes.portable else (*base, facts.processor, *sorted(facts.cpu_flags))


def _compiler_identity(facts: Facts, backend: Backend) -> tuple[str, ...]:
    compiler = (facts.compiler.family, facts.compiler.version) if facts.compiler else ()
    return (*compiler, facts.cuda.version) if backend == "cuda" and facts.cuda else compiler


def _notes(facts: Facts, wishes: Wishes, backend: Backend) -> list[str]:
    notes: list[str] = []
    if _needs_tile_fix(facts, wishes):
        notes.append(
            f"this CPU has AMX, and GCC breaks its set-up: building with {KEEP_TILE_CONFIG}"
        )
    if backend == "cpu" and facts.system == "Darwin":
        notes.append("on macOS the engine always holds Metal too; --gpu-layers 0 keeps to the CPU")
    if wishes.portable:
        notes.append(_portable_note(facts, backend))
    if backend == "cuda" and facts.cuda and not facts.cuda.driver_library:
        notes.append("no libcuda to link with here: built without virtual memory management (VMM)")
    if backend == "vulkan" and _needs_module(facts, wishes):
        what = vulkan_obstacles(facts)[0]
        notes.append(f"a prebuilt Vulkan module is used ({PACKAGE}). To compile one: {what}")
    elif backend == "vulkan" and facts.vulkan.lacking:
        lacking = " and ".join(facts.vulkan.lacking)
        notes.append(f"this glslc knows no {lacking}: a newer one makes prompts faster")
    closed = [card.node for card in facts.cards if not card.is_open and card.node]
    if closed:
        notes.append(
            f"you may not compute on {closed[0]}: `sudo usermod -aG render,video $USER`, then log"
            " in again"
        )
    return notes


def _portable_note(facts: Facts, backend: Backend) -> str:
    kind = "x86-64-v3 (AVX2)" if "86" in facts.machine else "Armv8.2 with dot product"
    needs = [f"{facts.system} on any {kind} processor"]
    if facts.libc:
        needs.append(f"{facts.libc} or newer")
    if backend == "cuda" and facts.cuda:
        needs.append(f"libcudart and libcublas of CUDA {facts.cuda.major}")
    return f"the wheel does not use what only this CPU has; it needs {', '.join(needs)}"


def parse_engine_version(pyproject_text: str) -> str:
    """The engine version is written once, as the lower bound in pyproject.toml."""
    found = re.search(r"llama-cpp-python>=([\d.]+)", pyproject_text)
    if not found:
        raise ValueError("pyproject.toml names no version of llama-cpp-python")
    return found[1]
