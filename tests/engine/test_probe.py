"""The probe measures through the engine, keeps what it found, and predictions can be made of it."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localspec.engine.llama.overhead import OVERHEAD_WIDTHS, least, undisturbed
from localspec.engine.llama.prober import shares
from localspec.engine.probe import ProbeSetting, _kept, kept_probe, probe_machine
from localspec.engine.timing import Clock
from localspec.errors import EngineError
from localspec.gguf.types import BY_NAME, GgmlType
from localspec.hardware.activity import Watch
from localspec.hardware.machine import memory_read_bytes_per_s
from localspec.hardware.probe_results import (
    END_WIDTHS,
    SIZES_BYTES,
    AttentionCase,
    AttentionCost,
    Curve,
    Probe,
    ProbeNeeds,
    WeightCase,
    sizes_around,
)
from localspec.model.kv import cache_type
from localspec.prediction.probed import ProbedRates
from localspec.prediction.rates import AttentionWork, WeightWork
from localspec.store import document_of, value_of

SETTING = ProbeSetting(n_threads=1, n_gpu_layers=0, repack=True)
F16, Q8 = cache_type("f16"), cache_type("q8_0")
SMALL, LARGE = SIZES_BYTES
ONE_WEIGHT = (WeightCase("Q4_0", 512, SMALL),)
PROBE = Probe(
    "2026-11-24",
    "the processor, 2 threads",
    pass_s=Curve(((1.0, 1e-5), (2.0, 2e-5))),
    layer_s=Curve(((1.0, 1e-5), (8.0, 8e-5))),
    weight_s={
        WeightCase("F16", 512, SMALL): Curve(((1.0, 0.5e-10), (4.0, 1.1e-10), (16.0, 4e-10))),
        WeightCase("F16", 512, LARGE): Curve(
            ((1.0, 1e-10), (4.0, 1.1e-10), (5.0, 2e-10), (16.0, 4e-10))
        ),
    },
    attention_s={
        AttentionCase("f16", "f16", True, 64): (
            AttentionCost(1, Curve(((1.0, 0.0), (1024.0, 1e-7)))),
        ),
        AttentionCase("f16", "f16", True, 128): (
            AttentionCost(1, Curve(((1.0, 0.0), (1024.0, 1e-8)))),
        ),
        AttentionCase("q8_0", "q8_0", True, 64): (
            AttentionCost(1, Curve(((1.0, 0.0), (1024.0, 3e-8)))),
        ),
    },
    read_bytes_per_s=20e9,
)


def test_the_probe_measures_this_machine_once(tmp_path: Path) -> None:
    stages: list[str] = []
    attention = (AttentionCase("f16", "q8_0", True, 64),)
    first = probe_machine(SETTING, ProbeNeeds(ONE_WEIGHT, attention), stages.append)
    assert stages
    assert kept_probe(SETTING) == first
    (points,) = first.weight_s.values()
    assert all(seconds > 0 for _, seconds in points)
    assert points[-1][1] > points[0][1]
    (costs,) = first.attention_s.values()
    assert costs[0].by_cells[-1][1] > costs[0].by_cells[0][1]
    assert first.layer_s[0][1] > 0
    assert (first.read_bytes_per_s or 0) > 1e8
    stages.clear()
    again = probe_machine(SETTING, ProbeNeeds(ONE_WEIGHT, ()), stages.append)
    assert (again, stages) == (first, [])


def test_what_was_measured_at_two_widths_is_measured_again_where_all_are_asked() -> None:
    """Of other quantizations, only decoding and prompts are asked."""
    at_ends = ProbeNeeds((), (), ONE_WEIGHT)
    first = probe_machine(SETTING, at_ends, lambda stage: None)
    assert [width for width, _ in first.weight_s[ONE_WEIGHT[0]]] == [*END_WIDTHS]
    assert at_ends.missing_from(first).is_empty
    everywhere = ProbeNeeds(ONE_WEIGHT, (), ONE_WEIGHT)
    assert everywhere.missing_from(first) == ProbeNeeds(ONE_WEIGHT, ())
    then = probe_machine(SETTING, everywhere, lambda stage: None)
    assert len(then.weight_s[ONE_WEIGHT[0]]) > len(END_WIDTHS)
    assert at_ends.missing_from(then).is_empty


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_stages_share_the_time_by_their_parts(parts: list[int]) -> None:
    budgets = [clock.budget_s for clock in shares(Clock(100.0, lambda: 0.0), parts)]
    assert budgets[0] == pytest.approx(100 * parts[0] / sum(parts))
    assert budgets[-1] == pytest.approx(100.0)  # nobody used any of it
    (late,) = shares(Clock(-1.0, lambda: 0.0), [3])
    assert late.left_s < 0  # over time: one way only


def test_a_damaged_cache_is_no_probe() -> None:
    kept = _kept(SETTING)
    kept.save(PROBE)
    assert kept_probe(SETTING) == PROBE
    for text in ("", "[]", "{}", '{"taken": 1}', json.dumps(document_of(PROBE))[:-30]):
        kept.path.write_text(text)
        assert kept_probe(SETTING) is None


def test_a_child_that_fails_is_one_sentence() -> None:
    needs = ProbeNeeds((WeightCase("NO_SUCH_TYPE", 512, SMALL),), ())
    with pytest.raises(EngineError, match="could not be measured"):
        probe_machine(SETTING, needs, lambda stage: None)


def test_memory_can_be_read() -> None:
    assert memory_read_bytes_per_s(1) > 1e8


def test_a_probe_survives_json() -> None:
    assert value_of(Probe, json.loads(json.dumps(document_of(PROBE)))) == PROBE


@given(st.floats(0.5, 40))
def test_a_curve_is_never_negative_and_meets_its_points(x: float) -> None:
    curve = Curve(((1.0, 3.0), (2.0, 0.0), (4.0, 8.0)))
    assert curve.at(x) >= 0
    assert [curve.at(point) for point, _ in curve] == [y for _, y in curve]
    assert Curve(((1.0, 7.0),)).at(x) == 7.0


def test_probed_rates_keep_the_cliffs() -> None:
    rates = ProbedRates(PROBE)
    work = WeightWork(F16, 2e9, 1e9)
    seconds = [rates.weights(work, n).seconds for n in (1, 4, 5, 16, 32)]
    assert seconds == pytest.approx([0.1, 0.11, 0.2, 0.4, 0.8])
    assert rates.weights(work, 1).bound == "memory"
    assert rates.weights(work, 16).bound == "compute"
    assert rates.overhead_s(10, 1) == pytest.approx(1.1e-4)


def test_experts_see_fewer_tokens_than_the_pass_has() -> None:
    """Of 8 experts' weights all are streamed; each token multiplies a quarter."""
    rates = ProbedRates(PROBE)
    dense, sparse = WeightWork(F16, 2e9, 1e9), WeightWork(F16, 2e9, 0.25e9)
    assert rates.weights(sparse, 16).seconds == rates.weights(dense, 4).seconds


def test_a_type_that_was_not_measured_is_taken_from_the_nearest() -> None:
    seconds = ProbedRates(PROBE).weights(WeightWork(BY_NAME["F32"], 4e9, 1e9), 1).seconds
    assert seconds == pytest.approx(0.2)


def test_attention_grows_with_cells_and_heads() -> None:
    rates = ProbedRates(PROBE)
    one, two, deep = (
        rates.attention(AttentionWork(heads, 2, 64, 64, cells, F16, F16), 1).seconds
        for heads, cells in ((4, 512), (8, 512), (4, 2048))
    )
    assert two == pytest.approx(2 * one)
    assert deep > 3.9 * one


def test_attention_is_that_of_the_cache_types_and_of_the_size_of_a_head() -> None:
    """On some processors half-precision keys of 64 numbers take ten times what those of 128 do."""
    rates = ProbedRates(PROBE)

    def seconds(kind: GgmlType, size: int) -> float:
        work = AttentionWork(1, 1, size, size, 1024, kind, kind)
        return rates.attention(work, 1).seconds / size

    assert seconds(F16, 64) == pytest.approx(1e-7)
    assert seconds(F16, 128) == seconds(F16, 256) == pytest.approx(1e-8)
    assert seconds(Q8, 128) == pytest.approx(3e-8)


def test_small_models_stay_in_a_large_cache() -> None:
    """A model between the probed sizes lies between them; one token notices, many do not."""
    work = WeightWork(F16, 2e9, 1e9)

    def seconds(n_bytes: float, n_tokens: int) -> float:
        return ProbedRates(PROBE).for_model(512, n_bytes).weights(work, n_tokens).seconds

    sizes = (1e6, SMALL, (SMALL * LARGE) ** 0.5, LARGE, 1e12)
    assert [seconds(size, 1) for size in sizes] == pytest.approx([0.05, 0.05, 0.075, 0.1, 0.1])
    assert {round(seconds(size, 16), 9) for size in sizes} == {0.4}


@given(st.floats(1e3, 1e13))
def test_models_are_measured_at_the_sizes_around_theirs(n_bytes: float) -> None:
    sizes = sizes_around(n_bytes)
    assert set(sizes) <= {SMALL, LARGE}
    assert (LARGE in sizes) or n_bytes < 2 * SMALL
    assert (SMALL in sizes) or n_bytes > LARGE / 2


@pytest.mark.parametrize("case", [WeightCase("Q4_K", 1024, LARGE), WeightCase("BF16", 512, SMALL)])
def test_cases_are_read_as_they_are_written(case: WeightCase) -> None:
    assert WeightCase.parse(str(case)) == case
    attention = AttentionCase("q8_0", "bf16", False, 96)
    assert AttentionCase.parse(str(attention)) == attention


def test_a_busy_neighbour_is_noticed() -> None:
    """Another process that computes counts, this one does not."""
    endless = "print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", endless], stdout=subprocess.PIPE) as neighbour:
        assert neighbour.stdout
        neighbour.stdout.readline()
        watch, used_s = Watch(), 0.0
        while used_s < 0.3:
            used_s = sum(psutil.Process(neighbour.pid).cpu_times()[:2])
        meanwhile = watch.stop()
        neighbour.kill()
    available_s = (psutil.cpu_count() or 1) * meanwhile.elapsed_s
    assert meanwhile.taken_share > 0.2 / available_s


def test_beyond_its_ends_a_curve_goes_on_as_it_is_asked() -> None:
    curve = Curve(((1.0, 2.0), (3.0, 6.0), (4.0, 6.0)))
    assert (curve.at(0.5), curve.at(8)) == (1.0, 6.0)
    assert (curve.within(0.5), curve.within(2), curve.within(8)) == (2.0, 4.0, 6.0)
    assert (curve.in_proportion(2), curve.in_proportion(8)) == (4.0, 12.0)


def test_a_narrow_pass_that_was_disturbed_takes_no_longer_than_a_wider_one() -> None:
    times = {1: 0.9, 2: 0.2, 4: 0.3, 8: 0.25, 16: 0.5}
    assert undisturbed(times) == {1: 0.2, 2: 0.2, 4: 0.25, 8: 0.25, 16: 0.5}


def test_of_two_overheads_the_calmer_counts_at_each_width() -> None:
    calm = Curve((w, 1.0) for w in OVERHEAD_WIDTHS), Curve((w, 0.1) for w in OVERHEAD_WIDTHS)
    busy = Curve((w, 3.0) for w in OVERHEAD_WIDTHS), Curve((w, 0.4) for w in OVERHEAD_WIDTHS)
    assert least(busy, calm) == least(calm, busy) == calm
