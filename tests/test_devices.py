"""Devices are known by the names that systems give them; what is ambiguous stays so."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localspec.errors import UserError
from localspec.hardware.devices import Device, all_devices, find_device, match_reported
from localspec.hardware.machine import Reported, backend_of, local_devices, machine_key, power
from localspec.hardware.system import amd_gpus, apple_gpus, low_power_mode, nvidia_gpus

RECORDED = Path(__file__).parent / "recorded"
GIB = 2**30


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


@pytest.mark.parametrize("device", all_devices(), ids=lambda device: device.name)
def test_every_device_has_figures_and_is_found(device: Device) -> None:
    assert device.bandwidth_bytes_per_s > 1e9
    assert device.source
    assert all(size >= GIB for size in device.memory_bytes)
    assert device in find_device(device.name).candidates
    match = match_reported(
        device.matches[0],
        memory_bytes=max(device.memory_bytes, default=None),
        gpu_cores=device.gpu_cores,
    )
    assert device in match.candidates


def test_recorded_apple_outputs() -> None:
    (max3,) = apple_gpus(recorded("apple-m3-max.json"), 64 * GIB)
    match = match_reported(max3.name, memory_bytes=max3.memory_bytes, gpu_cores=max3.gpu_cores)
    assert (max3.backend, max3.gpu_cores) == ("metal", 40)
    assert match.device is not None
    assert match.device.name == "Apple M3 Max (40-core GPU)"
    assert not match.is_ambiguous
    (max2,) = apple_gpus(recorded("apple-m2-max.json"))
    assert (max2.name, max2.gpu_cores) == ("Apple M2 Max", 30)
    (pro,) = apple_gpus(recorded("apple-m3-pro.json"))
    assert (pro.name, pro.gpu_cores) == ("Apple M3 Pro", None)


def test_recorded_nvidia_outputs() -> None:
    (single,) = nvidia_gpus(recorded("nvidia-rtx-3090.csv"))
    assert (single.name, single.memory_bytes) == ("NVIDIA GeForce RTX 3090", 24 * GIB)
    found = match_reported(single.name, memory_bytes=single.memory_bytes)
    assert found.device is not None
    assert found.device.bandwidth_bytes_per_s == pytest.approx(936e9, rel=0.01)
    names = [gpu.name for gpu in nvidia_gpus(recorded("nvidia-p100.csv"))]
    sizes = [gpu.memory_bytes for gpu in nvidia_gpus(recorded("nvidia-p100.csv"))]
    assert names == ["Tesla P100-PCIE-16GB", "NVIDIA GeForce RTX 3090"]
    assert sizes == [16 * GIB, 24 * GIB]
    assert match_reported(names[0]).device is not None


def test_recorded_amd_outputs() -> None:
    (card,) = amd_gpus(recorded("amd-rx-7900-xt.json"))
    found = match_reported(card.name, memory_bytes=card.memory_bytes)
    assert found.device is not None
    assert found.device.name == "AMD Radeon RX 7900 XT"
    (integrated,) = amd_gpus(recorded("amd-780m.json"))
    assert (integrated.name, integrated.memory_bytes) == ("Phoenix3", None)


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
    ],
)
def test_clashes_are_resolved_by_memory_or_cores(
    name: str, known: dict[str, int], bandwidth: float
) -> None:
    match, blind = match_reported(name, **known), match_reported(name)
    found = {device.bandwidth_bytes_per_s for device in match.candidates}
    assert list(found) == [pytest.approx(bandwidth, rel=0.01)]
    assert blind.is_ambiguous
    low, high = blind.bandwidth_range or (0, 0)
    assert low < high


def test_what_people_type() -> None:
    assert find_device("RTX 4090").candidates[0].name == "NVIDIA GeForce RTX 4090"
    assert find_device("rtx 3060 12GB").candidates[0].memory_bytes == (12 * GIB,)
    assert find_device("m4 max 40").candidates[0].gpu_cores == 40
    both = find_device("Apple M4 Max")
    assert both.is_ambiguous
    assert [device.gpu_cores for device in both.candidates] == [32, 40]


def test_what_people_type_that_is_many_or_none() -> None:
    with pytest.raises(UserError, match=r"SXM5.*NVL"):
        find_device("h100")
    with pytest.raises(UserError, match="did you mean NVIDIA GeForce RTX 4090"):
        find_device("NVIDIA GeForce RTX 4091")
    for nothing in ("", "  ", "toaster", "()"):
        with pytest.raises(UserError):
            find_device(nothing)


@pytest.mark.parametrize(
    ("name", "backend"),
    [("CUDA0", "cuda"), ("Metal", "metal"), ("MTL0", "metal"), ("ROCm1", "rocm"),
     ("Vulkan0", "vulkan"), ("CPU", "cpu"), ("BLAS", "cpu"), ("", "cpu")],
)  # fmt: skip
def test_the_engine_names_its_backends(name: str, backend: str) -> None:
    assert backend_of(name) == backend


def test_an_engine_device_is_joined_with_the_table() -> None:
    reported = Reported("Vulkan0", "AMD Radeon RX 6800 XT", 16 * GIB, 15 * GIB)
    card, processor = local_devices([reported, Reported("CPU", "AMD EPYC", None, None)])
    assert (card.backend, card.shares_memory) == ("vulkan", False)
    assert card.match.device is not None
    assert card.match.device.name == "AMD Radeon RX 6800 XT"
    assert processor.backend == "cpu"
    assert (processor.total_bytes or 0) > GIB / 2


def test_measurements_of_this_machine_have_one_key() -> None:
    assert machine_key() == machine_key()
    assert power().text


@pytest.mark.parametrize(
    ("text", "mode"), [(" lowpowermode  1\n", True), (" lowpowermode 0", False), ("", None)]
)
def test_low_power_mode(text: str, mode: bool | None) -> None:
    assert low_power_mode(text) is mode


JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.text() | JSON.map(lambda value: json.dumps({"SPDisplaysDataType": value, "c": value})))
def test_garbage_is_no_graphics_card_and_no_error(text: str) -> None:
    for read in (nvidia_gpus, apple_gpus, amd_gpus):
        assert all(gpu.name for gpu in read(text))
    low_power_mode(text)


@given(st.sampled_from(all_devices()), st.integers(1, 200))
def test_knowing_the_memory_never_adds_doubt(device: Device, size: int) -> None:
    blind = match_reported(device.matches[0])
    seeing = match_reported(device.matches[0], memory_bytes=size * GIB)
    assert set(seeing.candidates) <= set(blind.candidates)
    assert seeing.is_ambiguous <= blind.is_ambiguous
