"""Devices that the table does not have: processors by their generation, others by what is said.

"EPYC 9654" has the memory that its maker supports: a range where it takes two kinds, and an
estimate even then, because modules may be slower than allowed, channels empty and sockets two. So
intervals of processors are wide.

"Vulkan GPU 300 GB/s" and "cpu 89.6 GB/s 64 GB" say their bandwidth, their backend and their memory.
A backend that is not named is that of the maker, else Vulkan, which all makers have. Arithmetic is
known of few of them. A device for which llama.cpp has no backend is told as such, whatever
else is said of it.

Memory that is named by its modules has a bandwidth of channels x bytes of a channel x MT/s.

    "8 channel DDR4-3200"   "DDR5-6400"   "12x DDR5-4800"   "LPDDR5X-8000 256-bit"

A channel of DDR has 8 bytes. Without a number there are two channels, and 128 bits of LPDDR, as in
desktops and laptops.
"""

import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from math import sqrt
from typing import Any

from localspec.errors import UserError
from localspec.hardware.device_names import UnknownDeviceError, cards_of_target, find_device
from localspec.hardware.devices import GIB, Device, Match, all_devices

_KIND = re.compile(r"(?<![\w-])(lp)?ddr[345]x?(?:[- ]?(?:r?dimm )?)(\d{4,5})(?!\w)", re.IGNORECASE)
_CHANNELS = re.compile(
    r"(?<![\w-])(\d{1,2}|single|dual|two|quad|four|six|eight|octa|twelve)(?:[- ]?channels?|[- ]?ch"
    r"| ?[x\xd7])(?!\w)",
    re.IGNORECASE,
)
_BITS = re.compile(r"(?<![\w-])(\d{2,4})[- ]?bit", re.IGNORECASE)
_WORDS = {"single": 1, "dual": 2, "two": 2, "quad": 4, "four": 4, "six": 6, "eight": 8, "octa": 8,
          "twelve": 12}  # fmt: skip
USUAL_BYTES = 16.0
"""Of a transfer: two channels of DDR, or 128 bits."""


@dataclass(frozen=True, slots=True)
class Modules:
    """`says_width`: how many channels or bits there are. `is_all`: the name says nothing else."""

    bytes_per_s: float
    says_width: bool
    is_all: bool

    @classmethod
    def named(cls, name: str) -> "Modules | None":
        """None where a name tells no module."""
        found = _KIND.search(name)
        if found is None:
            return None
        channels, bits = _CHANNELS.search(name), _BITS.search(name)
        n_bytes = USUAL_BYTES
        if bits:
            n_bytes = int(bits[1]) / 8
        elif channels and not found[1]:
            word = channels[1].lower()
            n_bytes = 8.0 * (_WORDS[word] if word in _WORDS else int(word))
        rest = name
        for pattern in (_KIND, _CHANNELS, _BITS):
            rest = pattern.sub(" ", rest)
        is_all = not re.search(r"[a-z\d]", rest, re.IGNORECASE)
        return cls(n_bytes * float(found[2]) * 1e6, bool(channels or bits), is_all)


_AROUND = re.compile(
    r"\((?:r|tm)\)|\bmac ?book\b( pro\b| air\b)?|\bmac (mini|studio|pro)\b|\bimac\b"
    r"|\bipad\b( pro\b| air\b)?|(?<![\w-])[ied]?gpu\b|\b(asus|msi|gigabyte|zotac|evga|pny|sapphire"
    r"|xfx|tuf|powercolor|palit|gainward|asrock|inno3d|galax)\b|\b(founders|oc) edition\b",
    re.IGNORECASE,
)
"""What stands around a chip's name: a trade mark, a computer, who sells the card."""
_BANDWIDTH = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*gb/s")
_MEMORY = re.compile(r"(?<![\d.])(\d+)\s*gi?b(?!/s)\b")
_BACKENDS: tuple[tuple[str, str], ...] = (
    (r"\b(cuda|metal|rocm|vulkan|sycl|opencl|hexagon|musa|cann|cpu)\b", r"\1"),
    (r"\bhip\b", "rocm"),
    (r"nvidia|geforce|quadro|tesla|\brtx\b|\bgtx\b|jetson", "cuda"),
    (r"\bapple\b|\bm\d+( pro| max| ultra)?\b", "metal"),
    (r"instinct|\bmi\d{2,3}|\bgfx[\da-f]{3,4}\b|hygon.*(dcu|[zk]100)", "rocm"),
    (r"\bmtt\b", "musa"),
    (r"ascend", "cann"),
    (r"ddr|processor|xeon|epyc|ryzen|core ultra|threadripper|graviton|ampere altra", "cpu"),
)
"""The first pattern that a name has decides."""
USUAL_BACKEND = "vulkan"
SLOWEST = 1e9
_NPU = r"\bnpu\b|neural engine|\bxdna|\bdla\b|coral|hailo|movidius"
_WITHOUT_BACKEND = re.compile(
    rf"gaudi|\bhl-?\d{{3}}|\btpu\b|{_NPU}|inferentia|trainium|neuron|cerebras|\bwse\b|groq|\blpu\b"
    r"|sambanova|graphcore|\bipu\b|tenstorrent|wormhole|grayskull|cambricon|\bmlu ?\d|kunlun|biren"
    r"|iluvatar|metax|enflame|cloud ai ?\d|d-matrix|\bsohu|\betched|alveo|\bversal|fpga"
)
_HAS_BACKEND = re.compile(r"ascend|hexagon")
_GENERATION = re.compile(r"\b(sm_?\d{2,3}[a-z]?|compute capability [\d.]+)\b|\b0x[\da-f]{4}\b")
"""What a compiler or a driver says instead of a card's name."""


def device_meant(name: str, memory_bytes: int | None = None, backend: str | None = None) -> Match:
    """Of the table, else by what the name says. UserError where neither knows it, and for what
    cannot run llama.cpp."""
    lowered = name.lower()
    if _WITHOUT_BACKEND.search(lowered) and not _HAS_BACKEND.search(lowered):
        raise UserError(
            f"llama.cpp does not run on {name!r} with any backend that localspec knows: name a GPU"
            " or a processor"
        )
    if found := _described(name):
        return Match((found,))
    if found := cards_of_target(lowered, memory_bytes):
        return found
    try:
        return find_device(name, memory_bytes, backend)
    except UnknownDeviceError:
        bare = " ".join(_AROUND.sub(" ", name).split())
        if bare and bare != name:
            with suppress(UnknownDeviceError):
                return device_meant(bare, memory_bytes, backend)
        if processor := processor_meant(name):
            return processor
        if generation := _GENERATION.search(lowered):
            raise UserError(
                f"{generation[0]} is a number that parts of very different memory share: give the"
                " name under which the card or processor is sold"
            ) from None
        raise


def _described(name: str) -> Device | None:
    lowered = name.lower()
    said = _BANDWIDTH.search(lowered)
    rate = float(said[1]) * 1e9 if said else modules_bytes_per_s(name)
    if rate is None or rate < SLOWEST:
        return None
    device = _device(name, _backend(lowered) if said else "cpu", rate)
    processor = processor_of(name) if device.kind == "cpu" else None
    sizes = tuple(int(size) * GIB for size in _MEMORY.findall(lowered))
    flops = processor.flops_per_s if processor else None
    return replace(device, memory_bytes=sizes, fp32_flops_per_s=flops)


def modules_bytes_per_s(name: str) -> float | None:
    """Of a processor's memory that is named as modules, alone or with how many there are; what the
    table has is known from there."""
    found = Modules.named(name)
    if found is None or any(device.name.lower() == name.lower() for device in all_devices()):
        return None
    is_of_processor = found.is_all or (found.says_width and processor_of(name) is not None)
    return found.bytes_per_s if is_of_processor else None


def _backend(lowered: str) -> str:
    for pattern, backend in _BACKENDS:
        if found := re.search(pattern, lowered):
            return found.expand(backend)
    return USUAL_BACKEND


def processor_meant(name: str) -> Match | None:
    """A processor by its generation; None for one that is not known."""
    found = processor_of(name)
    if found is None:
        return None
    device = replace(
        _device(name, "cpu", found.bandwidth_bytes_per_s),
        fp32_flops_per_s=found.flops_per_s,
        same_name_bytes_per_s=(found.least_bytes_per_s, found.most_bytes_per_s),
        source="the memory that its maker supports (processors.toml)",
    )
    return Match((device,))


def _device(name: str, kind: str, bandwidth_bytes_per_s: float) -> Device:
    """Of which nothing else is known."""
    return Device(
        name=" ".join(name.split()),
        kind=kind,
        matches=(name.lower(),),
        bandwidth_bytes_per_s=bandwidth_bytes_per_s,
        fp16_flops_per_s=None,
        fp32_flops_per_s=None,
        memory_bytes=(),
        gpu_cores=None,
        note=None,
        source="the name itself",
        shares_memory=kind == "cpu",
    )


# What systems add to a processor's name: revisions, graphics, cores, instruction sets, memory.
_ADDED = re.compile(
    r"\(.*?\)|\bw/.*|\bwith .*|\b(\d+|eight|quad)-cores?\b|\b\d+th gen\b|\bmodel b\b|\brev .*"
    r"|- \d+gb|(?<![-\w])(intel|amd|raspberry)\b"
)
# What brings processors' names from systems, cpuinfo and people to one form.
_NOISE = re.compile(r"\((?:metal|cpu(?: only)?)\)|\(r\)|\(tm\)|\bcpu\b|\bprocessor\b|@.*?ghz")
_CORES = re.compile(r"(\d+)-cores?\b")
_VIRTUAL = re.compile(r"(\d+) vcpu")
FAST_FIRST = 0.7
"""Of how arithmetic grows with threads: the first have the fast cores and the higher clock."""
CORE_GBPS = 10.0
"""What one core can draw from a server's memory, about: a share of a machine has no more."""
_AMD_CORES = (
    (r"ryzen ai max\+ 395", 16), (r"ryzen 9 (pro )?\d95\d", 16), (r"ryzen 9 (pro )?[79]945hx", 16),
    (r"ryzen 9 (pro )?\d90\d", 12),
    (r"ryzen 9", 8), (r"ryzen 7", 8), (r"ryzen 5 (pro )?[123]5\d\dh?", 4), (r"ryzen 5", 6),
    (r"ryzen 3", 4), (r"embedded r1", 2),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Processor:
    """`flops_per_s` of single precision, None where the number of cores is not known."""

    kind: str
    least_bytes_per_s: float
    most_bytes_per_s: float
    flops_per_s: float | None
    n_cores: float | None = None

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """The middle of the range."""
        return sqrt(self.least_bytes_per_s * self.most_bytes_per_s)


def chip_of(name: str) -> str:
    """One name for a processor, however sources write it: all of its runs are left out at once."""
    return " ".join(_ADDED.sub(" ", _plain(name)).split()) or name


def _plain(name: str) -> str:
    plain = " ".join(_NOISE.sub(" ", name.lower()).split())
    plain = re.sub(r"\b(i[3579]) (?=\d{4,5})", r"\1-", plain)
    return re.sub(r"^m(?=\d(?![\w-]))", "apple m", plain)


def processor_of(name: str) -> Processor | None:
    """None for a processor of no known generation."""
    plain = _plain(name)
    entries = _table()["processor"]
    found = next((entry for entry in entries if re.search(entry["match"], plain)), None)
    if found is None:
        return None
    cores = _n_cores(plain)
    shared = _VIRTUAL.search(plain)
    most = float(shared[1]) * CORE_GBPS if shared else float("inf")
    return Processor(
        found["class"],
        min(most / 2, *found["gbps"]) * 1e9,
        min(most, max(found["gbps"])) * 1e9,
        cores * found["cycle"] * found["ghz"] * 1e9 if cores else None,
        cores,
    )


def _n_cores(name: str) -> float | None:
    said = _VIRTUAL.search(name) or _CORES.search(name)
    if said:
        return float(said[1])
    known: dict[str, float] = _table()["cores"]
    named = [model for model in known if re.search(rf"(?<!\w){re.escape(model)}(?!\w)", name)]
    if named:
        return known[max(named, key=len)]
    return next((float(n) for pattern, n in _AMD_CORES if re.search(pattern, name)), None)


@cache
def _table() -> dict[str, Any]:
    text = (resources.files("localspec.hardware") / "processors.toml").read_text("utf-8")
    return tomllib.loads(text)
