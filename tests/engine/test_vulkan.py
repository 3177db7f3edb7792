"""The Vulkan backend on a driver that computes in software: the code of every AMD and Intel GPU.

Needs Mesa's lavapipe 23 or newer (on Debian 12 from bookworm-backports; with CI set and as root the
test installs it) and the prebuilt module. Both are seen by these processes alone. The driver
compiles a program for each kernel and width at its first use and keeps it in `.cache`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from babbling import write_babbling_model
from command import ANSWER, Run, assert_refused, localspec

from localspec.engine.health import LARGEST_ERROR
from localspec.model.synthetic import Shape

ROOT = Path(__file__).parents[2]
MODULE = ROOT / ".cache" / "vulkan-module"
SHADERS = ROOT / ".cache" / "vulkan-shaders"
SHAPE = Shape(n_layers=2, n_embd=128, n_heads=4, n_kv_heads=2, n_ff=256, n_vocab=320)
DRIVERS = Path("/usr/share/vulkan/icd.d")
BACKPORTS = "deb http://deb.debian.org/debian bookworm-backports main\n"
LIMIT_S = 170

LOGITS = """
import sys
from pathlib import Path
import numpy as np
from localspec.engine.llama.trial import logits
from localspec.fields import ALL_LAYERS
model, out = map(Path, sys.argv[1:])
found = [logits(model, (1, 16), gpu_layers=0)]
for n_layers in (1, ALL_LAYERS):
    found.append(logits(model, (1, 16), gpu_layers=n_layers, device=("Vulkan0",)))
np.save(out, np.stack(found))
"""


def install_driver() -> None:
    """From the backports, where this is Debian 12's CI."""
    if not os.environ.get("CI") or os.geteuid() or not shutil.which("apt-get"):
        return
    source = Path("/etc/apt/sources.list.d/localspec-backports.list")
    source.write_text(BACKPORTS)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
    try:
        for command in (
            ["apt-get", "update", "-qq"],
            [*install, "-t", "bookworm-backports", "mesa-vulkan-drivers", "libvulkan1"],
        ):
            subprocess.run(command, check=False, capture_output=True, timeout=120)
    except subprocess.TimeoutExpired:
        pass
    finally:
        source.unlink()


def driver() -> Path | None:
    """Of a version that survives several widths: 22.3 dies of them."""
    asked = ["dpkg-query", "-W", "-f", "${Version}", "mesa-vulkan-drivers"]
    if not shutil.which("dpkg-query"):
        return next(iter(sorted(DRIVERS.glob("lvp_icd*.json"))), None)
    version = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
    is_new = version.partition(".")[0].isdigit() and int(version.partition(".")[0]) >= 23
    return next(iter(sorted(DRIVERS.glob("lvp_icd*.json"))), None) if is_new else None


def fetch_module() -> str:
    """Empty, or why it is not here."""
    if (MODULE / "libggml-vulkan.so").exists():
        return ""
    script = ROOT / "scripts" / "_setup" / "module.py"
    done = subprocess.run(
        [sys.executable, script, MODULE], check=False, capture_output=True, text=True, timeout=120
    )
    return (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""


@pytest.fixture(scope="module")
def vulkan() -> dict[str, Any]:
    """The variables under which a process sees the device; skips where there can be none."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("the prebuilt Vulkan module is for Linux on x86-64")
    if driver() is None:
        install_driver()
    found = driver()
    if found is None:
        pytest.skip(
            "no software driver for Vulkan of Mesa 23 or newer: apt-get install -t"
            " bookworm-backports mesa-vulkan-drivers"
        )
    if why := fetch_module():
        pytest.skip(f"the Vulkan module cannot be fetched: {why}")
    SHADERS.mkdir(parents=True, exist_ok=True)
    return {
        "GGML_BACKEND_PATH": str(MODULE / "libggml-vulkan.so"),
        "GGML_VK_VISIBLE_DEVICES": "0",
        "VK_DRIVER_FILES": str(found),
        "MESA_SHADER_CACHE_DIR": str(SHADERS),
    }


@contextmanager
def limited() -> Generator[None]:
    """The driver's compiler takes minutes on a slow machine, which is no fault of ours."""
    try:
        yield
    except subprocess.TimeoutExpired as error:
        pytest.skip(f"the software driver compiled for more than {error.timeout:.0f} s")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vulkan") / "random.gguf"
    write_babbling_model(path, SHAPE, "Q8_0")
    return path


def in_child(vulkan: dict[str, Any], *arguments: str | Path) -> None:
    """A driver that dies takes this process along, not the tests'."""
    with limited():
        done = subprocess.run(
            [sys.executable, "-c", *arguments], env={**os.environ, **vulkan}, check=False,
            capture_output=True, text=True, timeout=LIMIT_S,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_one_layer_and_all_of_them_give_the_processors_numbers(
    vulkan: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    in_child(vulkan, LOGITS, model, tmp_path / "logits.npy")
    expected, *others = np.load(tmp_path / "logits.npy")
    for found in others:
        assert np.abs(found - expected).max() / expected.std() < LARGEST_ERROR


def run(vulkan: dict[str, Any], *arguments: str | Path) -> Run:
    with limited():
        done = localspec(*arguments, **vulkan)
    assert done.code == 0, done.stderr
    return done


def test_doctor_lists_the_device_with_its_kind(vulkan: dict[str, Any]) -> None:
    devices = run(vulkan, "doctor", "--json").document["engine"]["devices"]
    found = next(device for device in devices if device["backend"] == "vulkan")
    assert (found["name"], found["kind"]) == ("Vulkan0", "gpu")
    assert "llvmpipe" in found["description"]


def test_generate_says_the_processors_words_and_what_computed_them(
    vulkan: dict[str, Any], model: Path
) -> None:
    asked = ("generate", model, *ANSWER, "--raw", "-p", "a b c", "-n", "8", "--spec", "none",
             "--json")  # fmt: skip
    here = run(vulkan, *asked, "--gpu-layers", "0").document
    there = run(vulkan, *asked, "--gpu-layers", "all").document
    assert there["text"] == here["text"]
    assert there["computed_on"] == ["Vulkan0"]
    assert here["computed_on"] == ["CPU"]


def test_predict_names_the_device_that_it_knows_nothing_of(
    vulkan: dict[str, Any], model: Path
) -> None:
    """A probe would compile programs for minutes; without one there are no figures of llvmpipe."""
    done = localspec("predict", model, "--probe", "off", "--depth", "0", "--json", **vulkan)
    assert_refused(done, 1, "llvmpipe", "not in the table of devices")
