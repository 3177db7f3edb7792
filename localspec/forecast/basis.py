"""Which constants the predictions for this machine use, and from where."""

from typing import Any

from localspec.engine.graphics import engine_reports
from localspec.engine.health import engine_health
from localspec.engine.probe import GRAPHICS, PROCESSOR, ProbeSetting, kept_probe
from localspec.engine.threads import default_threads
from localspec.errors import EngineError
from localspec.forecast.experience import Experience, experience_of
from localspec.gguf.types import BY_NAME
from localspec.hardware.machine import LocalDevice, local_devices
from localspec.hardware.probe_results import Probe
from localspec.notify import silent
from localspec.prediction.published import PublishedRates
from localspec.prediction.rates import Shares, WeightWork

SHOWN = ("F16", "Q8_0", "Q4_0", "Q4_K")
LAYERS = 32
"""Of a model of 7 billion weights, whose overhead is shown by layer."""


def prediction_basis() -> dict[str, Any]:
    """For the device that the engine would use: a probe's constants, else published ones."""
    devices = local_devices(engine_reports())
    graphics = [device for device in devices if device.backend != "cpu"]
    device, place = (graphics[0], GRAPHICS) if graphics else (devices[-1], PROCESSOR)
    probe, experience = _measured(place)
    source = f"a probe of {probe.taken}" if probe else _unprobed(device)
    return {
        "device": device.name,
        "source": source,
        "corrected_by": "; ".join(experience.notes) or "nothing that ran here yet",
        **_published(device),
    }


def _measured(place: int) -> tuple[Probe | None, Experience]:
    """What this machine's own probe and runs say; nothing without an engine."""
    try:
        setting = ProbeSetting(default_threads(), place, engine_health(silent).can_repack)
        return kept_probe(setting), experience_of(setting)
    except EngineError:
        return None, Experience()


def _unprobed(device: LocalDevice) -> str:
    if device.backend == "cpu" or device.match.device is None:
        return "none yet: `localspec predict` probes this machine"
    return "published runs, until `localspec predict` probes this machine"


def _published(device: LocalDevice) -> dict[str, Any]:
    """What published runs say of such a device; nothing of a processor or an unknown one."""
    if device.backend == "cpu" or device.match.device is None:
        return {}
    rates = PublishedRates.of(device.match, device.backend)
    spread = rates.spread("decode", Shares())
    ideal_s = 1e9 / rates.run.bandwidth_bytes_per_s
    shares = {
        name: round(ideal_s / rates.weights(WeightWork(BY_NAME[name], 1e9, 1e9), 1).seconds, 2)
        for name in SHOWN
    }
    return {
        "published": rates.source,
        "published_layer_us": round(1e6 * rates.overhead_s(LAYERS, 1) / LAYERS),
        "published_bandwidth_shares": shares,
        "published_interval": f"{spread.low:.2f} to {spread.high:.2f} of the prediction",
    }
