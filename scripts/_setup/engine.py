"""Built engines are kept: a wheel once built for this processor is used by every checkout.

    CACHE/engine/<engine id>/<build id>/llama_cpp_python-*.whl, beside what it was built from

A wheel appears there whole or not at all: it is built in a folder of its own, which is renamed.
"""

import contextlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path

from _setup.plan import Plan
from _setup.run import Command, run

WHEELS = "llama_cpp_python-*.whl"


def cache_folder() -> Path:
    """LOCALSPEC_HOME's cache if that is set, else the platform's; `engine` in it is ours."""
    home = os.environ.get("LOCALSPEC_HOME")
    if home:
        return Path(home).expanduser() / "cache" / "engine"
    if platform.system() == "Darwin":
        caches = Path("~/Library/Caches").expanduser()
    elif platform.system() == "Windows":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path("~/AppData/Local").expanduser())
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    return caches / "localspec" / "engine"


def find_wheel(plan: Plan, cache: Path) -> Path | None:
    """The kept wheel of this plan. Where there is no compiler, one of any compiler's will do."""
    build = plan.build_id if plan.compiler else "*"
    return next(iter(sorted(cache.glob(f"{plan.engine_id}/{build}/{WHEELS}"))), None)


def build_commands(plan: Plan, python: Path, scratch: Path) -> list[Command]:
    """The wheel arrives in `scratch`/new. pip's build isolation brings cmake and ninja if missing.

    Without pip's cache: it keeps built wheels by version alone, whatever the flags were.
    """
    options = ("--no-deps", "--no-binary", "llama-cpp-python", "--no-cache-dir", "--verbose")
    engine = f"llama-cpp-python=={plan.version}"
    pip = (str(python), "-m", "pip")
    environment = dict(plan.environment)
    if plan.cublas_package:
        environment |= _lent_cublas(plan, scratch / "cublas")
    environment["CMAKE_BUILD_PARALLEL_LEVEL"] = str(plan.n_jobs)
    build = Command(
        f"building the {plan.backend} engine",
        (*pip, "wheel", *options, "--wheel-dir", str(scratch / "new"), engine),
        tuple(environment.items()),
    )
    if not plan.cublas_package:
        return [build]
    target = ("--no-deps", "--target", str(scratch / "cublas"))
    return [Command("fetching cuBLAS", (*pip, "install", *target, plan.cublas_package)), build]


def build_wheel(plan: Plan, python: Path, cache: Path) -> Path:
    """Build, keep and return the wheel; on failure or Ctrl-C nothing of it stays but the log."""
    with _scratch(cache) as scratch:
        (scratch / "tmp").mkdir()
        for command in build_commands(plan, python, scratch):
            temporary = ("TMPDIR", str(scratch / "tmp"))
            here = Command(command.label, command.argv, (*command.environment, temporary))
            run(here, cache / f"{plan.engine_id}.log")
        return _keep(plan, scratch, cache)


def copy_wheel(wheel: Path, folder: Path) -> Path:
    """Put a wheel into the user's folder, whole or not at all."""
    with _scratch(folder) as scratch:
        return Path(shutil.copy2(wheel, scratch)).replace(folder / wheel.name)


def _lent_cublas(plan: Plan, target: Path) -> dict[str, str]:
    """Where NVIDIA's package puts what CMake's FindCUDAToolkit would look for in the toolkit."""
    package = str(plan.cublas_package).partition("==")[2]
    major = package.split(".")[0]
    home = target / "nvidia" / f"cu{major}"
    libraries = " ".join(
        f"-DCUDA_{name}_LIBRARY={home}/lib/lib{name}.so.{major}" for name in ("cublas", "cublasLt")
    )
    flags = f"{dict(plan.environment)['CMAKE_ARGS']} {libraries}"
    return {"CMAKE_ARGS": flags, "CPATH": f"{home}/include"}


def _keep(plan: Plan, scratch: Path, cache: Path) -> Path:
    built, kept = scratch / "new", cache / plan.engine_id / plan.build_id
    (built / "plan.json").write_text(json.dumps(asdict(plan), indent=2) + "\n", encoding="utf-8")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        kept.rename(scratch / "old")
    with contextlib.suppress(OSError):  # another checkout was faster: its wheel is as good
        built.rename(kept)
    return next(kept.glob(WHEELS))


@contextlib.contextmanager
def _scratch(folder: Path) -> Generator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
