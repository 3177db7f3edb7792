"""Lookup by example and against a slow, obvious search."""

from hypothesis import given
from hypothesis import strategies as st

from localspec.decode.drafters.base import DraftRequest
from localspec.decode.drafters.lookup import LookupDrafter, LookupIndex, level_of
from localspec.engine.sampling import Sampling

GREEDY = Sampling(temperature=0)


def continuation(tokens: list[int], n_tokens: int) -> list[int]:
    index = LookupIndex()
    index.extend(tokens)
    return index.continuation(n_tokens)[0]


def obvious(history: list[int]) -> set[int]:
    """What may come next: the most frequent continuation of the longest match, up to 32 tokens, of
    the 12 latest places that the last two tokens led to; else of the last token's latest place."""

    def match(place: int) -> int:
        n = 0
        while n < min(place, 32) and history[place - n - 1] == history[len(history) - n - 1]:
            n += 1
        return n

    places = [p for p in range(len(history) - 1, 1, -1) if match(p) >= 2][:12]
    if not places:
        ones = [p for p in range(len(history) - 1, 1, -1) if match(p) >= 1]
        return {history[ones[0]]} if ones and len(history) > 2 else set()
    longest = max(match(p) for p in places)
    follow = [history[p] for p in places if match(p) == longest]
    return {t for t in follow if follow.count(t) == max(map(follow.count, follow))}


def test_the_latest_match_wins() -> None:
    """llama-cpp-python proposes the first, [3, 4, 1]; but text repeats what it said last."""
    assert continuation([1, 2, 3, 4, 1, 2, 9, 9, 1, 2], 3) == [9, 9, 1]


def test_the_longest_match_wins_over_a_later_shorter_one() -> None:
    assert continuation([5, 1, 2, 7, 6, 1, 2, 8, 5, 1, 2], 1) == [7]


def test_among_equal_matches_the_majority_wins() -> None:
    assert continuation([1, 2, 7, 5, 1, 2, 7, 6, 1, 2, 8, 3, 1, 2], 1) == [7]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(1, 6), st.integers(1, 20))
def test_the_index_finds_what_a_search_finds(tokens: list[int], n_tokens: int, step: int) -> None:
    """The index grows with the history; a stale entry would draft from the wrong place."""
    history: list[int] = []
    drafter = LookupDrafter()
    for start in range(0, len(tokens), step):
        history += tokens[start : start + step]
        (draft,) = drafter.draft([DraftRequest(history, n_tokens, GREEDY)])
        assert len(draft.tokens) == len(draft.confidences) <= n_tokens
        allowed = obvious(history)
        assert draft.tokens[0] in allowed if allowed else not draft.tokens


def test_a_longer_match_of_places_that_agree_is_a_better_one() -> None:
    """The policy learns acceptance by confidence; a copied passage is not like a common pair."""
    index = LookupIndex()
    index.extend([*range(100, 140), 7, *range(100, 120)])
    tokens, confidences = index.continuation(4)
    assert tokens == [120, 121, 122, 123]
    assert set(confidences) == {2 * level_of(20) + 1}
    index.extend([5, 8, 9, 1, 8, 9, 2, 8, 9, 3, 8, 9])
    assert index.continuation(1)[1] == [2 * level_of(2)]


def test_replies_do_not_share_an_index() -> None:
    """A batching server has many; one user's text must not be proposed to another."""
    drafter = LookupDrafter()
    a, b = [1, 2, 3, 1, 2], [1, 2, 4, 1, 2]
    drafts = drafter.draft([DraftRequest(a, 1, GREEDY), DraftRequest(b, 1, GREEDY)])
    assert [list(draft.tokens) for draft in drafts] == [[3], [4]]


def test_a_later_turn_finds_what_earlier_ones_said() -> None:
    """An answer asked for again, or a conversation that goes on elsewhere, repeats itself."""
    drafter = LookupDrafter()
    first = [1, 2, 3, 4, 5, 6, 50, 51, 52, 53, 54]
    drafter.draft([DraftRequest(first, 1, GREEDY)])
    again = [1, 2, 3, 4, 5, 6, 50, 51]
    (draft,) = drafter.draft([DraftRequest(again, 3, GREEDY)])
    assert list(draft.tokens) == [52, 53, 54]
    drafter.forget()
    (draft,) = drafter.draft([DraftRequest(again, 3, GREEDY)])
    assert list(draft.tokens) == []
