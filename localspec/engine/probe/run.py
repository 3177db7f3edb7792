"""The probe's front: what is known, what is missing, and the child process that measures it."""

import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from localspec import paths
from localspec.engine.child import run_module
from localspec.engine.health import engine_fingerprint
from localspec.errors import EngineError
from localspec.hardware.activity import DISTURBING
from localspec.hardware.machine import machine_key, power
from localspec.hardware.probe_results import END_WIDTHS, AttentionCase, Probe, WeightCase
from localspec.notify import Notify
from localspec.store import Kept, hashed

CHILD = "localspec.engine.probe.child"
LIMIT_S = 120.0
"""Far above what the probe takes: a machine that swaps must not hang it."""

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""How threads wait for each other decides how fast small models are."""


@dataclass(frozen=True, slots=True)
class ProbeSetting:
    """Where the probe runs; `n_gpu_layers` 0 is the processor, < 0 all layers on the GPU."""

    n_threads: int
    n_gpu_layers: int
    repack: bool

    @property
    def text(self) -> str:
        where = "the processor" if self.n_gpu_layers == 0 else "the GPU"
        plain = "" if self.repack else ", weights not repacked"
        return f"{where}, {self.n_threads} thread{'s' * (self.n_threads != 1)}{plain}"


@dataclass(frozen=True, slots=True)
class ProbeNeeds:
    """What a prediction asks for: weights at all widths of a batch, or only for one token and for
    long prompts."""

    weights: tuple[WeightCase, ...]
    attention: tuple[AttentionCase, ...]
    weights_at_ends: tuple[WeightCase, ...] = ()

    def missing_from(self, probe: Probe) -> "ProbeNeeds":
        known = probe.weight_s
        weights = tuple(c for c in self.weights if len(known.get(c, ())) <= len(END_WIDTHS))
        return ProbeNeeds(
            weights,
            tuple(case for case in self.attention if case not in probe.attention_s),
            tuple(c for c in self.weights_at_ends if c not in known and c not in weights),
        )

    @property
    def is_empty(self) -> bool:
        return not self.weights and not self.attention and not self.weights_at_ends


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
    taken = f"{datetime.now(UTC):%Y-%m-%d}"
    known = kept or Probe(taken=taken, setting=f"{setting.text}, {power().text}")
    missing = needs.missing_from(known)
    if missing.is_empty:
        return known
    found = _measure(setting, missing, notify, with_overhead=not known.layer_s)
    merged = replace(
        known,
        taken=taken,
        pass_s=known.pass_s or found.pass_s,
        layer_s=known.layer_s or found.layer_s,
        weight_s={**known.weight_s, **found.weight_s},
        attention_s={**known.attention_s, **found.attention_s},
        read_bytes_per_s=known.read_bytes_per_s or found.read_bytes_per_s,
        others_share=max(known.others_share, found.others_share),
    )
    if found.others_share > DISTURBING:
        notify(
            f"other programs had {found.others_share:.0%} of the processor meanwhile, so this is"
            " slower than an idle machine: `localspec predict --probe again` repeats it"
        )
    _kept(setting).save(merged)
    return merged


def _measure(
    setting: ProbeSetting, needs: ProbeNeeds, notify: Notify, *, with_overhead: bool
) -> Probe:
    asked = {
        "weights": [str(case) for case in needs.weights],
        "weights_at_ends": [str(case) for case in needs.weights_at_ends],
        "attention": [str(case) for case in needs.attention],
        "with_overhead": with_overhead,
    }
    request = json.dumps(asdict(setting) | asked)
    found: list[Probe] = []

    def on_line(line: str) -> None:
        kind, _, rest = line.partition(" ")
        if kind == "stage":
            notify(rest)
        elif kind == "found":
            found.append(Probe.from_json(json.loads(rest)))

    ending = run_module(CHILD, [request], on_line, LIMIT_S)
    ending.raise_known()
    if not ending.is_success or not found:
        raise EngineError(
            f"the engine could not be measured ({ending.reason}): `localspec doctor` explains it"
        )
    return found[0]


def _kept(setting: ProbeSetting) -> Kept[Probe]:
    parts = f"{machine_key()} {engine_fingerprint()} {setting.text} {setting.n_gpu_layers}"
    parts += "".join(f" {os.environ.get(name)}" for name in WAITING)
    return Kept(hashed(paths.cache_dir() / "probe", parts), Probe.from_json, Probe.to_json)
