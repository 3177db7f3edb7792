"""A machine is predicted by the name that people give it: backends, several devices, memory."""

import pytest

from localspec.errors import UserError
from localspec.forecast.known_machine import KnownMachine
from localspec.forecast.named_machine import NamedMachine
from localspec.forecast.question import answer, read_question
from localspec.hardware.asked_machine import devices_meant
from localspec.hardware.described import device_meant
from localspec.notify import silent


def speed(model: str, device: str, **more: object) -> float:
    choice, asked = read_question(device=device, kv_k="f16", depth=0, **more)
    return answer(model, choice, asked, silent).rows[0].decode.mid


@pytest.mark.parametrize(
    ("typed", "name", "backend"),
    [
        ("RTX 4090 on Vulkan", "NVIDIA GeForce RTX 4090", "vulkan"),
        ("7900 XTX (ROCm)", "AMD Radeon RX 7900 XTX", "rocm"),
        ("Arc A770 SYCL", "Intel Arc A770", "sycl"),
        ("hip 8060S", "AMD Ryzen AI Max+ 395 / Radeon 8060S (Strix Halo)", "rocm"),
        ("Snapdragon 8 Gen 3 OpenCL", "Qualcomm Adreno 750 (Snapdragon 8 Gen 3)", "opencl"),
        ("M2 Max CPU only", "M2 Max", "cpu"),
        ("Apple M4 Pro (14-core CPU, 20-core GPU)", "Apple M4 Pro (16-core GPU)", "metal"),
        ("Qualcomm Hexagon v79 (Snapdragon 8 Elite)",) * 2 + ("hexagon",),
    ],
)
def test_a_word_chooses_the_backend(typed: str, name: str, backend: str) -> None:
    (match,) = devices_meant(typed)
    assert match.candidates[0].name == name
    assert {device.kind for device in match.candidates} == {backend}


@pytest.mark.parametrize("typed", ["RTX 4090 ROCm", "M2 Max CUDA", "vulkan", "32x RTX 4090"])
def test_what_cannot_be_is_one_sentence(typed: str) -> None:
    with pytest.raises(UserError) as caught:
        devices_meant(typed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "count"),
    [
        ("2x RTX 3090", 2),
        ("dual RTX 3090", 2),
        ("RTX 3090 x 4", 4),
        ("3090x2", 2),
        ("Threadripper PRO 3975WX", 1),
        ("AMD Radeon Pro 580X", 1),
        ("RTX 5070 Ti + RTX 5060 Ti", 2),
        ("RTX 5070 Ti, RTX 5060 Ti 16GB", 2),
        ("Radeon 890M (Ryzen AI 9 HX 370, LPDDR5X-7500)", 1),
        ("AMD RYZEN AI MAX+ 395", 1),
        ("dual EPYC 9654", 1),
        ("DDR5-5600 dual channel", 1),
    ],
)
def test_names_of_several_devices_are_counted(typed: str, count: int) -> None:
    assert len(devices_meant(typed)) == count


@pytest.mark.parametrize(
    ("typed", "gbps"),
    [
        ("8 channel DDR4-3200", 204.8),
        ("DDR4-3200", 51.2),
        ("LPDDR5X-8000 256-bit", 256),
        ("EPYC 9654 with 12x DDR5-4800", 460.8),
        ("Threadripper 7970X quad channel DDR5-6400", 204.8),
    ],
)
def test_memory_is_known_by_its_modules(typed: str, gbps: float) -> None:
    (match,) = devices_meant(typed)
    device = match.candidates[0]
    assert (device.kind, device.bandwidth_bytes_per_s) == ("cpu", pytest.approx(gbps * 1e9))


def test_a_processor_keeps_its_arithmetic_where_its_memory_is_named() -> None:
    plain, named = device_meant("EPYC 9654"), device_meant("EPYC 9654, 6 channels DDR5-4800")
    assert plain.device
    assert named.device
    assert named.device.fp32_flops_per_s == plain.device.fp32_flops_per_s
    assert named.device.bandwidth_bytes_per_s < plain.device.bandwidth_bytes_per_s


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("M4", "Apple M4"),
        ("Mac mini M4", "Apple M4"),
        ("RTX 4070 mobile", "RTX 4070 Laptop"),
        ("rtx4060m", "RTX 4060 Laptop"),
        ("MSI RTX 4070 Ti SUPER 16GB", "RTX 4070 Ti SUPER"),
        ("iPhone 16 Pro Max", "A18 Pro"),
        ("Core i9 14900K", "14900K"),
        ("Ryzen AI 9 HX 370 iGPU", "890M"),
    ],
)
def test_what_shops_and_systems_say_is_understood(typed: str, name: str) -> None:
    assert name in devices_meant(typed)[0].candidates[0].name


def test_several_cards_are_as_fast_as_their_layers_one_after_the_other() -> None:
    fast, slow = speed("qwen3-14b", "RTX 3090"), speed("qwen3-14b", "RTX 3060 12GB")
    both = speed("qwen3-14b", "RTX 3090 + RTX 3060 12GB", split="memory")
    assert slow < both < fast
    assert 0.8 * fast < speed("qwen3-14b", "2x RTX 3090") < fast


def test_cards_with_cuda_read_parts_of_a_long_prompt_at_once() -> None:
    def gain(device: str, n_tokens: int) -> float:
        prompts = [
            answer(
                "qwen3-14b",
                *read_question(device=name, split="memory", depth=0, prompt_tokens=n_tokens),
                silent,
            )
            .rows[0]
            .prefill.mid
            for name in (device, f"4x {device}")
        ]
        return prompts[1] / prompts[0]

    assert gain("RTX 3090", 256) <= 1
    assert 1 < gain("RTX 3090", 1024) < gain("RTX 3090", 8192) < 4
    assert gain("RX 7900 XTX", 8192) <= 1


def test_a_named_processor_takes_what_a_card_does_not_hold() -> None:
    """Nothing of this machine is measured for it."""
    card, shared = speed("gpt-oss-120b", "RTX 4090"), speed("gpt-oss-120b", "RTX 4090 + EPYC 7763")
    assert speed("gpt-oss-120b", "EPYC 7763") < shared < card
    more = speed("gpt-oss-120b", "RTX 4090 + EPYC 7763", cpu_moe=36)
    assert more < shared
    assert speed("qwen3-14b", "RTX 4090 + EPYC 7763", gpu_layers=20) < speed(
        "qwen3-14b", "RTX 4090"
    )


def test_two_processors_are_not_one_machine() -> None:
    with pytest.raises(UserError, match="several processors"):
        NamedMachine.of("RTX 4090 + EPYC 7763 + EPYC 9654")


def test_recommendations_count_the_memory_of_all_cards() -> None:
    one, two = KnownMachine.named("RTX 3090"), KnownMachine.named("2x RTX 3090")
    assert two.room_bytes == 2 * one.room_bytes
    with pytest.raises(UserError, match="--memory"):
        KnownMachine.named("2x RTX 3090", memory_bytes=2**30)


@pytest.mark.parametrize("device", ["GTX 980 Ti", "Tesla M40 24GB", "Tesla K80"])
def test_prompts_take_no_less_than_arithmetic_where_integers_have_no_units(device: str) -> None:
    """Newer cards multiply four bytes at once, and read quantized prompts faster than floats."""
    choice, asked = read_question(device=device, kv_k="f16", depth=0)
    row = answer("qwen3-8b", choice, asked, silent).rows[0]
    flops_per_s = device_meant(device).candidates[0].fp32_flops_per_s
    assert flops_per_s
    assert row.prefill.mid * 2 * 7e9 < flops_per_s
