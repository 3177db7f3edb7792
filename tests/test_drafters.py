"""Prompt lookup by example and against a slow, obvious search."""

from hypothesis import given
from hypothesis import strategies as st

from localspec.engine.sampling import Sampling
from localspec.speculate.drafters.base import DraftRequest
from localspec.speculate.drafters.ngram import (
    LONGEST_MATCH,
    SHORTEST_MATCH,
    NgramDrafter,
    NgramIndex,
)

GREEDY = Sampling(temperature=0)


def obvious(history: list[int], n_tokens: int) -> list[int]:
    for n in range(min(LONGEST_MATCH, len(history) - 1), SHORTEST_MATCH - 1, -1):
        for place in range(len(history) - 1, n - 1, -1):
            if history[place - n : place] == history[-n:]:
                return history[place : place + n_tokens]
    return []


def test_the_latest_match_wins() -> None:
    """llama-cpp-python proposes the first, [3, 4, 1]; but text repeats what it said last."""
    assert NgramIndex([1, 2, 3, 4, 1, 2, 9, 9, 1, 2]).continuation(3) == [9, 9, 1]


def test_the_longest_match_wins_over_a_later_shorter_one() -> None:
    assert NgramIndex([5, 1, 2, 7, 6, 1, 2, 8, 5, 1, 2]).continuation(1) == [7]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(1, 6), st.integers(1, 20))
def test_the_index_finds_what_a_search_finds(tokens: list[int], n_tokens: int, step: int) -> None:
    """The index grows with the history; a stale entry would draft from the wrong place."""
    history: list[int] = []
    drafter = NgramDrafter()
    for start in range(0, len(tokens), step):
        history += tokens[start : start + step]
        (draft,) = drafter.draft([DraftRequest(history, n_tokens, GREEDY)])
        assert list(draft.tokens) == obvious(history, n_tokens)


def test_replies_do_not_share_an_index() -> None:
    """A batching server has many; one user's text must not be proposed to another."""
    drafter = NgramDrafter()
    a, b = [1, 2, 3, 1, 2], [1, 2, 4, 1, 2]
    drafts = drafter.draft([DraftRequest(a, 1, GREEDY), DraftRequest(b, 1, GREEDY)])
    assert [list(draft.tokens) for draft in drafts] == [[3], [4]]
