"""Cards in /sys: what can be used, why not, and how much memory there is.

Numbers are those that users and projects recorded; each case names its source. A field that the
source leaves out is left out.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from trees import put

from localspec.hardware.gpus import Card, gfx_target, system_cards, wired_limit_bytes

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
        "Ryzen AI MAX+ 395 with ttm.pages_limit for 96 GiB",
        "github.com/noamsto/nix-amd-ai issue 42 (sysfs of a Flow Z13, kernel 7.1)",
        "0x1002", "amdgpu",
        {"mem_info_vram_total": "4294967296", "mem_info_gtt_total": "103079215104"},
        "cpu_cores_count 0\nsimd_count 80\ngfx_target_version 110501\ndrm_render_minor 128\n",
        Card("AMD", "amdgpu", "/dev/dri/renderD128", True, "gfx1151", 4 * GIB, 96 * GIB, True),
        100 * GIB,
    ),
    Case(
        "Ryzen AI MAX+ 395 with 512 MB set aside",
        "github.com/ROCm/rocm-systems pull request 8475 (ROCm 7.2.4)",
        "0x1002", "amdgpu",
        {"mem_info_vram_total": "536870912", "mem_info_gtt_total": "118111600640"},
        "cpu_cores_count 0\nsimd_count 80\ngfx_target_version 110501\ndrm_render_minor 128\n",
        Card("AMD", "amdgpu", "/dev/dri/renderD128", True, "gfx1151", 512 * MIB, 110 * GIB, True),
        110 * GIB + 512 * MIB,
    ),
    Case(
        "Raven Ridge, whose node has cores of both kinds and no target",
        "github.com/ROCm/amdgpu issue 66 (kernel 4.20)",
        "0x1002", "amdgpu",
        {},
        "cpu_cores_count 8\nsimd_count 44\nmem_banks_count 1\ncaches_count 13\n"
        "io_links_count 1\ncpu_core_id_base 0\nsimd_id_base 0\nmax_waves_per_simd 40\n"
        "vendor_id 4098\ndevice_id 5597\nlocation_id 2560\ndrm_render_minor 128\n",
        Card("AMD", "amdgpu", "/dev/dri/renderD128", is_part_of_processor=True),
        None,
    ),
    Case(
        "Instinct MI100",
        "github.com/mrodden/rocmi (the node of its tests)",
        "0x1002", "amdgpu",
        {},
        "cpu_cores_count 0\nsimd_count 480\nmem_banks_count 1\ncaches_count 217\n"
        "simd_id_base 2147487744\ngfx_target_version 90008\nvendor_id 4098\ndevice_id 29580\n"
        "location_id 8960\ndomain 0\ndrm_render_minor 128\nunique_id 7809984429061111111\n",
        Card("AMD", "amdgpu", "/dev/dri/renderD128", True, "gfx908", is_part_of_processor=False),
        None,
    ),
    Case(
        "Intel Arc: i915 has no files of memory",
        "docs.kernel.org/gpu/i915.html",
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
