"""A draft model goes where it drafts fastest, by what was measured, or where the user says."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from localspec.engine.probe import ProbeSetting
from localspec.errors import UserError
from localspec.gguf.reader import read_header
from localspec.hardware.machine import Reported
from localspec.hardware.probe_results import AttentionCost, Curve, Probe
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import Shape, write_random_model
from localspec.prediction.probed import probe_needs
from localspec.session import draft_device, placing
from localspec.settings import Attention, Settings

GIB = 2**30
CARDS = [Reported(f"CUDA{i}", "a card", 8 * GIB, 8 * GIB, "gpu", "cuda") for i in range(2)]
Probes = dict[str, Probe]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> ModelFacts:
    path = tmp_path_factory.mktemp("draft") / "draft.gguf"
    write_random_model(path, Shape(n_layers=4, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512))
    return ModelFacts.of(read_header(path))


def probe(facts: ModelFacts, element_s: float, pass_s: float) -> Probe:
    """Of a device by its seconds for an element of a matrix, and for a pass beside them."""
    needs = probe_needs([facts], [Attention()])
    flat = Curve((float(n), element_s) for n in (1, 2, 4, 8, 16, 128))
    cost = AttentionCost(1, Curve(((1, 0.0), (1024, 1e-12))))
    return Probe(
        "2026-11-29", "a test", Curve(((1.0, pass_s),)), Curve(((1.0, 0.0),)),
        dict.fromkeys((*needs.weights, *needs.weights_at_ends), flat),
        dict.fromkeys(needs.attention, (cost,)),
    )  # fmt: skip


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Reported], Probes], None]:
    def know(cards: list[Reported], probes: Probes) -> None:
        def kept(setting: ProbeSetting) -> Probe | None:
            name = setting.device[0] if setting.device else cards[0].name if cards else ""
            return probes.get(name if setting.n_gpu_layers else "CPU")

        def graphics(names: tuple[str, ...] = (), workers: tuple[str, ...] = ()) -> list[Reported]:
            return [card for card in cards if not names or card.name in names]

        monkeypatch.setattr(draft_device, "kept_probe", kept)
        monkeypatch.setattr(draft_device, "graphics", graphics)
        monkeypatch.setattr(placing, "engine_reports", lambda: cards)

    return know


def test_auto_leaves_a_card_whose_passes_cost_more_than_a_small_model(
    facts: ModelFacts, known: Callable[[list[Reported], Probes], None]
) -> None:
    fast, slow = probe(facts, 1e-11, 1e-4), probe(facts, 1e-12, 1e-2)
    known(CARDS[:1], {"CUDA0": slow, "CPU": fast})
    placed = draft_device.draft_settings(Settings(threads=2), facts)
    assert (placed.gpu_layers, placed.device) == (0, ())
    known(CARDS[:1], {"CUDA0": fast, "CPU": slow})
    placed = draft_device.draft_settings(Settings(threads=2), facts)
    assert (placed.gpu_layers, placed.device) == (-1, ())


def test_auto_takes_the_faster_of_two_cards_and_not_a_share_of_each(
    facts: ModelFacts, known: Callable[[list[Reported], Probes], None]
) -> None:
    probes = {"CUDA0": probe(facts, 4e-11, 1e-4), "CUDA1": probe(facts, 1e-11, 1e-5)}
    known(CARDS, probes)
    placed = draft_device.draft_settings(Settings(threads=2), facts)
    assert placed.device == ("CUDA1",)


def test_auto_changes_nothing_that_was_not_measured_or_is_asked_for(
    facts: ModelFacts, known: Callable[[list[Reported], Probes], None]
) -> None:
    fast, slow = probe(facts, 1e-11, 1e-4), probe(facts, 1e-12, 1e-2)
    known(CARDS, {"CUDA0": slow, "CPU": fast})
    assert draft_device.draft_settings(Settings(threads=2), facts).device == ()
    known(CARDS[:1], {"CUDA0": fast, "CPU": slow})
    assert draft_device.draft_settings(Settings(gpu_layers=0), facts).gpu_layers == 0
    known([], {})
    assert draft_device.draft_settings(Settings(), facts).device == ()


def test_a_named_device_is_obeyed_and_a_wrong_one_refused(
    facts: ModelFacts, known: Callable[[list[Reported], Probes], None]
) -> None:
    known(CARDS, {})
    asked = Settings(draft_device="CUDA1", gpu_layers=10)
    placed = draft_device.draft_settings(asked, facts)
    assert (placed.device, placed.gpu_layers) == (("CUDA1",), -1)
    on_host = draft_device.draft_settings(replace(asked, draft_device="cpu"), facts)
    assert (on_host.device, on_host.gpu_layers) == ((), 0)
    with pytest.raises(UserError, match="no device 'CUDA7'"):
        draft_device.draft_settings(replace(asked, draft_device="CUDA7"), facts)
    shared = replace(asked, draft_device="far:50052", workers=("far:50052",))
    with pytest.raises(UserError, match="serves one model at a time"):
        draft_device.draft_settings(shared, facts)
