"""Devices are known by the names that systems and people give them; what is ambiguous stays so."""

import contextlib
import tomllib
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localspec.errors import HardwareError, UserError
from localspec.hardware.described import device_meant
from localspec.hardware.device_names import find_device
from localspec.hardware.devices import Device, all_devices, match_reported, read_table

GIB = 2**30
WHOLE = """[[device]]
name = "X"
match = ["x"]
kind = "cuda"
vendor = "nvidia"
bandwidth_gbps = 100.0
fp16_tflops = 0.0
memory_gb = [8]
source = "somewhere"
fp16_source = "unknown"
"""


@pytest.mark.parametrize("device", all_devices(), ids=lambda device: device.name)
def test_every_device_has_figures_and_is_found(device: Device) -> None:
    assert device.bandwidth_bytes_per_s > 1e9
    assert all(
        flops > 1e10 for flops in (device.fp16_flops_per_s, device.fp32_flops_per_s) if flops
    )
    assert device.source
    assert all(size >= GIB for size in device.memory_bytes)
    assert device in find_device(device.name).candidates
    assert device in find_device(device.name.upper()).candidates


@pytest.mark.parametrize("device", all_devices(), ids=lambda device: device.name)
def test_every_reported_name_leads_to_its_device(device: Device) -> None:
    """A table whose entry is shadowed by another's longer name would never be used."""
    for reported in device.matches:
        for memory_bytes in device.memory_bytes or (None,):
            match = match_reported(
                reported.upper(), memory_bytes=memory_bytes, gpu_cores=device.gpu_cores
            )
            assert device in match.candidates


def test_sources_can_be_looked_up() -> None:
    """Numbers of somebody's archive say nothing to a reader."""
    table = (resources.files("localspec.hardware") / "devices.toml").read_text("utf-8")
    for entry in tomllib.loads(table)["device"]:
        assert entry["source"]
        assert entry["fp16_source"]
        sources = [entry.get(name, "") for name in ("source", "fp16_source", "memory_source")]
        assert "stored public file" not in " ".join([*sources, entry.get("note", "")])


def test_names_are_unique() -> None:
    names = [device.name.lower() for device in all_devices()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('source = "somewhere"', ""),
        ('source = "somewhere"', 'source = ""'),
        ("= 100.0", "= 0.0"),
        ("= 100.0", '= "fast"'),
        ("= [8]", "= 8"),
        ("[[device]]", "[device]"),
        ("[[device]]", "[[devices]]"),
        ("[[device]]", "[[device"),
    ],
)
def test_a_damaged_table_is_one_sentence(old: str, new: str) -> None:
    assert read_table(WHOLE)[0].name == "X"
    with pytest.raises(HardwareError, match=r"devices\.toml is damaged"):
        read_table(WHOLE.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "known", "bandwidth"),
    [
        ("NVIDIA GeForce RTX 3060", {"memory_bytes": 12 * GIB}, 360e9),
        ("NVIDIA GeForce RTX 3060", {"memory_bytes": 8 * GIB}, 240e9),
        ("NVIDIA GeForce RTX 3080", {"memory_bytes": 10 * GIB}, 760e9),
        ("NVIDIA GeForce RTX 3080", {"memory_bytes": 12 * GIB}, 912e9),
        ("NVIDIA A100", {"memory_bytes": 40 * GIB}, 1555e9),
        ("NVIDIA A100", {"memory_bytes": 80 * GIB}, 2039e9),
        ("Apple M3 Max", {"gpu_cores": 30}, 300e9),
        ("Apple M3 Max", {"gpu_cores": 40}, 400e9),
        ("Apple M4 Max", {"gpu_cores": 32}, 410e9),
        ("Apple M4 Max", {"gpu_cores": 40}, 546e9),
        ("Apple M4 Max", {"memory_bytes": 36 * GIB}, 410e9),
        ("Navi 31 [Radeon RX 7900 XT/7900 XTX]", {"memory_bytes": 20 * GIB}, 800e9),
        ("Navi 31 [Radeon RX 7900 XT/7900 XTX]", {"memory_bytes": 24 * GIB}, 960e9),
        ("AMD Radeon Graphics (RADV GFX1201)", {"memory_bytes": 16 * GIB}, 645e9),
        ("Orin", {"memory_bytes": 61 * GIB}, 205e9),
    ],
)
def test_clashes_are_resolved_by_memory_or_cores(
    name: str, known: dict[str, int], bandwidth: float
) -> None:
    match, blind = match_reported(name, **known), match_reported(name)
    found = {device.bandwidth_bytes_per_s for device in match.candidates}
    assert list(found) == [pytest.approx(bandwidth, rel=0.01)]
    assert not match.is_ambiguous
    assert blind.is_ambiguous
    low, high = blind.bandwidth_range or (0, 0)
    assert low < high


@pytest.mark.parametrize(
    ("name", "size", "low", "high"),
    [
        ("NVIDIA GeForce GTX 1650", 4, 128e9, 192e9),
        ("NVIDIA GeForce RTX 3060 Ti", 8, 448e9, 608e9),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", 16, 384e9, 448e9),
        ("NVIDIA GeForce RTX 2080 Super", 8, 448e9, 496e9),
    ],
)
def test_what_memory_cannot_tell_apart_stays_an_interval(
    name: str, size: int, low: float, high: float
) -> None:
    match = match_reported(name, memory_bytes=size * GIB)
    assert match.is_ambiguous
    assert match.bandwidth_range == (pytest.approx(low, rel=0.01), pytest.approx(high, rel=0.01))


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("AMD Radeon RX 6800M", "AMD Radeon RX 6800M"),
        ("AMD Radeon RX 6850M XT", "AMD Radeon RX 6850M XT"),
        ("AMD Radeon RX 6890M XT", None),
        ("AMD Radeon PRO W7800 48GB", "AMD Radeon PRO W7800 48 GB"),
        ("AMD Radeon VII", "AMD Radeon VII"),
        ("AMD Radeon Pro VII", "AMD Radeon Pro VII"),
        ("NVIDIA GeForce RTX 2080 Ti 22GB", "NVIDIA GeForce RTX 2080 Ti (22 GB, modified)"),
        ("NVIDIA RTX A1000", "NVIDIA RTX A1000"),
        ("NVIDIA RTX A1000 Laptop GPU", "NVIDIA RTX A1000 Laptop GPU"),
        ("NVIDIA GeForce RTX 3050 6GB Laptop GPU", "NVIDIA GeForce RTX 3050 6GB Laptop GPU"),
        ("NVIDIA RTX 5000 Ada Generation Laptop GPU", "NVIDIA RTX 5000 Ada Generation Laptop GPU"),
        ("NVIDIA GeForce RTX 2060 with Max-Q Design", "NVIDIA GeForce RTX 2060 Max-Q"),
        ("NVIDIA RTX A6000 Laptop GPU", None),
        ("Apple M10", None),
        ("NVIDIA GeForce RTX 4090 D", "NVIDIA GeForce RTX 4090 D"),
        ("AMD Radeon Graphics", None),
        ("llvmpipe (LLVM 15.0.7, 256 bits)", None),
        ("", None),
    ],
)
def test_no_device_is_taken_for_its_neighbour(name: str, known_as: str | None) -> None:
    """A laptop part with a desktop card's figures would be predicted a third too fast."""
    device = match_reported(name).device
    assert (device.name if device else None) == known_as


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("RTX 4090", ["NVIDIA GeForce RTX 4090"]),
        ("rtx4090", ["NVIDIA GeForce RTX 4090"]),
        ("4090 laptop", ["NVIDIA GeForce RTX 4090 Laptop GPU"]),
        ("rtx 3060 12GB", ["NVIDIA GeForce RTX 3060 12 GB"]),
        ("rtx 3060 12 gb", ["NVIDIA GeForce RTX 3060 12 GB"]),
        ("m4 max 40", ["Apple M4 Max (40-core GPU)"]),
        ("m4 max 40-core", ["Apple M4 Max (40-core GPU)"]),
        ("M4 Max 40 cores", ["Apple M4 Max (40-core GPU)"]),
        ("M4Max 64GB", ["Apple M4 Max (40-core GPU)"]),
        ("Apple M4 Max", ["Apple M4 Max (32-core GPU)", "Apple M4 Max (40-core GPU)"]),
        ("a100 80gb", ["NVIDIA A100 PCIe 80 GB", "NVIDIA A100 SXM4 80 GB"]),
        ("h100 sxm", ["NVIDIA H100 SXM5 80 GB"]),
        ("7900xtx", ["AMD Radeon RX 7900 XTX"]),
        ("strix halo", ["AMD Ryzen AI Max+ 395 / Radeon 8060S (Strix Halo)"]),
        ("dgx spark", ["NVIDIA GB10 (DGX Spark)"]),
        ("rx 6800", ["AMD Radeon RX 6800"]),
        ("Intel(R) Arc(tm) B580 Graphics", ["Intel Arc B580"]),
        ("AMD Radeon RX 9070 XT (RADV GFX1201)", ["AMD Radeon RX 9070 XT"]),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", ["NVIDIA RTX PRO 6000 Blackwell"]),
        ("RTX 4090 48GB", ["NVIDIA GeForce RTX 4090 (48 GB, modified)"]),
        ("w7800 48gb", ["AMD Radeon PRO W7800 48 GB"]),
        ("cmp 90hx", ["NVIDIA CMP 90HX"]),
        ("M4 Max 40c", ["Apple M4 Max (40-core GPU)"]),
        ("M3 Ultra 512GB", ["Apple M3 Ultra (80-core GPU)"]),
        ("Intel Arc Graphics 130V", ["Intel Arc 140V / 130V (Core Ultra 200V, LPDDR5X-8533)"]),
    ],
)
def test_what_people_type(typed: str, meant: list[str]) -> None:
    assert [device.name for device in find_device(typed).candidates] == meant


def test_what_people_type_that_is_many_or_none() -> None:
    with pytest.raises(UserError, match=r"SXM5.*NVL"):
        find_device("h100")
    with pytest.raises(UserError, match=r"'titan' can be .*TITAN X.*TITAN V"):
        find_device("titan")
    with pytest.raises(UserError, match=r"and \d+ more"):
        find_device("nvidia")
    with pytest.raises(UserError, match="DDR5-6000 dual channel"):
        find_device("ddr5-6000")
    with pytest.raises(UserError, match="did you mean NVIDIA GeForce RTX 4090"):
        find_device("NVIDIA GeForce RTX 4091")
    for nothing in ("", "  ", "toaster", "()", "24GB of nothing"):
        with pytest.raises(UserError):
            find_device(nothing)


@pytest.mark.parametrize(
    ("typed", "kind", "low", "high"),
    [
        ("AMD EPYC 9654 96-Core Processor", "cpu", 400e9, 500e9),
        ("Ryzen 9 9950X", "cpu", 80e9, 100e9),
        ("Intel(R) Core(TM) i9-14900K", "cpu", 50e9, 95e9),
        ("Kunpeng 920", "cpu", 150e9, 200e9),
        ("Graviton 3", "cpu", 250e9, 350e9),
        ("Vulkan GPU 300 GB/s", "vulkan", 300e9, 300e9),
        ("Mali-G999, 68.3 GB/s", "vulkan", 68.3e9, 68.3e9),
        ("NVIDIA GeForce RTX 9999 900GB/s 24 GB", "cuda", 900e9, 900e9),
        ("DDR5 89.6 GB/s", "cpu", 89.6e9, 89.6e9),
        ("MacBook Pro M4 Max", "metal", 400e9, 550e9),
        ("Adreno (TM) 830", "opencl", 60e9, 100e9),
        ("AMD Ryzen 5 5600X", "cpu", 50e9, 52e9),
        ("Orange Pi 5 Plus (RK3588)", "cpu", 34e9, 35e9),
        ("AMD EPYC-Genoa (8 vCPU VM)", "cpu", 40e9, 80e9),
        ("AMD EPYC 9B14", "cpu", 400e9, 500e9),
        ("Intel Xeon (Sapphire Rapids, 8 vCPU VM)", "cpu", 40e9, 80e9),
        ("Snapdragon X Elite (Hexagon)", "hexagon", 60e9, 140e9),
    ],
)
def test_devices_beside_the_table_are_what_their_name_says(
    typed: str, kind: str, low: float, high: float
) -> None:
    match = device_meant(typed)
    assert match.device
    assert match.device.kind == kind
    least, most = match.bandwidth_range or (0.0, 0.0)
    assert low <= least <= most <= high


def test_a_size_beside_the_bandwidth_is_memory() -> None:
    assert device_meant("cpu 89.6 GB/s 64 GB").candidates[0].memory_bytes == (64 * GIB,)


@pytest.mark.parametrize(
    ("typed", "low", "high"),
    [
        ("AMD Radeon Graphics (gfx1201)", 430e9, 650e9),
        ("gfx1100", 570e9, 970e9),
        ("gfx1201 12 GB", 430e9, 440e9),
        ("AMD Radeon Graphics (RADV GFX1103_R1)", 85e9, 95e9),
        ("AMD Radeon Graphics (RADV PHOENIX)", 85e9, 95e9),
        ("AMD Radeon RX 6800 XT (RADV NAVI21)", 510e9, 515e9),
        ("AMD Radeon RX 7900 XTX (gfx1100)", 950e9, 970e9),
    ],
)
def test_a_compilers_target_is_any_card_that_has_it(typed: str, low: float, high: float) -> None:
    least, most = device_meant(typed).bandwidth_range or (0.0, 0.0)
    assert low <= least <= most <= high


@pytest.mark.parametrize("typed", ["gfx1030", "AMD gfx942", "gfx803"])
def test_a_target_of_unlike_cards_asks_which_one(typed: str) -> None:
    with pytest.raises(UserError, match=r"can be AMD .*give the card's name"):
        device_meant(typed)


@pytest.mark.parametrize(
    "typed", ["Intel Gaudi 3", "TPU v5e 819 GB/s", "Groq LPU", "AMD Ryzen AI NPU", "Hailo-8"]
)
def test_what_cannot_run_llama_cpp_is_told_as_such(typed: str) -> None:
    with pytest.raises(UserError, match=r"llama\.cpp does not run"):
        device_meant(typed)


@pytest.mark.parametrize("device", all_devices(), ids=lambda device: device.name)
def test_every_device_of_the_table_can_run_llama_cpp(device: Device) -> None:
    assert device in device_meant(device.name).candidates


@pytest.mark.parametrize("typed", ["toaster", "0 GB/s", "Mac mini", "h100", "24 GB"])
def test_what_names_neither_device_nor_bandwidth_is_a_sentence(typed: str) -> None:
    with pytest.raises(UserError):
        device_meant(typed)


@given(st.text(max_size=40))
def test_any_text_is_a_device_or_a_sentence(text: str) -> None:
    with contextlib.suppress(UserError):
        assert find_device(text).candidates
    match = match_reported(text)
    assert (match.device is None) == (match.bandwidth_range is None)


@given(st.sampled_from(all_devices()), st.integers(1, 200), st.integers(1, 90))
def test_knowing_more_never_adds_doubt(device: Device, size: int, cores: int) -> None:
    blind = match_reported(device.matches[0])
    for known in ({"memory_bytes": size * GIB}, {"gpu_cores": cores}):
        seeing = match_reported(device.matches[0], **known)
        assert seeing.candidates
        assert set(seeing.candidates) <= set(blind.candidates)
        assert seeing.is_ambiguous <= blind.is_ambiguous
