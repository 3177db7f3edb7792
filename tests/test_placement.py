"""Which device gets which layers: as libllama places them, and within what memory holds."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localspec.model.facts import ModelFacts
from localspec.prediction.placement import (
    Placement,
    Units,
    by_memory,
    experts_on_host,
    fastest_first,
)

SHARES = st.lists(st.floats(0.1, 100), min_size=1, max_size=4)


@given(st.integers(1, 80), st.integers(-1, 90), SHARES)
def test_every_layer_is_somewhere_once(n_layers: int, n: int, shares: list[float]) -> None:
    placed = Placement.of(n_layers, n, shares)
    assert placed.n_host + sum(placed.n_layers) == n_layers
    assert (placed.output is None) == (n == 0)


@pytest.mark.parametrize(
    ("n", "shares", "n_host", "layers", "output"),
    [
        (0, [1.0], 30, (0,), None),
        (1, [1.0], 30, (0,), 0),
        (10, [1.0], 21, (9,), 0),
        (-1, [24.0, 8.0], 0, (24, 6), 1),
        (-1, [0.0, 1.0], 0, (0, 30), 1),
        (2, [1.0, 1.0], 29, (1, 0), 1),
    ],
)
def test_the_output_matrix_goes_first_and_last(
    n: int, shares: list[float], n_host: int, layers: tuple[int, ...], output: int | None
) -> None:
    """One unit on a GPU is the output matrix, which is a third of a small model's bytes."""
    assert Placement.of(30, n, shares) == Placement(n_host, layers, output)


def test_the_fastest_has_all_that_it_holds() -> None:
    units = Units(30, 1e8, 5e8)
    assert fastest_first(units, -1, [10**10, 10**10], [2.0, 1.0]) == (0.0, 31.0)
    small = fastest_first(units, -1, [10**10, 16 * 10**8], [2.0, 1.0])
    assert small == (20.0, 11.0), "0.95 x 1.6 GB hold the output matrix and ten layers"


def test_without_known_memory_shares_are_equal() -> None:
    assert by_memory([None, 5]) == (1.0, 1.0)
    assert by_memory([3, 5]) == (3.0, 5.0)


def mixture(**changes: Any) -> Any:
    """Ten layers, nine tenths of whose bytes are experts."""
    even = {"n_layers": 10, "n_experts": 8, "expert_bytes": 9 * 10**9, "weights": (), **changes}
    share: Any = ModelFacts.expert_share
    facts = SimpleNamespace(**even, expert_layer_bytes=())
    facts.expert_share = partial(share, facts)
    return facts


@pytest.mark.parametrize(
    ("free", "n_kept"),
    [
        (11 * 10**9, 0),  # everything fits
        (6 * 10**9, 5),  # 10 GB needed, 5.7 usable: five layers of 0.9 GB stay
        (2 * 10**9, 9),
        (10**9, 0),  # not even the rest fits: layers are shared out
        (None, 0),
    ],
)
def test_experts_stay_first_and_as_few_as_must(free: int | None, n_kept: int) -> None:
    assert experts_on_host(mixture(), 10**10, [free]) == n_kept
    assert experts_on_host(mixture(n_experts=0), 10**10, [free]) == 0
