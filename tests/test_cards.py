"""Cards in /sys: what can be used, why not, and how much memory there is.

The layout of files is the kernel's (Documentation/gpu/amdgpu, the KFD topology). Their
numbers are constructed.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from trees import put

from localspec.hardware.cards import Card, gfx_target, system_cards, wired_limit_bytes

GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class Case:
    name: str
    layout: str
    vendor: str
    driver: str
    files: dict[str, str]
    properties: str | None
    expected: Card
    memory_bytes: int | None


CASES = [
    Case(
        "Strix Halo, 512 MB for graphics and the rest mapped",
        "docs.kernel.org/gpu/amdgpu/driver-misc.html, with ttm.pages_limit for 120 GiB",
        "0x1002", "amdgpu",
        {"mem_info_vram_total": str(512 * MIB), "mem_info_gtt_total": str(120 * GIB)},
        "cpu_cores_count 32\nsimd_count 80\ngfx_target_version 110501\ndrm_render_minor 128\n",
        Card("AMD", "amdgpu", "/dev/dri/renderD128", True, "gfx1151", 512 * MIB, 120 * GIB, True),
        120 * GIB + 512 * MIB,
    ),
    Case(
        "Radeon RX 6800 XT beside 64 GB",
        "docs.kernel.org/gpu/amdgpu/driver-misc.html, KFD topology of gfx1030",
        "0x1002", "amdgpu",
        {"mem_info_vram_total": str(16 * GIB), "mem_info_gtt_total": str(31 * GIB)},
        "cpu_cores_count 0\nsimd_count 144\ngfx_target_version 100300\ndrm_render_minor 128\n",
        Card("AMD", "amdgpu", "/dev/dri/renderD128", True, "gfx1030", 16 * GIB, 31 * GIB, False),
        16 * GIB,
    ),
    Case(
        "Intel Arc A770",
        "docs.kernel.org/gpu/i915.html: no memory files",
        "0x8086", "i915", {}, None,
        Card("Intel", "i915", "/dev/dri/renderD128"),
        None,
    ),
]  # fmt: skip


def written(root: Path, case: Case) -> None:
    device = root / "sys/class/drm/card0/device"
    put(device / "vendor", case.vendor)
    (root / "sys/bus/pci/drivers" / case.driver).mkdir(parents=True)
    (device / "driver").symlink_to(root / "sys/bus/pci/drivers" / case.driver)
    (device / "drm/renderD128").mkdir(parents=True)
    put(root / "dev/dri/renderD128", "")
    for name, text in case.files.items():
        put(device / name, text)
    if case.properties is not None:
        put(
            root / "sys/class/kfd/kfd/topology/nodes/0/properties",
            "cpu_cores_count 32\nsimd_count 0\n",
        )
        put(root / "sys/class/kfd/kfd/topology/nodes/1/properties", case.properties)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cards_are_told_with_their_memory(case: Case, tmp_path: Path) -> None:
    written(tmp_path, case)
    (card,) = system_cards(tmp_path)
    assert card == case.expected
    assert card.memory_bytes == case.memory_bytes
    assert card.problem is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
def test_a_node_that_the_user_may_not_open_is_named(tmp_path: Path) -> None:
    written(tmp_path, CASES[0])
    (tmp_path / "dev/dri/renderD128").chmod(0)
    (card,) = system_cards(tmp_path)
    assert not card.is_open


def test_a_closed_node_is_a_sentence_with_the_cure() -> None:
    problem = replace(CASES[0].expected, is_open=False).problem
    assert problem is not None
    assert "/dev/dri/renderD128" in problem
    assert "usermod -aG render,video" in problem


@pytest.mark.parametrize(
    ("version", "name"),
    [(90010, "gfx90a"), (90402, "gfx942"), (100300, "gfx1030"), (110501, "gfx1151"),
     (120001, "gfx1201"), (90012, "gfx90c"), (80003, "gfx803")],
)  # fmt: skip
def test_targets_have_the_names_that_compilers_take(version: int, name: str) -> None:
    assert gfx_target(version) == name


@pytest.mark.parametrize(
    ("text", "size"),
    [("57344\n", 57344 * MIB), ("0\n", None), ("", None), ("unknown oid", None)],
)
def test_macos_tells_the_limit_that_a_user_set(text: str, size: int | None) -> None:
    assert wired_limit_bytes(text) == size


def test_no_cards_where_there_are_none(tmp_path: Path) -> None:
    assert system_cards(tmp_path) == ()
