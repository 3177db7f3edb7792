"""The measurement of ways through the real engine, and a draft that is loaded once."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from models import smollm2

from localspec.engine import cpu_ways_question
from localspec.engine.cpu_ways import DEPTH, TRIES
from localspec.engine.cpu_ways_question import WayQuestion, measured_ways
from localspec.engine.llama import cpu_ways_prober, parameters
from localspec.engine.timing import Clock
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that runs other tests as well is given more time."""
    monkeypatch.setattr(cpu_ways_question, "MOST_S", 60.0)
    monkeypatch.setattr(cpu_ways_question, "MEASURING_S", 20.0)


@pytest.mark.usefixtures("patient")
def test_each_way_has_its_times() -> None:
    question = WayQuestion("Q8_0", (9, 3, 64), (1, 2))
    found = measured_ways(question, lambda: None)
    assert {way.key for way in found.weights["Q8_0"]} == {
        (*loading, n) for loading in question.loadings for n in (1, 2)
    }
    assert all(0 < way.read_s < way.token_s for way in found.weights["Q8_0"])
    kernels = found.attention["9/3/64"]
    assert {way.key for way in kernels} == {
        (flash, kind, "f16") for flash in (True, False) for kind in ("f16", "q8_0")
    }
    assert all(way.deep_token_s > 0 < way.deep_read_s for way in kernels)


@pytest.mark.usefixtures("patient")
def test_types_that_somebody_chose_are_measured_beside_the_usual() -> None:
    usual = WayQuestion(None, (9, 3, 64), (1,))
    chosen = replace(usual, types=("bf16", "q8_0"))
    measured_ways(usual, lambda: None)
    asked: list[bool] = []
    for question in (chosen, chosen, usual):
        found = measured_ways(question, lambda: asked.append(True))
    keys = {way.key for way in found.attention["9/3/64"]}
    assert (True, "bf16", "q8_0") in keys
    assert (False, "bf16", "q8_0") not in keys, "the plain kernel has no quantized values"
    assert (False, "f16", "f16") in keys
    assert len(asked) <= TRIES


class Slow:
    """A kernel by a clock of its own: a token takes some time, and more for each one before it."""

    def __init__(
        self, kernel: cpu_ways_prober.Kernel, slowness: float, spend: Callable[[float], None]
    ):
        is_flash, self._spend, self.held = kernel[0], spend, 0
        self.token_s = slowness * (1e-5 if is_flash else 3e-5)
        self.cell_s = slowness * (3e-7 if is_flash else 1e-7)

    def hold(self, depth: int) -> None:
        n = depth - self.held
        self._spend(n * (self.token_s + self.cell_s * (self.held + depth) / 2))
        self.held = depth

    def seconds(self, n: int, depth: int) -> float:
        self.hold(max(depth, self.held))
        seconds = n * (self.token_s + self.cell_s * depth)
        self._spend(seconds)
        return seconds

    def median(self, n: int, depth: int) -> float:
        times = [self.seconds(n, depth) for _ in range(3)]
        return times[1]


@pytest.mark.parametrize("slowness", [0.1, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("limit_s", [1.3, 2.6])
def test_kernels_are_compared_within_the_time_with_the_same_result(
    slowness: float, limit_s: float
) -> None:
    """Large heads are slow: a shorter text tells how they grow, and what is offered is left out."""
    spent = [0.0]
    usual = ("f16", "f16")

    def spend(seconds: float) -> None:
        spent[0] += seconds

    kernels = cpu_ways_prober.kernels_of(128, usual)
    timers: Any = {kernel: Slow(kernel, slowness, spend) for kernel in kernels}
    found = cpu_ways_prober.attention_times(timers, usual, Clock(limit_s, lambda: spent[0]))
    assert spent[0] <= limit_s
    assert {(flash, usual) for flash in (True, False)} <= set(found)
    for kernel, times in found.items():
        one = timers[kernel]
        deep_s = one.token_s + DEPTH * one.cell_s
        assert times == pytest.approx((one.token_s, deep_s) * 2)
    if slowness <= 1.0:
        assert set(found) == set(kernels)
        assert slowness == 1.0 or timers[kernels[0]].held == DEPTH


def test_heavy_weights_are_measured_with_fewer_layers() -> None:
    """Files of 16 bits are written and loaded in the same time as those of 4."""
    few, many = (cpu_ways_prober.n_layers_within(kind, 0.01, 1.0) for kind in ("F16", "Q4_0"))
    assert 1 <= few < many <= cpu_ways_prober.N_LAYERS
    assert cpu_ways_prober.n_layers_within("Q4_0", 0.3, 0.7) == 2, "on a slow disk"
    assert cpu_ways_prober.n_layers_within("Q4_0", 3.0, 0.7) == 1


def test_a_turn_that_would_not_fit_is_left_out() -> None:
    spent = [0.0]

    def seconds(way: int) -> float:
        spent[0] += way
        return float(way)

    clock = Clock(30.0, lambda: spent[0])
    assert cpu_ways_prober.least([4, 5], seconds, 9, clock) == {4: 4.0, 5: 5.0}
    assert spent[0] == 27.0


def test_who_is_far_behind_leaves_the_time_to_the_others() -> None:
    asked: Counter[int] = Counter()

    def seconds(way: int) -> float:
        asked[way] += 1
        return float(way)

    found = cpu_ways_prober.least([10, 11, 20], seconds, 8, Clock(1.0, lambda: 0.0))
    assert found == {10: 10.0, 11: 11.0, 20: 20.0}
    assert asked == {10: 8, 11: 8, 20: cpu_ways_prober.FEWEST_ROUNDS}


def test_target_and_draft_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: Counter[str] = Counter()
    load = parameters.load_model

    def counted(config, *rest):  # type: ignore[no-untyped-def]
        loaded[config.model.name] += 1
        return load(config, *rest)

    for module in ("engine", "parameters"):
        monkeypatch.setattr(f"localspec.engine.llama.{module}.load_model", counted)
    opened = frozenset({"flash_attn", "threads", "threads_batch", "repack", "mmap"})
    config = replace(SessionConfig.of(smollm2(), smollm2(), ctx=256), open=opened)
    with Session.open(config) as session:
        assert session.draft
    assert loaded == {smollm2().name: 2}
