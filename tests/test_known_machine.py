"""A processor as an earlier probe left it: models keep their order, whatever was probed for one."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import localspec

from localspec.engine import probe as probing
from localspec.engine.base import EngineConfig
from localspec.forecast import experience as kept
from localspec.forecast.experience import Experience, model_key
from localspec.forecast.forecast import Expectation
from localspec.forecast.known_machine import KnownMachine, RoughRates
from localspec.forecast.known_models import known_facts
from localspec.forecast.recommend import USES, known_speed, recommendations
from localspec.hardware.probe_results import AttentionCost, Curve, Probe
from localspec.model.facts import ModelFacts
from localspec.prediction.probed import ProbedRates, probe_needs
from localspec.registry.catalog import load_catalog
from localspec.session import calibration
from localspec.settings import Attention, Settings

CATALOG = load_catalog()
STARTER = known_facts(CATALOG["starter"]) or pytest.fail("the starter has a header")
WIDTHS = (1, 2, 4, 8, 16, 128)


def probe(layer_s: float = 1e-5, element_s: float = 4e-11, read: float | None = 4e10) -> Probe:
    """For the starter alone; a pass of 128 tokens takes as long as 30 of one."""
    needs = probe_needs([STARTER], [Attention()])
    curve = Curve((float(n), element_s * (1 + n * 29 / 128)) for n in WIDTHS)
    cost = AttentionCost(1, Curve(((1, 0.0), (1024, 3e-7))))
    return Probe(
        "2026-11-29", "a test", Curve(((1.0, 1e-5), (128.0, 1e-5))),
        Curve(((1.0, layer_s), (128.0, 40 * layer_s))),
        dict.fromkeys((*needs.weights, *needs.weights_at_ends), curve),
        dict.fromkeys(needs.attention, (cost,)), read,
    )  # fmt: skip


def machine(known: Probe, experience: Experience | None = None) -> KnownMachine:
    rates, gb = ProbedRates(known), 10**9
    return KnownMachine(
        "a processor", 24 * gb, 22 * gb, rates, experience=experience or Experience()
    )


def speed(name: str, of: KnownMachine) -> float:
    found = known_speed(CATALOG[name], of)
    assert found
    return found.mid


def facts_of(name: str) -> ModelFacts:
    return known_facts(CATALOG[name]) or pytest.fail(f"{name} has a header")


SMALLER_FIRST = ("starter", "smollm2-360m", "qwen3-0.6b", "qwen3-4b", "qwen3-8b", "qwen3-14b")


@pytest.mark.parametrize("layer_s", [1e-5, 7e-4], ids=["calm", "beside a busy program"])
def test_a_smaller_model_is_never_slower(layer_s: float) -> None:
    """A barrier beside a busy core made a layer take 70 times as long, of one model alone."""
    speeds = [speed(name, machine(probe(layer_s))) for name in SMALLER_FIRST]
    assert speeds == sorted(speeds, reverse=True)


def test_what_ran_here_corrects_all_models_and_its_own_most() -> None:
    ran = Experience().with_run(STARTER, 0.5)
    plain, taught = machine(probe()), machine(probe(), ran)
    gains = [speed(name, taught) / speed(name, plain) for name in SMALLER_FIRST]
    assert gains[0] > gains[1] > 1
    assert len({round(gain, 9) for gain in gains[1:]}) == 1
    assert gains[0] < 2


def test_a_probe_of_other_types_promises_a_first_token_in_a_wide_interval() -> None:
    offers = {
        o.entry.name: o for o in recommendations([*CATALOG.values()], machine(probe()), USES[0])
    }
    offer = offers["qwen3-4b"]
    assert offer.first_token
    assert offer.first_token.low < offer.first_token.mid / 2
    assert offer.first_token.high > 2 * offer.first_token.mid
    fast = {o.entry.name: o for o in recommendations(
        [*CATALOG.values()], machine(probe(element_s=1e-11)), USES[0])}  # fmt: skip
    assert fast["qwen3-4b"].first_token
    assert fast["qwen3-4b"].first_token.mid < offer.first_token.mid, "its prompts were read faster"


def test_a_probe_that_could_not_read_memory_still_predicts() -> None:
    assert speed("qwen3-8b", machine(probe(read=None))) > 0


def test_of_an_unprobed_processor_prompts_are_what_processors_reach() -> None:
    """Of 71 public processors a prompt is read 3 to 10 times as fast as text is written."""
    rates = RoughRates.of_read(4e10)
    roofline = KnownMachine("a", 1, 1, rates).roofline(facts_of("qwen3-8b"), Attention())
    assert roofline
    assert 3 < roofline.prefill(512).mid / roofline.decode(0).mid < 10


# --- what is learned of runs -------------------------------------------------------------------


def test_a_probe_that_is_measured_again_forgets_what_ran_beside_the_old_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCALSPEC_HOME", str(tmp_path))
    monkeypatch.setattr(probing, "engine_fingerprint", lambda: "an engine")
    now = [probe(7e-4)]
    monkeypatch.setattr(kept, "kept_probe", lambda _: now[0])
    config = EngineConfig(tmp_path / "m.gguf", Settings(threads=2, gpu_layers=0))
    kept.remember(config, STARTER, 1.0, 0.25)
    setting = kept.ProbeSetting(config.n_threads, 0, config.settings.repack)
    assert kept.experience_of(setting).ratios == {model_key(STARTER): 0.25}
    now[0] = replace(now[0], weight_s={})
    assert kept.experience_of(setting).n_models == 1, "more types do not change its overhead"
    now[0] = probe()
    assert kept.experience_of(setting).n_models == 0


@pytest.mark.parametrize(("taken", "is_kept"), [(0.02, True), (0.5, False)])
def test_a_session_beside_other_programs_teaches_later_predictions_nothing(
    monkeypatch: pytest.MonkeyPatch, taken: float, is_kept: bool
) -> None:
    class Watch:
        def stop(self) -> SimpleNamespace:
            return SimpleNamespace(taken_share=taken)

    taught: list[float] = []
    rates = RoughRates.of_read(4e10)
    roofline = KnownMachine("a", 1, 1, rates).roofline(STARTER, Attention())
    curve = calibration.PassCurve((calibration.Point(1, 0.01),))
    monkeypatch.setattr(calibration, "Watch", Watch)
    monkeypatch.setattr(kept, "remember", lambda *found: taught.append(found[-1]))
    monkeypatch.setattr(calibration, "calibration_path", lambda *_: Path("none"))
    monkeypatch.setattr(Expectation, "of", lambda *_: Expectation(roofline, None))
    target = SimpleNamespace(config=None)
    store = calibration.LearnedStore(SimpleNamespace(facts=STARTER, max_draft=4), target, None)
    store._kept = SimpleNamespace(save=lambda _: None)
    store.learned = calibration.Learned(calibration.PassCosts(curve))
    store.learned.target.learn(1, 0, 0.01)
    store.keep()
    assert bool(taught) == is_kept


def test_known_models_have_a_speed_on_a_machine_that_was_never_probed(tmp_path: Path) -> None:
    """What a new user sees first: half a second of memory says more than a column of dashes."""
    run = localspec("list", "--known", "--json", LOCALSPEC_HOME=str(tmp_path))
    assert run.code == 0, run.stderr
    known = {row["name"]: row for row in run.document["models"] if row["weight_bytes"]}
    assert all(row["predicted_tps"] > 0 for row in known.values())
    assert known["starter"]["predicted_tps"] > known["smollm2-1.7b"]["predicted_tps"]
