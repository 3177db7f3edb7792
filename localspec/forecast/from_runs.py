"""A machine as measured runs tell of it: one of the table, this one, or one that only they know.

B is predicted from A's runs where both were measured with other models: what the runs of B have in
common is the machine's, and what A's run of the model took beside its own prediction the model's.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from localspec.errors import UserError
from localspec.forecast.corrections import NOMINAL, Corrections, MeasuredRun
from localspec.forecast.experience import Experience, model_key
from localspec.forecast.machine import MachineChoice, PredictedMachine
from localspec.hardware.asked_machine import backend_asked, devices_meant
from localspec.hardware.devices import all_devices
from localspec.hardware.machine import machine_key
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.efficiency import load
from localspec.prediction.evidence import PROBED, Evidence, Spreads
from localspec.prediction.published import PublishedRates
from localspec.prediction.rates import Test


def named_by_runs(choice: MachineChoice, runs: Sequence[MeasuredRun]) -> MachineChoice:
    """With the table's name of a device where the runs tell which one an open name means."""
    if choice.device is None or _table_names(choice.device):
        return choice
    named = {run.table_device for run in runs if is_named(choice.device, run)}
    device = next(iter(named), None)
    return replace(choice, device=device.name) if device and len(named) == 1 else choice


def only_runs_know(choice: MachineChoice, runs: Sequence[MeasuredRun]) -> PredictedMachine | None:
    """A device that is not in the table, by the runs of it; None where the table has it."""
    if choice.device is None or _table_names(choice.device):
        return None
    named = sorted({run.device for run in runs if is_named(choice.device, run)})
    if not named:
        return None
    if len(named) > 1:
        raise UserError(
            f"{choice.device!r} can be {', '.join(named)} of the results: give more of the name"
        )
    return PredictedMachine(
        name=named[0],
        source="not known",
        rates=NOMINAL,
    )


def with_runs(
    machine: PredictedMachine,
    choice: MachineChoice,
    runs: Sequence[MeasuredRun],
    models: Sequence[ModelFacts],
    notify: Notify,
) -> PredictedMachine:
    """The machine, corrected by the runs of it and by those of the models elsewhere."""
    here, name = machine_key(), choice.device
    backend = backend_asked(name) if name else None

    def is_own(run: MeasuredRun) -> bool:
        if backend not in (None, run.backend):
            return False
        return is_named(name, run) if name else here == run.machine_key

    own = [run for run in runs if is_own(run)]
    machine = _with_backend(machine, own)
    is_published = isinstance(machine.rates, PublishedRates) or machine.rates is NOMINAL
    probed: dict[Test, Spreads] = {"decode": PROBED, "prefill": PROBED}
    spreads = dict(load().shared) if is_published else probed
    found = Corrections.of(runs, machine.rates, is_own, models, spreads)
    if not own and not any(run.is_of(facts) for run in runs for facts in models):
        notify("no run is of that machine, and none of this model: nothing is corrected")
        return machine
    if isinstance(machine.experience, Experience):
        found = found.with_evidence(_of_here(machine.experience, models))
    notes = (*(note for note in machine.notes if note not in machine.experience.notes),)
    return replace(machine, experience=found, notes=(*notes, *found.notes))


def is_named(name: str, run: MeasuredRun) -> bool:
    """Whether a person's name for a device means that of a run."""
    device, meant = run.table_device, _table_names(name)
    if device and meant:
        return device.name in meant
    said = run.device.lower()
    return all(word in said for word in name.lower().split())


def _table_names(name: str) -> frozenset[str]:
    """Of one device; a name of several means none of its runs."""
    try:
        found = devices_meant(name)
    except UserError:
        return frozenset()
    candidates = found[0].candidates if len(found) == 1 else ()
    known = {device.name for device in all_devices() if device.kind != "cpu"}
    return frozenset(device.name for device in candidates) & known


def _with_backend(machine: PredictedMachine, own: Sequence[MeasuredRun]) -> PredictedMachine:
    """A device runs with more than one backend: with the one that it was measured with."""
    rates = machine.rates
    used = Counter(run.backend for run in own if run.backend != "cpu").most_common(1)
    if not isinstance(rates, PublishedRates) or not used or used[0][0] == rates.run.backend:
        return machine
    return replace(machine, rates=rates.with_backend(used[0][0]))


def _of_here(experience: Experience, models: Sequence[ModelFacts]) -> list[Evidence]:
    """What ran here before, with the models in question under their labels."""
    labels = {model_key(facts): f"asked {i}" for i, facts in enumerate(models)}
    return [replace(each, model=labels.get(each.model, each.model)) for each in experience.evidence]
