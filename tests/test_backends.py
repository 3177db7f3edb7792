"""One card under two backends: the faster one is measured, kept and taken."""

from dataclasses import replace
from math import inf

import pytest

from localspec.engine import backends
from localspec.engine.backends import marked, measure_backends, twins
from localspec.hardware.machine import Reported, computing

GIB = 2**30
CUDA = Reported("CUDA0", "NVIDIA GeForce RTX 4090", 24 * GIB, None, "gpu", "cuda", "0000:01:00.0")
VULKAN = replace(CUDA, name="Vulkan0", backend="vulkan")
OTHER = replace(VULKAN, name="Vulkan1", card="0000:02:00.0")
UNKNOWN = replace(VULKAN, name="Vulkan2", card=None)
ALL = [CUDA, VULKAN, OTHER, UNKNOWN]
SECONDS = {"CUDA0": 2.0, "Vulkan0": 1.5}


@pytest.fixture(autouse=True)
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that are not here cannot be tested."""
    monkeypatch.setattr(backends, "sound_devices", lambda devices, notify: list(devices))


def used() -> list[str]:
    return [device.name for device in computing(marked(ALL))]


def test_a_card_is_known_by_its_address_alone() -> None:
    """Two cards of one name are two cards."""
    assert twins(ALL) == [[CUDA, VULKAN]]


def test_the_first_is_taken_until_it_is_measured_and_then_the_faster() -> None:
    said: list[str] = []
    assert used() == ["CUDA0", "Vulkan1", "Vulkan2"]
    measure_backends(ALL, said.append, lambda device: SECONDS[device.name])
    assert used() == ["Vulkan0", "Vulkan1", "Vulkan2"]
    assert "Vulkan0 is used" in said[-1]


def test_it_is_measured_once() -> None:
    asked: list[str] = []

    def seconds_of(device: Reported) -> float:
        asked.append(device.name)
        return SECONDS[device.name]

    for _ in range(2):
        measure_backends(ALL, lambda message: None, seconds_of)
    assert asked == ["CUDA0", "Vulkan0"]


def test_a_backend_that_cannot_be_measured_or_computes_wrongly_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = {"CUDA0": inf, "Vulkan0": 9.0}
    measure_backends([CUDA, VULKAN], lambda message: None, lambda device: times[device.name])
    assert [device.is_twin for device in marked([CUDA, VULKAN])] == [True, False]
    monkeypatch.setattr(backends, "sound_devices", lambda devices, notify: [CUDA])
    other = [replace(device, card="0000:03:00.0", total_bytes=GIB) for device in (CUDA, VULKAN)]
    measure_backends(other, lambda message: None, lambda device: SECONDS[device.name])
    assert [device.is_twin for device in marked(other)] == [False, True]
