"""What tools printed on real machines leads to the right device; garbage leads to none."""

import csv
import json
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localspec.hardware import detect as power
from localspec.hardware import gpus, machine
from localspec.hardware import gpus as tools
from localspec.hardware.detect import Power, low_power_mode
from localspec.hardware.devices import match_reported
from localspec.hardware.gpus import (
    Card,
    Gpu,
    amd_gpus,
    amd_name,
    apple_gpus,
    driver_gpus,
    nvidia_gpus,
)
from localspec.hardware.machine import (
    DeviceKind,
    Reported,
    backend_of,
    computing,
    local_devices,
    machine_key,
)

RECORDED = Path(__file__).parent / "recorded"
GIB = 2**30
MIB = 2**20
GGML = re.compile(r"(?:Device \d+|ggml_vulkan: \d+ =|found device): ?|ggml_vulkan: \d+ = ")


def recorded(name: str) -> str:
    return (RECORDED / name).read_text()


def device_of(gpu: Gpu) -> str | None:
    found = match_reported(gpu.name, memory_bytes=gpu.memory_bytes, gpu_cores=gpu.gpu_cores)
    return found.device.name if found.device and not found.is_ambiguous else None


def test_recorded_apple_outputs() -> None:
    (max3,) = apple_gpus(recorded("apple-m3-max.json"), 64 * GIB)
    assert (max3.backend, max3.gpu_cores, max3.memory_bytes) == ("metal", 40, 64 * GIB)
    assert device_of(max3) == "Apple M3 Max (40-core GPU)"
    (max2,) = apple_gpus(recorded("apple-m2-max.json"))
    assert device_of(max2) == "Apple M2 Max (30-core GPU)"
    (pro,) = apple_gpus(recorded("apple-m3-pro.json"))
    assert (pro.name, pro.gpu_cores) == ("Apple M3 Pro", None)
    (first,) = apple_gpus(recorded("apple-m1.json"))
    assert first.name == "Apple M1"


def test_recorded_nvidia_outputs() -> None:
    (single,) = nvidia_gpus(recorded("nvidia-rtx-3090.csv"))
    assert single == Gpu("NVIDIA GeForce RTX 3090", "cuda", 24 * GIB)
    assert device_of(single) == "NVIDIA GeForce RTX 3090"
    pascal, ampere = nvidia_gpus(recorded("nvidia-p100.csv"))
    assert (pascal.memory_bytes, ampere.memory_bytes) == (16 * GIB, 24 * GIB)
    assert device_of(pascal) == "NVIDIA Tesla P100 PCIe 16 GB"


def test_a_part_that_shares_memory_says_no_size() -> None:
    rows = recorded("nvidia-gb10.csv").splitlines()[1:]
    (spark,) = nvidia_gpus("\n".join(row.partition(",")[2] for row in rows))
    assert (spark.name, spark.memory_bytes) == ("NVIDIA GB10", None)
    device, _ = local_devices(None, [spark])
    assert device.shares_memory
    assert (device.total_bytes or 0) > GIB / 2


def test_driver_and_power_limit_are_read_where_they_are_printed() -> None:
    (gpu,) = nvidia_gpus("NVIDIA GeForce RTX 4090, 24564, 550.54.14, 450.00\n")
    assert (gpu.driver, gpu.power_limit_w) == ("550.54.14", 450.0)
    (gpu,) = nvidia_gpus("NVIDIA GB10, [N/A], 580.95.05, [N/A]\n")
    assert (gpu.memory_bytes, gpu.power_limit_w) == (None, None)


@pytest.mark.parametrize(
    "text",
    [
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure",
        "No devices were found",
        "Unable to determine the device handle for GPU 0000:01:00.0: Unknown Error",
        'Field "power.limits" is not a valid field to query.',
        "hello, world",
        ", 24576",
    ],
)
def test_complaints_of_nvidia_smi_are_no_device(text: str) -> None:
    assert nvidia_gpus(text) == ()


@pytest.mark.parametrize(
    ("product", "name"),
    [
        ("H100", "NVIDIA H100 80GB HBM3"),
        ("A100 80GB", "NVIDIA A100"), ("A100 40GB", "NVIDIA A100"),
        ("A10", "NVIDIA A10"), ("L40S", "NVIDIA L40S"), ("L4", "NVIDIA L4"), ("T4", "Tesla T4"),
    ],
)  # fmt: skip
def test_totals_that_drivers_report_are_near_enough(product: str, name: str) -> None:
    """A card with error correction on reports up to 6 % less than is printed on the box."""
    found = re.search(rf"^- {product}: (\d+)MiB", recorded("nvidia-totals.txt"), re.MULTILINE)
    assert found
    match = match_reported(name, memory_bytes=int(found[1]) * MIB)
    assert match.device is not None
    printed = min(match.device.memory_bytes, key=lambda size: abs(size - int(found[1]) * MIB))
    assert 0.93 < int(found[1]) * MIB / printed <= 1
    assert product.split()[0] in match.device.name


def test_recorded_amd_outputs() -> None:
    text = recorded("amd-rx-7900-xt.json")
    (card,) = amd_gpus(text)
    assert device_of(card) == "AMD Radeon RX 7900 XT"
    warning = "WARNING: AMD GPU device(s) is/are in a low-power state. Check power control\n\n"
    assert amd_gpus(warning + text) == (card,)
    (integrated,) = amd_gpus(recorded("amd-780m.json"))
    assert (integrated.name, integrated.memory_bytes) == ("Phoenix3", None)


def test_a_chip_number_is_not_a_name() -> None:
    card = {"Card series": "0x738c", "Card model": "Radeon RX 7900 XTX", "Device Name": "N/A"}
    assert [gpu.name for gpu in amd_gpus(json.dumps({"card0": card}))] == ["Radeon RX 7900 XTX"]


def test_amd_cards_are_known_without_rocm(tmp_path: Path) -> None:
    ids = RECORDED / "amdgpu.ids"
    assert amd_name(ids.read_text(), "0x744c", "0xc8") == "AMD Radeon RX 7900 XTX"
    assert amd_name(ids.read_text(), "0x744c", "0x01") is None
    folder = tmp_path / "card1" / "device"
    folder.mkdir(parents=True)
    values = {"vendor": "0x1002", "device": "0x744c", "revision": "0xcc"}
    for name, value in {**values, "mem_info_vram_total": "21458059264"}.items():
        (folder / name).write_text(value + "\n")
    (tmp_path / "card1-DP-1").mkdir()
    (card,) = driver_gpus(tmp_path, (tmp_path / "absent", ids))
    assert card.backend == "vulkan"
    assert device_of(card) == "AMD Radeon RX 7900 XT"
    (unnamed,) = driver_gpus(tmp_path, ())
    assert (unnamed.name, unnamed.memory_bytes) == ("AMD GPU 0x744c", 21458059264)
    assert driver_gpus(tmp_path / "absent", (ids,)) == ()


# What ggml prints of a device, by how it starts, and the device in the table.
GGML_KNOWN = {
    "NVIDIA GeForce RTX 3090 Ti": "NVIDIA GeForce RTX 3090 Ti",
    "NVIDIA RTX A6000": "NVIDIA RTX A6000",
    "NVIDIA GeForce RTX 4050 Laptop GPU": "NVIDIA GeForce RTX 4050 Laptop GPU",
    "NVIDIA GeForce RTX 4070 Ti SUPER": "NVIDIA GeForce RTX 4070 Ti SUPER",
    "NVIDIA GeForce RTX 4090": "NVIDIA GeForce RTX 4090",
    "Tesla V100-SXM2-16GB": "NVIDIA Tesla V100 SXM2 16 GB",
    "NVIDIA A100-SXM4-80GB": "NVIDIA A100 SXM4 80 GB",
    "NVIDIA GB10": "NVIDIA GB10 (DGX Spark)",
    "NVIDIA GeForce GTX 1080": "NVIDIA GeForce GTX 1080",
    "NVIDIA GeForce RTX 2060 SUPER": "NVIDIA GeForce RTX 2060 SUPER",
    "Quadro P2000": "NVIDIA Quadro P2000",
    "AMD Radeon RX 6800 XT": "AMD Radeon RX 6800 XT",
    "AMD Radeon 780M Graphics": "AMD Radeon 780M (Ryzen 7x40/8x40, DDR5-5600 dual)",
    "AMD Radeon RX 6600": "AMD Radeon RX 6600",
    "Radeon 8060S Graphics": "AMD Ryzen AI Max+ 395 / Radeon 8060S (Strix Halo)",
    "AMD Radeon Graphics (RADV GFX1151)": "AMD Ryzen AI Max+ 395 / Radeon 8060S (Strix Halo)",
    "AMD Radeon RX 7800 XT (RADV NAVI32)": "AMD Radeon RX 7800 XT",
    "AMD Radeon RX 7900 XTX (RADV NAVI31)": "AMD Radeon RX 7900 XTX",
    "AMD Radeon Graphics (RADV GFX1201)": "AMD Radeon RX 9070 GRE",
    "NVIDIA GeForce RTX 4080": "NVIDIA GeForce RTX 4080",
    "NVIDIA RTX A2000 12GB": "NVIDIA RTX A2000",
    "AMD Radeon Graphics (AMD open-source driver)": None,
    "Apple M1 Pro": "Apple M1 Pro (14-core GPU)",
    "Apple M4 Max": "Apple M4 Max (32-core GPU)",
    "AMD Radeon VII": "AMD Radeon VII",
    "Intel(R) UHD Graphics 630": "Intel UHD Graphics 630 (DDR4-2666)",
}


def ggml_lines() -> list[str]:
    rows = csv.reader(recorded("ggml-devices.tsv").splitlines(), delimiter="\t")
    return [line for _, line in rows]


@pytest.mark.parametrize("line", ggml_lines())
def test_names_as_the_engine_prints_them(line: str) -> None:
    description = re.split(r", (?:compute|gfx)| \|", GGML.split(line.strip(), maxsplit=1)[1])[0]
    start = max((name for name in GGML_KNOWN if description.startswith(name)), key=len)
    device = match_reported(description).device
    assert (device.name if device else None) == GGML_KNOWN[start]


@pytest.mark.parametrize(
    ("name", "backend"),
    [("CUDA0", "cuda"), ("Metal", "metal"), ("MTL0", "metal"), ("ROCm1", "rocm"),
     ("Vulkan0", "vulkan"), ("CPU", "cpu"), ("BLAS", "cpu"), ("", "cpu")],
)  # fmt: skip
def test_the_engine_names_its_backends(name: str, backend: str) -> None:
    assert backend_of(name) == backend


def test_an_engine_device_is_joined_with_the_table() -> None:
    reported = Reported("Vulkan0", "AMD Radeon RX 6800 XT", 16 * GIB, 15 * GIB, "gpu", "vulkan")
    listed = [reported, Reported("CPU", "AMD EPYC", None, None, "cpu", "cpu")]
    card, processor = local_devices(listed, [])
    assert (card.backend, card.shares_memory) == ("vulkan", False)
    assert card.match.device is not None
    assert card.match.device.name == "AMD Radeon RX 6800 XT"
    assert (processor.backend, processor.shares_memory) == ("cpu", True)
    assert (processor.total_bytes or 0) > GIB / 2


def test_two_cards_of_one_name_keep_their_own_memory() -> None:
    known = [Gpu("NVIDIA A100", "cuda", size * GIB) for size in (40, 80)]
    reported = [
        Reported(f"CUDA{i}", "NVIDIA A100", size * GIB, None, "gpu", "cuda")
        for i, size in enumerate((40, 80))
    ]
    for listed in (reported, None):
        rates = [
            device.match.candidates[0].bandwidth_bytes_per_s
            for device in local_devices(listed, known)[:-1]
        ]
        assert rates == [1555e9, 2039e9]


def test_the_system_completes_what_metal_says() -> None:
    """Metal gives three quarters of the memory as the total, and no core count."""
    reported = Reported("MTL0", "Apple M4 Max", 36 * GIB, 36 * GIB, "gpu", "metal")
    blind, _ = local_devices([reported], [])
    known = Gpu("Apple M4 Max", "metal", 48 * GIB, 40)
    seeing, _ = local_devices([reported], [known])
    assert [device.gpu_cores for device in seeing.match.candidates] == [40]
    assert (seeing.total_bytes, seeing.shares_memory) == (36 * GIB, True)
    assert blind.shares_memory


def test_a_card_in_an_intel_mac_has_its_own_memory() -> None:
    reported = Reported("Metal", "AMD Radeon Pro 5600M", 8 * GIB, None, "gpu", "metal")
    card, _ = local_devices([reported], [])
    assert (card.backend, card.shares_memory) == ("metal", False)


def device(name: str, kind: DeviceKind, backend: str = "vulkan") -> Reported:
    return Reported(name, name, GIB, GIB, kind, backend)


def test_a_card_that_two_backends_list_counts_once() -> None:
    cuda, vulkan = (
        replace(device(name, "gpu", backend), card="0000:01:00.0")
        for name, backend in (("CUDA0", "cuda"), ("Vulkan0", "vulkan"))
    )
    spare = replace(cuda, is_twin=True)
    assert computing([spare, vulkan]) == [vulkan]
    assert computing([spare, vulkan], ["CUDA0"]) == [spare], "a name is obeyed"


def test_integrated_chips_are_those_of_one_backend() -> None:
    """libllama leaves a second backend's out where it cannot know that they are other chips."""
    rocm, vulkan = device("ROCm0", "igpu", "rocm"), device("Vulkan0", "igpu", "vulkan")
    assert computing([rocm, vulkan]) == [rocm]


def strix_halo() -> Card:
    return Card("AMD", own_bytes=512 * MIB, mappable_bytes=110 * GIB, is_part_of_processor=True)


@pytest.mark.parametrize(
    ("backend", "total"),
    [("rocm", 110 * GIB), ("vulkan", 110 * GIB + 512 * MIB), ("vulkan", 512 * MIB)],
)
def test_a_part_of_the_processor_has_what_it_may_map(
    monkeypatch: pytest.MonkeyPatch, backend: str, total: int
) -> None:
    """A Ryzen AI MAX+ 395: rocm-smi and sysfs tell the 512 MB that firmware set aside, HIP and KFD
    110 GiB (github.com/ROCm/rocm-systems, pull request 8475). More than is free it cannot have."""
    for free_gib, expected in ((128, 110), (40, 40)):
        monkeypatch.setattr(machine, "available_memory_bytes", lambda n=free_gib: n * GIB)
        known = [Gpu("AMD Radeon Graphics", backend, total)]
        part, _ = local_devices(None, known, [strix_halo()])
        assert part.shares_memory
        assert part.total_bytes == 110 * GIB + 512 * MIB
        assert (part.free_bytes or 0) // GIB == expected


def test_a_card_beside_such_a_part_keeps_its_own_memory() -> None:
    known = [Gpu("AMD Radeon RX 7900 XTX", "rocm", 24 * GIB)]
    card, _ = local_devices(None, known, [strix_halo()])
    assert (card.total_bytes, card.shares_memory) == (24 * GIB, False)


def test_layers_go_where_libllama_puts_them() -> None:
    card, chip = device("Vulkan0", "gpu"), device("Vulkan1", "igpu")
    processor, far = device("CPU", "cpu", "cpu"), device("RPC0", "gpu", "rpc")
    listed = [card, chip, processor, device("BLAS", "accel", "cpu"), far]
    assert computing(listed, workers=["RPC0"]) == [far, card]
    assert computing(listed) == [card], "a worker that was not asked for is left alone"
    assert computing([chip, processor, far], workers=["RPC0"]) == [far, chip]
    assert computing(listed, ["Vulkan1", "Vulkan0"]) == [chip, card]
    assert computing([processor]) == computing(listed, ["CPU"]) == []
    assert chip.shares_memory
    assert not card.shares_memory


def test_a_tool_that_is_absent_fails_or_hangs_says_nothing(tmp_path: Path) -> None:
    def script(body: str) -> str:
        path = tmp_path / f"tool{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    assert tools.output_of(script("echo words")) == "words\n"
    assert tools.output_of(script("echo words; exit 9")) == ""
    assert tools.output_of(script("printf '\\377\\376'")) != ""
    assert tools.output_of(script("exec sleep 30"), limit_s=0.2) == ""
    assert tools.output_of(str(tmp_path / "absent")) == ""
    assert tools.output_of(str(tmp_path)) == ""


def test_measurements_of_this_machine_have_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """On battery a laptop is slower: what was measured plugged in must not be used there."""
    here = machine_key()
    assert here == machine_key()
    states = [Power(True, None, None), Power(False, None, None), Power(False, True, None)]
    keys = {here}
    for state in states:
        monkeypatch.setattr(machine, "power", lambda state=state: state)
        keys.add(machine_key())
    assert len(keys) == 1 + len(states)


def test_power_is_said_in_words() -> None:
    assert power.power().text
    text = Power(True, True, "low-power", "powersave").text
    assert text == "on battery, low power mode, profile low-power, governor powersave"


def test_a_battery_that_cannot_be_read_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("invalid literal for int()")

    monkeypatch.setattr(power.psutil, "sensors_battery", broken)
    assert power.power().on_battery is None


def test_low_power_mode() -> None:
    assert low_power_mode(recorded("pmset.txt")) is False
    assert low_power_mode(recorded("pmset.txt").replace("mode         0", "mode         1")) is True
    assert low_power_mode(" powermode            1\n") is True
    assert low_power_mode(" powermode            2\n") is False
    assert low_power_mode("") is None


def test_this_machine_can_be_asked() -> None:
    assert all(gpu.name for gpu in gpus.system_gpus())
    assert local_devices(None)[-1].backend == "cpu"


JSON = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
CARD = st.dictionaries(
    st.sampled_from(
        ["Card Series", "VRAM Total Memory (B)", "sppci_model", "sppci_cores", "_name"]
    ),
    JSON,
)
DOCUMENT = st.builds(
    lambda value, card: json.dumps({"SPDisplaysDataType": value, "card0": card}),
    JSON | st.lists(CARD),
    CARD | JSON,
)


@pytest.mark.slow
@given(st.text() | DOCUMENT | st.from_regex(r"([A-Za-z0-9 ]*, ?){1,5}", fullmatch=True))
def test_garbage_is_no_error(text: str) -> None:
    for read in (nvidia_gpus, apple_gpus, amd_gpus):
        for gpu in read(text):
            assert gpu.name
            assert gpu.memory_bytes is None or gpu.memory_bytes >= 0
            local_devices(None, [gpu])
    low_power_mode(text)
    amd_name(text, text, text)
