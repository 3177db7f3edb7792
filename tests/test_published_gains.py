"""What drafts gained elsewhere, predicted from names: the study and its goals."""

from dataclasses import replace

import pytest
from research.speculation.published import Gain, published_gains, scores_of, server_s, sure_from

pytestmark = pytest.mark.slow


def test_published_gains_are_told_from_names_alone() -> None:
    """As the page says: the sign of nine in ten, 20 of 29 losses, the size within 15 %."""
    gains = list(published_gains())
    found = scores_of(gain.with_server(server_s(gains, gain.source)) for gain in gains)
    assert found["rows"] > 150
    assert found["sign_right"] >= 0.9
    assert found["losses_right"] >= 20
    assert found["median_error"] <= 0.15


def test_a_server_s_time_is_learned_from_other_sources_each_one_voice() -> None:
    gain = Gain("a", 4, 0.5, 1.0, 1.5, 0.02, has_model=True, source="one")
    slower = replace(gain, measured=0.5, source="two")
    heads = replace(slower, has_model=False, source="three")
    assert server_s([gain] * 5 + [slower, heads], "two") == pytest.approx(gain.beside_s)
    assert server_s([gain] * 5 + [slower, heads], "one") == pytest.approx(slower.beside_s)
    assert server_s([gain], "one") == 0.0


def test_a_gain_is_sure_from_where_nine_in_ten_gained() -> None:
    lost = Gain("a", 4, 0.5, 0.9, 1.1, 0.02, has_model=True)
    gained = [replace(lost, measured=1.4, predicted=1.2 + i / 100) for i in range(9)]
    assert sure_from([lost, *gained]) == 1.1
    assert sure_from([lost, lost, *gained[:4]]) == 1.2


def test_a_gain_with_a_server_s_time_is_smaller_for_draft_models_alone() -> None:
    model = Gain("a", 4, 0.5, 1.0, 1.5, 0.02, has_model=True)
    head = replace(model, has_model=False)
    assert model.with_server(0.002).predicted == pytest.approx(3 / (2 + 4 * 0.1))
    assert head.with_server(0.002) == head
    assert model.with_server(model.beside_s).predicted == pytest.approx(model.measured)
