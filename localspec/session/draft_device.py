"""Where a draft model computes: beside its target, on the device that was named, or where probes
say that it drafts faster.

A draft waits for each of its tokens, so what a pass takes besides its arithmetic counts more than
bandwidth: a processor, or the smaller of two cards, may be faster. `auto` asks probes that are kept
and measures none.
"""

from dataclasses import replace

from localspec.engine.graphics import graphics
from localspec.engine.probe import GRAPHICS, PROCESSOR, ProbeSetting, kept_probe
from localspec.engine.threads import default_threads
from localspec.engine.workers import Worker, addresses_of
from localspec.errors import UserError
from localspec.forecast.machine import CLEARLY, Peer, Peers, Rates, rates_for
from localspec.hardware.machine import Reported
from localspec.hardware.probe_results import Probe
from localspec.model.facts import ModelFacts
from localspec.prediction.probed import ProbedRates, probe_needs
from localspec.prediction.roofline import Roofline, Share
from localspec.session.placing import PROCESSOR_NAME, check_devices, own_devices
from localspec.settings import AUTO, Settings


def draft_settings(settings: Settings, facts: ModelFacts) -> Settings:
    """The target's settings as its draft has them. Raises UserError for a device that is not there,
    or a worker that the target has."""
    # A worker serves one engine at a time.
    beside = replace(settings, workers=(), device=own_devices(settings))
    name = settings.draft_device
    if name == AUTO:
        name = faster_device(beside, facts)
    return _on(name, beside, settings) if name else beside


def faster_device(beside: Settings, facts: ModelFacts) -> str | None:
    """Where one token of the draft is predicted to be clearly faster; None: as it is, or nobody
    knows. `--gpu-layers 0` keeps the draft to the processor, too."""
    used = graphics(beside.device) if beside.gpu_layers else []
    peers = [_peer(each, beside, facts, is_only=len(used) == 1) for each in used]
    host = kept_probe(ProbeSetting(_threads(beside), PROCESSOR, beside.repack))
    known = [peer for peer in peers if peer]
    if not used or len(known) < len(used):
        return None
    seconds = {peer.name: _token_s(peer.rates, facts, beside) for peer in known}
    if host and _knows(host, facts, beside):
        seconds[PROCESSOR_NAME] = _token_s(ProbedRates(host), facts, beside)
    fastest = min(seconds, key=lambda name: seconds[name])
    # With the layers where libllama puts them.
    shared = Peers(tuple(known), None, -1, "memory", beside.ctx or 4096)
    roofline = shared.roofline(facts, beside.attention, lambda rates: rates_for(facts, rates))
    now_s = roofline.seconds(1, 0)
    return fastest if now_s > CLEARLY * seconds[fastest] else None


def _on(name: str, beside: Settings, target: Settings) -> Settings:
    if name.upper() == PROCESSOR_NAME:
        return replace(beside, device=(), gpu_layers=0)
    if ":" not in name:
        placed = replace(beside, device=(name,), gpu_layers=-1)
    elif Worker.of(name).address in addresses_of(target.workers):
        raise UserError(
            f"--draft-device {name} is among --workers, and a worker serves one model at a time:"
            " start another one there with `localspec worker`"
        )
    else:
        placed = replace(beside, device=(), workers=(name,), gpu_layers=-1)
    check_devices(placed)
    return placed


def _peer(device: Reported, beside: Settings, facts: ModelFacts, *, is_only: bool) -> Peer | None:
    """A device whose kept probe knows the draft. The only one is probed without its name."""
    names = () if is_only and not beside.device else (device.name,)
    probe = kept_probe(ProbeSetting(_threads(beside), GRAPHICS, beside.repack, names))
    if probe is None or not _knows(probe, facts, beside):
        return None
    return Peer.probed(device.name, probe, device.free_bytes)


def _threads(beside: Settings) -> int:
    return beside.threads or default_threads()


def _knows(probe: Probe, facts: ModelFacts, beside: Settings) -> bool:
    return probe_needs([facts], [beside.attention]).missing_from(probe).is_empty


def _token_s(rates: Rates, facts: ModelFacts, beside: Settings) -> float:
    share = Share(rates_for(facts, rates), facts.n_layers)
    return Roofline(facts, (share,), beside.attention).seconds(1, 0)
