"""What drafts gained elsewhere, predicted from names: the study and its goals."""

from dataclasses import replace
from statistics import median

import pytest
from research.speculation.published import Gain, published_gains, scores_of

pytestmark = pytest.mark.slow


def test_published_gains_are_told_from_names_alone() -> None:
    """As the page says: the sign of nine in ten, eight of eleven losses, the size within 15 %."""
    gains = list(published_gains())
    beside_s = median(gain.beside_s for gain in gains if gain.has_model)
    found = scores_of(gain.with_server(beside_s) for gain in gains)
    assert found["rows"] > 150
    assert found["sign_right"] >= 0.9
    assert found["losses_right"] / found["losses"] >= 8 / 11
    assert found["median_error"] <= 0.15


def test_a_gain_with_a_server_s_time_is_smaller_for_draft_models_alone() -> None:
    model = Gain("a", 4, 0.5, 1.0, 1.5, 0.02, has_model=True)
    head = replace(model, has_model=False)
    assert model.with_server(0.002).predicted == pytest.approx(3 / (2 + 4 * 0.1))
    assert head.with_server(0.002) == head
    assert model.with_server(model.beside_s).predicted == pytest.approx(model.measured)
