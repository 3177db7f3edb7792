"""Timed passes: the cache stays as it was, and compared things take turns."""

from collections.abc import Sequence

import pytest
from fakes import FakeEngine, FakeLogits
from hypothesis import given
from hypothesis import strategies as st

from localspec.engine.base import Request
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.timing import Timer, made_up_tokens, there_and_back


class Clocked(FakeEngine):
    """A pass takes a second, and a second more for each of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.busy_s = 0.0
        self.interrupt = Interrupt()
        self.passes: list[list[int]] = []

    def decode(self, requests: Sequence[Request]) -> list[FakeLogits]:
        for _, tokens, _ in requests:
            self.busy_s += 1 + len(tokens)
            self.passes.append(list(tokens))
        return super().decode(requests)


def timer() -> Timer:
    return Timer(Clocked().context())  # type: ignore[arg-type]


@given(st.integers(1, 9), st.integers(0, 40))
def test_a_pass_is_timed_without_what_fills_the_cache_and_leaves_no_trace(
    n: int, depth: int
) -> None:
    one = timer()
    assert one.seconds(n, depth) == 1 + n
    assert one.token_s(n, depth) == 2
    assert one.context.tokens == made_up_tokens(8, depth)


def test_filling_reads_only_what_is_missing() -> None:
    one = timer()
    assert one.hold(30) == 31
    assert one.hold(40) == 11
    one.hold(10)
    assert one.context.tokens == made_up_tokens(8, 40)[:10]


def test_turns_take_other_tokens_and_the_same_ones_for_everybody() -> None:
    """Experts are chosen by token; two settings are compared on the same ones."""
    first, second = timer(), timer()
    for one in (first, second):
        for turn in range(3):
            one.seconds(8, 0, turn)
    passes = first.context.engine.passes  # type: ignore[attr-defined]
    assert passes == second.context.engine.passes  # type: ignore[attr-defined]
    assert len({tuple(tokens) for tokens in passes if tokens}) == 3


def test_a_request_to_stop_is_heard_before_the_next_pass() -> None:
    one = timer()
    one.context.engine.interrupt.request()
    with pytest.raises(Interrupted):
        one.seconds(1, 0)


@given(st.lists(st.integers(), min_size=1, max_size=6), st.integers(0, 4))
def test_there_and_back_everything_is_as_early_as_late(items: list[int], n_pairs: int) -> None:
    order = [one for each in there_and_back(items, 2 * n_pairs) for one in each]
    assert order == order[::-1]
    assert sorted(order) == sorted(items * 2 * n_pairs)
