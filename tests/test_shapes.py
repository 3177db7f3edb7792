"""Shapes that published runs are fitted with agree with the catalogue's configurations."""

import pytest
from research.efficiency.shapes import Shape, shape_of

from localspec.forecast.known_models import known_facts
from localspec.model.facts import ModelFacts
from localspec.registry.catalog import Entry, load_catalog


def known() -> list[tuple[Entry, ModelFacts, Shape]]:
    found: list[tuple[Entry, ModelFacts, Shape]] = []
    for entry in load_catalog().values():
        facts = known_facts(entry)
        if facts is None or entry.name.endswith("-mtp"):
            continue
        shape = shape_of(entry.title, facts.n_params, is_mixture=facts.n_experts > 0)
        if shape:
            found.append((entry, facts, shape))
    return found


CASES = known()


def test_most_of_the_catalogue_has_a_shape() -> None:
    assert len(CASES) > 40


@pytest.mark.parametrize(
    ("entry", "facts", "shape"), CASES, ids=[entry.name for entry, *_ in CASES]
)
def test_a_shape_is_that_of_the_configuration(
    entry: Entry, facts: ModelFacts, shape: Shape
) -> None:
    assert shape.n_params == pytest.approx(facts.n_params, rel=0.05)
    assert (shape.n_layers, shape.n_embd) == (facts.n_layers, facts.n_embd)
    read = [layer for layer in facts.layers if layer.attends]
    each = [2 * layer.n_kv_heads * (layer.key_size + layer.value_size) for layer in read]
    assert shape.kv_bytes == pytest.approx(sum(each), rel=0.05)
    windowed = sum(n for n, layer in zip(each, read, strict=True) if layer.window_tokens)
    assert shape.windowed_share == pytest.approx(windowed / sum(each), abs=0.1)
    if facts.state_bytes and facts.state_bytes > 1e7:
        assert shape.state_bytes == pytest.approx(facts.state_bytes, rel=0.02)
    assert (shape.n_experts, shape.n_used) == (facts.n_experts, facts.n_experts_used)
    experts = sum(group.n_elements for group in facts.weights if group.is_expert)
    assert shape.expert_params == pytest.approx(experts, rel=0.03)
