"""Which quantization `pull` takes: it fits if one does, and more room never makes it worse."""

from pathlib import Path

import pytest
from babbling import write_babbling_model
from command import localspec
from hub import Hub
from hypothesis import given
from hypothesis import strategies as st

from localspec.forecast.machine import MachineChoice
from localspec.forecast.recommend import COMFORTABLE_TPS
from localspec.gguf.reader import read_header
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import Shape, write_random_model
from localspec.prediction.quants import QUANTS, quant_named
from localspec.prediction.rates import Speed
from localspec.registry.variants import Variant
from localspec.session.pull_choice import QuantizationOffer, _best, _loss, _reasons, choose

SHAPE = Shape(n_layers=1, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=320)
N_WEIGHTS = 8e9
BITS = {"Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.7, "Q4_K_M": 4.9, "Q3_K_M": 4.0, "Q2_K": 3.3}


def offers(bandwidth_bytes_per_s: float | None) -> list[QuantizationOffer]:
    """An 8B model in the usual quantizations, at a speed that its size gives."""
    made: list[QuantizationOffer] = []
    for quant in QUANTS:
        if quant.name in BITS:
            size = round(N_WEIGHTS * BITS[quant.name] / 8)
            rate = bandwidth_bytes_per_s and bandwidth_bytes_per_s / size
            speed = Speed(0.8 * rate, rate, 1.2 * rate) if rate else None
            variant = Variant(quant.name, f"m-{quant.name}.gguf", size)
            made.append(QuantizationOffer(variant, quant, size + 10**9, speed))
    return made


@pytest.mark.parametrize(
    ("bandwidth", "free", "kind"),
    [
        (1000e9, 24e9, "Q8_0"),  # an RTX 4090: the best that there is
        (1000e9, 8e9, "Q6_K"),
        (120e9, 16e9, "Q5_K_M"),  # a laptop with an Apple M: what still writes 20 tokens a second
        (20e9, 24e9, "Q4_K_M"),  # two cores: nothing is fast, so what everyone takes
        (20e9, 4.6e9, "Q2_K"),
        (None, 24e9, "Q4_K_M"),
        (1000e9, 2e9, "Q2_K"),  # nothing fits: the smallest, and it says so
    ],
)
def test_what_a_person_would_take(bandwidth: float | None, free: float, kind: str) -> None:
    made = offers(bandwidth)
    best = _best(made, int(free))
    assert best.variant.type == kind
    sentence = _reasons(best, made, int(free))[0]
    assert kind in sentence
    assert ("does not fit" in sentence) == (best.needed_bytes > free)


rates = st.floats(5e9, 2e12)
rooms = st.integers(10**9, 40 * 10**9)


@given(rates, rooms, rooms)
def test_more_room_or_speed_never_costs_quality(rate: float, a: int, b: int) -> None:
    made, small, large = offers(rate), min(a, b), max(a, b)
    best = _best(made, small)
    if any(offer.needed_bytes <= small for offer in made):
        assert best.needed_bytes <= small
        speeds = [o.speed.mid for o in made if o.speed and o.needed_bytes <= small]
        if best.speed and best.speed.mid < COMFORTABLE_TPS:
            assert all(speed < COMFORTABLE_TPS for speed in speeds)
        assert _loss(_best(made, large)) <= _loss(best)


@pytest.mark.slow
def test_a_repository_without_a_file_gets_one_with_reasons(hub: Hub, tmp_path: Path) -> None:
    for kind in ("Q4_0", "Q8_0"):
        hub.add("owner/repo-GGUF", f"model-{kind}.gguf", model(tmp_path, kind).read_bytes())
    hub.add("owner/repo-GGUF", "README.md", b"# Model")
    arguments = ("pull", "hf:owner/repo-GGUF", "--probe", "off", "--json")
    run = localspec(*arguments, **hub.environment(tmp_path / "hf"))
    assert run.code == 0, run.stderr
    (file,) = run.document["files"]
    assert Path(file["path"]).name == "model-Q8_0.gguf"
    assert "Q8_0 (0.00 GB) fits" in run.stderr
    assert "no prediction of speed" in run.stderr


def test_the_reasons_are_the_prediction_s(tmp_path: Path) -> None:
    facts = ModelFacts.of(read_header(model(tmp_path, "Q4_0")))
    variants = [Variant("Q4_0", "m-Q4_0.gguf", 10**6), Variant("Q8_0", "m-Q8_0.gguf", 2 * 10**6)]
    heard: list[str] = []
    choice = choose(variants, facts, None, MachineChoice(device="RTX 4090"), heard.append)
    assert choice is not None
    assert choice[0].type == "Q8_0"
    assert "tok/s predicted" in choice[1][0]
    assert heard == []


def model(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.gguf"
    write_babbling_model(path, SHAPE, kind)
    return path


def test_dynamic_and_rare_quantizations_are_weighed_too() -> None:
    """Repositories that have only these would else be chosen from by size alone."""
    named = {
        "UD-Q4_K_XL": "Q4_K_M", "Q4_K_L": "Q4_K_M", "UD-Q5_K_XL": "Q5_K_M", "Q6_K_L": "Q6_K",
        "UD-Q8_K_XL": "Q8_0", "UD-Q2_K_XL": "Q2_K", "UD-Q3_K_XL": "Q3_K_L", "Q3_K_L": "Q3_K_L",
        "UD-IQ2_XXS": "IQ2_XXS", "UD-IQ3_XXS": "IQ3_XXS", "BF16": "F16", "F16": "F16",
    }  # fmt: skip
    for name, counts_as in named.items():
        quant = quant_named(name)
        assert quant is not None, name
        assert quant.name == counts_as
    assert quant_named("Q9_Z") is quant_named("") is quant_named("APEX-MINI") is None


def test_a_repository_of_dynamic_quantizations_has_one_chosen(tmp_path: Path) -> None:
    write_random_model(tmp_path / "m.gguf", SHAPE)
    facts = ModelFacts.of(read_header(tmp_path / "m.gguf"))
    kinds = {"UD-Q8_K_XL": 9_000, "UD-Q4_K_XL": 5_000, "UD-Q2_K_XL": 3_000, "APEX-MINI": 1}
    found = [Variant(kind, f"m-{kind}.gguf", size) for kind, size in kinds.items()]
    choice = choose(found, facts, None, MachineChoice(probe="off"), lambda text: None)
    assert choice is not None
    assert choice[0].type == "UD-Q4_K_XL", "nothing tells speed: what everyone takes"
    assert "UD-Q8_K_XL" in choice[1][1]
