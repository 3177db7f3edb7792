"""A probe beside other programs waits, repeats, keeps the least, and is replaced in calm."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import sleep

import psutil
import pytest

from localspec.engine import probe
from localspec.engine.probe import ProbeSetting, kept_probe, probe_machine
from localspec.hardware import activity
from localspec.hardware.probe_results import SIZES_BYTES, Curve, Probe, ProbeNeeds, WeightCase

SETTING = ProbeSetting(n_threads=1, n_gpu_layers=0, repack=True)
CASE = WeightCase("Q4_0", 512, SIZES_BYTES[0])
NEEDS = ProbeNeeds((CASE,), ())


def measured(seconds: float, others: float) -> Probe:
    curve = Curve((float(n), seconds * n) for n in (1, 2, 4, 16))
    return Probe("2026-11-29", "made up", curve, curve, {CASE: curve}, {}, 1 / seconds, others)


class Machine:
    """Probes that a machine would give, one after the other, and whether it looks calm."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self.found: list[Probe] = []
        self.calm = True
        self.n_looks = 0
        monkeypatch.setenv("LOCALSPEC_HOME", str(home))
        monkeypatch.setattr(activity, "is_calm", self.look)
        monkeypatch.setattr(probe, "is_calm", self.look)
        monkeypatch.setattr(probe, "_measure", lambda *_, **__: self.found.pop(0))
        monkeypatch.setattr(probe, "engine_fingerprint", lambda: "an engine")

    def look(self) -> bool:
        self.n_looks += 1
        return self.calm


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def test_a_disturbed_probe_is_repeated_and_the_least_counts(machine: Machine) -> None:
    machine.calm = False
    machine.found = [measured(3.0, 0.6), measured(1.0, 0.4), measured(2.0, 0.5)]
    said: list[str] = []
    kept = probe_machine(SETTING, NEEDS, said.append)
    assert kept.weight_s[CASE][0] == (1.0, 1.0)
    assert kept.layer_s[0][1] == 1.0
    assert kept.read_bytes_per_s == 1.0
    assert kept.others_share == 0.4
    assert machine.n_looks > 1
    assert any("waiting" in sentence for sentence in said)


def test_a_disturbed_probe_stands_until_the_machine_is_calm(machine: Machine) -> None:
    machine.calm = False
    machine.found = [measured(3.0, 0.6)] * 3
    disturbed = probe_machine(SETTING, NEEDS, lambda _: None)
    assert probe_machine(SETTING, NEEDS, lambda _: None) == disturbed
    machine.calm = True
    machine.found = [measured(1.0, 0.0)]
    calm = probe_machine(SETTING, NEEDS, lambda _: None)
    assert calm.weight_s[CASE][0] == (1.0, 1.0)
    assert calm.others_share == 0.0
    assert kept_probe(SETTING) == calm
    assert probe_machine(SETTING, NEEDS, lambda _: None) == calm  # nothing left to measure


def test_a_calm_probe_is_taken_once(machine: Machine) -> None:
    machine.found = [measured(1.0, 0.02)]
    probe_machine(SETTING, NEEDS, lambda _: None)
    assert machine.n_looks == 1
    assert not machine.found


def test_replacing_measures_all_that_was_known() -> None:
    one = measured(1.0, 0.0)
    ends = WeightCase("Q8_0", 512, SIZES_BYTES[1])
    both = replace(one, weight_s={CASE: one.weight_s[CASE], ends: Curve(((1.0, 1.0),))})
    needs = ProbeNeeds((ends,), ()).with_more(ProbeNeeds.of(both))
    assert set(needs.weights) == {CASE, ends}
    assert not needs.weights_at_ends


@pytest.mark.slow
def test_a_process_that_holds_every_core_is_noticed() -> None:
    """By the system's own counters, so that the probe waits and repeats beside it."""
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(psutil.cpu_count() or 1)
    ]
    try:
        sleep(0.3)
        assert not activity.is_calm()
        watch = activity.Watch()
        sleep(0.5)
        assert watch.stop().taken_share > activity.BUSY
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_look_that_began_with_loading_saves_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each command beside a former disturbance would take half a second longer."""
    slept: list[float] = []
    monkeypatch.setattr(activity, "sleep", slept.append)
    watch = activity.Watch()
    sleep(activity.LOOK_S)
    activity.is_calm(watch)
    assert slept == [0.0]
