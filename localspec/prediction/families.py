"""Families of devices and classes of weight types: what kernels are written for."""

import re

from localspec.hardware.described import processor_of

# The first pattern found in a device's lower-case name decides.
_FAMILIES: tuple[tuple[str, str], ...] = (
    (r"apple .*ultra", "Apple Ultra"),
    (r"apple m([5-9]|\d\d)", "Apple M5 and later"),
    (r"apple .*max", "Apple Max"),
    (r"apple m\d+ pro", "Apple Pro"),
    (r"apple", "Apple base"),
    (r"\b(h[128]00|h20|a100|a800|gh200|g?b[23]00|a30)\b", "NVIDIA HBM"),
    (r"\bcmp\b", "NVIDIA mining"),
    (r"\b(v100s?|titan v|gv100)\b|xavier", "NVIDIA Volta"),
    (r"p100\b", "NVIDIA P100"),
    (r"\bgb10\b", "NVIDIA GB10"),
    (r"\bthor\b", "NVIDIA Thor"),
    (r"\bada\b|rtx 40[5-9]\d|\bl40|\b(l4|l2|l20)\b", "NVIDIA Ada"),
    (r"rtx 50[5-9]\d|blackwell|rtx pro", "NVIDIA Blackwell"),
    (r"orin", "NVIDIA Orin"),
    (
        r"rtx 30[5-9]\d|rtx 2050|mx570|rtx a\d{3,4}|nvidia a(10[gm]?|40|2|16)\b",
        "NVIDIA Ampere",
    ),
    (
        r"quadro rtx|titan rtx|rtx 20\d\d|gtx 16\d\d|tesla t\d|nvidia t4|\bt\d{3,4}\b|mx[45]\d0",
        "NVIDIA Turing",
    ),
    (
        r"gtx (9[5-8]|7[58])0|gtx titan|tesla [mk]\d|quadro [mk]\d|jetson nano",
        "NVIDIA Maxwell and older",
    ),
    (r"nvidia|geforce|tesla|quadro", "NVIDIA Pascal and older"),
    (r"qualcomm|adreno|hexagon", "Qualcomm"),
    (r"intel.* b\d\d|battlemage|1[34]0v", "Intel Arc B"),
    (r"arc.*a\d\d|intel", "Intel Arc A"),
    (r"strix halo|80[456]0s", "AMD Strix Halo"),
    (
        r"rx [45][5-9]0\b|pro 5[568][05]x|pro wx [457]1|radeon r9 |firepro|\bmi[68]\b",
        "AMD Polaris",
    ),
    (r"vega (56|64|frontier|ii)|radeon (pro )?vii|\bmi(25|50|60)\b|pro wx [89]", "AMD Vega"),
    (r"ryzen|\b\d{3}m\b|radeon graphics|vega|van gogh|8040s", "AMD integrated"),
    (r"rx 9|r9[67]00", "AMD RDNA4"),
    (r"rx 7|w7\d00|v710", "AMD RDNA3"),
    (r"rx [56]|w[56]\d00|v[56]20|pro 5[3-7]00|bc-250", "AMD RDNA1/2"),
    (r"instinct|\bmi\d", "AMD Instinct"),
    (r"\bmtt\b", "Moore Threads"),
    (r"ascend", "Huawei Ascend"),
    (r"mali|immortalis", "Arm Mali"),
)
SHARED_MEMORY = frozenset(
    {"AMD Strix Halo", "AMD integrated", "NVIDIA Orin", "NVIDIA GB10", "NVIDIA Thor"}
)
KERNELS_OF = {"NVIDIA Maxwell and older": "NVIDIA P100"}
"""By families that nobody measured, whose kernels they run: these have no products of integers, so
that quantized prompts take what the arithmetic of floats does."""
OTHER = "other"
THROUGH_METAL = "Apple through MoltenVK"
"""Vulkan has no driver there: its shaders are translated, whatever the chip."""

HALF, EIGHT, LEGACY, K_QUANTS, LOW = "16 bit", "8 bit", "4 and 5 bit blocks", "K-quants", "low bit"
BRAIN = "bfloat16"
"""Of 16 bits, too, and slow where a device or its driver has no matrix units for it."""
CODEBOOKS, MICROSCALED, TERNARY = "codebooks", "microscaled 4 bit", "1 and 2 bit"
BITS = {HALF: 16.0, BRAIN: 16.0, EIGHT: 8.5, K_QUANTS: 4.9, LEGACY: 4.6, MICROSCALED: 4.3, LOW: 3.3,
        CODEBOOKS: 3.0, TERNARY: 1.8}  # fmt: skip
"""Of a weight, about: a byte of fewer bits has more weights to unpack."""
_TYPE_CLASSES: tuple[tuple[str, str], ...] = (
    (r"^BF16", BRAIN),
    (r"^(F16|FP16|F32|FP32)", HALF),
    (r"^Q8", EIGHT),
    (r"^(MX|NV)FP4", MICROSCALED),
    (r"^(Q[45]_[01]|IQ4_NL)", LEGACY),
    (r"^Q[456]_K", K_QUANTS),
    (r"^I?Q[123]_(S|M|XS|XXS)\b|^IQ", CODEBOOKS),
    (r"^([PT]*Q[12]_0|TQ)", TERNARY),
)


def family_of(device_name: str, backend: str = "") -> str:
    """The family of a device by its name in the table; "other" for what is in none."""
    if backend == "cpu":
        known = processor_of(device_name)
        return f"{known.kind} processor" if known else "processor"
    lowered = device_name.lower()
    if backend == "vulkan" and lowered.startswith("apple"):
        return THROUGH_METAL
    return next((name for pattern, name in _FAMILIES if re.search(pattern, lowered)), OTHER)


def type_class(type_name: str) -> str:
    """The class of a weight type or of a quantization by name: Q4_K_M and Q6_K are K-quants."""
    name = type_name.upper().removeprefix("UD-")
    return next((kind for pattern, kind in _TYPE_CLASSES if re.search(pattern, name)), LOW)
