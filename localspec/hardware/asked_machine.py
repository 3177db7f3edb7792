"""A machine as people ask for one: its devices, how many of each, and with which backend.

    "RX 7900 XTX on Vulkan"   "M4 Max CPU"   "2x RTX 3090"   "RTX 3090 + RTX 3060 + EPYC 7763"

A device has the backend that its figures are for, unless a word names another one that it runs. The
processors of several sockets stay one: nothing tells how their memory is shared.
"""

import re
from dataclasses import replace

from localspec.errors import UserError
from localspec.hardware.described import device_meant, processor_meant
from localspec.hardware.device_names import UnknownDeviceError
from localspec.hardware.devices import Match, all_devices

MOST = 16
"""Devices that layers are shared among, at most: libllama's own limit."""
_BACKEND = re.compile(
    r"\(?(?<![\w-])(?<!core )(?:(?:on|with|via|using) )?"
    r"(cuda|metal|rocm|hip|vulkan|sycl|opencl|musa|cann|cpu)(?: (?:only|backend))?(?![\w-])\)?",
    re.IGNORECASE,
)
_TOGETHER = re.compile(r"\s\+\s")
_LISTED = re.compile(r",\s+(?![^()]*\))|,(?=[a-z])(?![^()]*\))", re.IGNORECASE)
"""Commas between names, not those within parentheses."""
_COUNT = re.compile(r"(?:([1-9]\d{0,2}) ?[x\xd7] ?|(?:dual|two) )(?=[a-z\d])", re.IGNORECASE)
_COUNT_AFTER = re.compile(
    r"(?: \(?(?:[x\xd7] ?([1-9]\d{0,2})|([1-9]\d?) ?[x\xd7])\)?|(?<=\d{3})[x\xd7]([2-9]))$",
    re.IGNORECASE,
)


def devices_meant(name: str, memory_bytes: int | None = None) -> tuple[Match, ...]:
    """Every device that a name says, in order. Raises UserError, as `device_meant` does."""
    if _TOGETHER.search(name):
        return _all_of(_TOGETHER.split(name), memory_bytes)
    try:
        return _counted(name, memory_bytes)
    except UnknownDeviceError:
        parts = [part for part in _LISTED.split(name) if part.strip()]
        if len(parts) < 2:
            raise
        return _all_of(parts, memory_bytes)


def backend_asked(name: str) -> str | None:
    """The backend that a name says beside a device; None where it says none, or not alone."""
    lowered = " ".join(name.lower().split())
    said = _BACKEND.search(lowered)
    if said is None or "gb/s" in lowered or any(d.name.lower() == lowered for d in all_devices()):
        return None
    return {"hip": "rocm"}.get(said[1], said[1])


def _all_of(parts: list[str], memory_bytes: int | None) -> tuple[Match, ...]:
    return _few([match for part in parts for match in _counted(part, memory_bytes)])


def _few(found: list[Match]) -> tuple[Match, ...]:
    if len(found) > MOST:
        raise UserError(f"{len(found)} devices are more than the {MOST} that share a model")
    return tuple(found)


def _counted(name: str, memory_bytes: int | None) -> tuple[Match, ...]:
    """ "2x RTX 3090" is two of them."""
    name = " ".join(name.split())
    before, after = _COUNT.match(name), _COUNT_AFTER.search(name)
    if before:
        number, bare = before[1] or "2", name[before.end() :]
    elif after:
        number, bare = after[1] or after[2] or after[3], name[: after.start()]
    else:
        return (_one(name, memory_bytes),)
    match = _one(bare, memory_bytes)
    n = 1 if match.device and match.device.kind == "cpu" else int(number)
    return _few([match] * n)


def _one(name: str, memory_bytes: int | None) -> Match:
    """A device with the backend that its name says."""
    backend = backend_asked(name)
    if backend is None:
        return device_meant(name, memory_bytes)
    rest = " ".join(_BACKEND.sub(" ", name).split())
    if not rest:
        raise UserError(
            f"{name!r} is no device: name one, as in 'RTX 4090 on Vulkan' or 'Ryzen 9 7950X', or"
            f" give the bandwidth of its memory, as in '{name} 300 GB/s'"
        )
    if backend == "cpu":
        return processor_meant(rest) or device_meant(name, memory_bytes)
    match = device_meant(rest, memory_bytes, backend)
    first = match.candidates[0]
    if backend not in first.backends:
        others = " or ".join(first.backends)
        raise UserError(f"{first.name} does not run with {backend}: it runs with {others}")
    return Match(tuple(replace(device, kind=backend) for device in match.candidates))
