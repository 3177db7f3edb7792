"""Measure what this machine sustains, through the engine itself, in less than 20 seconds.

Small models with random weights stand in for real ones: thin ones of two depths give the overhead
of a pass and of a layer (intercept and slope), one large enough to leave the caches gives the time
an element of each weight type by batch width, and a thin one with a filled cache gives attention by
cache type and depth. It works alike on every backend. A child process measures; what it found is
kept, by machine, engine build and power state, and only what is missing is measured. Beside other
programs it waits, repeats and keeps the least of its times, and measures all of it again as soon as
the machine is calm.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter

from localspec.engine.child import call
from localspec.engine.cpu_ways import waiting
from localspec.engine.graphics import graphics
from localspec.engine.health import devices_text, engine_fingerprint
from localspec.format import percent
from localspec.hardware.activity import BUSY, await_calm, is_calm
from localspec.hardware.detect import power
from localspec.hardware.machine import Reported, machine_key
from localspec.hardware.probe_results import Probe, ProbeNeeds
from localspec.notify import Notify
from localspec.store import Kept

CHILD = "localspec.engine.llama.prober:probed"
REPEATS, PATIENCE_S = 2, 30.0
"""How often a disturbed probe is repeated, and after how many seconds no more."""
LIMIT_S, COMPILING_LIMIT_S = 120.0, 600.0
"""Far above what the probe takes: a machine that swaps must not hang it. A GPU's driver may compile
for minutes first."""


PROCESSOR, GRAPHICS = 0, -1
"""Layers on the GPU, of a probe."""
MODELS = 3
"""Counted up where the random models measure otherwise: what was kept of earlier ones is void."""


@dataclass(frozen=True, slots=True)
class ProbeSetting:
    """Where the probe runs; `n_gpu_layers` 0 is the processor, < 0 all layers on the GPU, or on the
    devices that are named, or on a worker (`host:port`)."""

    n_threads: int
    n_gpu_layers: int
    repack: bool
    device: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    is_mapped: bool = False
    """In place of being read into large pages."""

    @property
    def text(self) -> str:
        named = ", ".join((*self.device, *self.workers)) or "the GPU"
        where = "the processor" if self.n_gpu_layers == 0 else named
        plain = "" if self.repack else ", weights not repacked"
        return f"{where}, {self.n_threads} thread{'s' * (self.n_threads != 1)}{plain}"

    @property
    def key(self) -> str:
        """What kept results of this setting are found by, besides the machine and its devices."""
        return f"{machine_key()} {engine_fingerprint()} {self.text} {self.n_gpu_layers} {MODELS}"


def kept_probe(setting: ProbeSetting) -> Probe | None:
    """What was measured here before with this engine build, setting and power state."""
    return _kept(setting).load()


def probe_machine(
    setting: ProbeSetting, needs: ProbeNeeds, notify: Notify, *, again: bool = False
) -> Probe:
    """Everything in `needs`: from what was kept and, for the rest, by measuring now.

    `notify` hears of each stage. Raises EngineError where the engine cannot be measured.
    """
    kept = None if again else kept_probe(setting)
    if kept and kept.others_share > BUSY and is_calm():
        notify("other programs disturbed the last probe: measuring again")
        needs, kept = needs.with_more(ProbeNeeds.of(kept)), None
    taken = f"{datetime.now(UTC):%Y-%m-%d}"
    known = kept or Probe(taken=taken, setting=f"{setting.text}, {power().text}")
    missing = needs.missing_from(known)
    if missing.is_empty:
        return known
    found = _calmly_measured(setting, missing, notify, with_overhead=not known.layer_s)
    merged = _merged(known, replace(found, taken=taken))
    if found.others_share > BUSY:
        notify(
            f"other programs had {percent(found.others_share)} of the processor meanwhile, so this"
            " is slower than an idle machine; the next prediction on a calm machine measures again"
        )
    _kept(setting).save(merged)
    return merged


def _merged(known: Probe, found: Probe) -> Probe:
    return replace(
        known,
        taken=found.taken,
        pass_s=known.pass_s or found.pass_s,
        layer_s=known.layer_s or found.layer_s,
        weight_s={**known.weight_s, **found.weight_s},
        attention_s={**known.attention_s, **found.attention_s},
        read_bytes_per_s=known.read_bytes_per_s or found.read_bytes_per_s,
        others_share=max(known.others_share, found.others_share),
        link=known.link or found.link,
    )


def _calmly_measured(
    setting: ProbeSetting, needs: ProbeNeeds, notify: Notify, *, with_overhead: bool
) -> Probe:
    """When the machine is calm; else the least of a few measurements, which disturbance adds to.

    A worker may run on this machine, where it would count as another program: calm before counts.
    """
    calm = await_calm(notify)
    started_s = perf_counter()
    found = _measure(setting, needs, notify, with_overhead=with_overhead)
    if setting.workers and calm:
        return replace(found, others_share=0.0)
    for _ in range(REPEATS):
        if found.others_share <= BUSY or perf_counter() - started_s > PATIENCE_S:
            break
        notify("other programs were at work: measuring once more")
        again = _measure(setting, needs, notify, with_overhead=with_overhead)
        found = found.least(again)
    return found


def _measure(
    setting: ProbeSetting, needs: ProbeNeeds, notify: Notify, *, with_overhead: bool
) -> Probe:
    limit_s = COMPILING_LIMIT_S if setting.n_gpu_layers else LIMIT_S
    ending = call(CHILD, setting, needs, with_overhead, hear=notify, limit_s=limit_s)
    if not ending.is_success:
        ending.raise_unmeasured()
    return ending.result


def _kept(setting: ProbeSetting) -> Kept[Probe]:
    parts = setting.key + waiting()
    used = graphics(setting.device, setting.workers) if setting.n_gpu_layers else []
    parts += devices_text([each for each in used if _is_of(each, setting)])
    return Kept.of(Probe, "probe", parts)


def _is_of(device: Reported, setting: ProbeSetting) -> bool:
    return not setting.workers or device.name in setting.workers
