"""Lookup by example and against a slow, obvious search; what every drafter keeps to."""

import pytest
from fakes import FakeContext, FakeEngine, FakeHead
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localspec.decode.drafters import DRAFTERS, drafters_for
from localspec.decode.drafters.base import NO_DRAFT, Drafter, DraftRequest
from localspec.decode.drafters.draft_model import ModelDrafter
from localspec.decode.drafters.heads import MtpDrafter
from localspec.decode.drafters.lookup import LENGTHS, LookupDrafter, LookupIndex
from localspec.engine.sampling import Sampling
from localspec.model.facts import HeadFacts

COUNTS = st.integers(0, 5)
GREEDY = Sampling(temperature=0)


def continuation(tokens: list[int], n_tokens: int) -> list[int]:
    index = LookupIndex()
    index.begin(tokens)
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
    index, history = LookupIndex(), [*range(100, 140), 7, *range(100, 120)]
    index.begin(history)
    tokens, confidences = index.continuation(4)
    assert tokens == [120, 121, 122, 123]
    assert set(confidences) == {2 * LENGTHS.index(16) + 1}
    history.extend([5, 8, 9, 1, 8, 9, 2, 8, 9, 3, 8, 9])
    assert index.continuation(1)[1] == [2 * LENGTHS.index(2)]


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


@pytest.fixture(params=sorted(kind.option for kind in DRAFTERS))
def drafter(request: pytest.FixtureRequest) -> Drafter:
    """One of each that there is, with a target, and a draft model or head of 8 tokens."""
    kind = next(kind for kind in DRAFTERS if kind.option == request.param)
    head = FakeHead(FakeEngine(seed=4))
    head.facts = HeadFacts(min(getattr(kind, "methods", {"mtp"})))
    return drafters_for(FakeEngine(), FakeEngine(seed=4, n_sequences=3), head)[request.param]


def asked(history: list[int], n: int) -> DraftRequest:
    """With a context of the target that has evaluated all but the pending token."""
    return DraftRequest(history, n, GREEDY, context=FakeContext(FakeEngine(), history[:-1]))


def test_what_is_not_loaded_does_not_draft() -> None:
    """A session without a draft model offers the drafters that need none."""
    assert "draft" not in drafters_for(FakeEngine(), None)
    assert "lookup" in drafters_for(FakeEngine(), None)


def test_drafters_are_told_apart() -> None:
    """Acceptance is counted by source and shown by label; --spec names one drafter."""
    for name in ("source", "option", "label"):
        assert len({getattr(kind, name) for kind in DRAFTERS}) == len(DRAFTERS)


@given(texts=st.lists(st.lists(st.integers(0, 7), min_size=2, max_size=40), max_size=3), n=COUNTS)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_draft_keeps_to_its_request(drafter: Drafter, texts: list[list[int]], n: int) -> None:
    """More tokens than asked for would outgrow the context; a confidence off the scale would
    break what is learned."""
    drafts = drafter.draft([asked(list(text), n) for text in texts])
    assert len(drafts) == len(texts)
    for draft in drafts:
        assert len(draft.tokens) <= n
        assert draft is NO_DRAFT if n == 0 else draft.source == drafter.source
        assert len(draft.confidences) == len(draft.tokens)
        assert all(0 <= each < drafter.n_confidences for each in draft.confidences)


def test_a_reply_that_sits_out_a_pass_keeps_its_place(drafter: Drafter) -> None:
    """A pass without a draft for somebody must not cost the next one a new reading."""
    a, b = [1, 2, 3, 1, 2], [4, 5, 6, 4, 5]
    alone = [list(drafter.draft([asked([*text], 2)])[0].tokens) for text in (a, b)]
    drafter.forget()
    drafter.draft([asked(a, 2), asked(b, 2)])
    out = drafter.draft([asked(a, 0), asked(b, 2)])
    back = drafter.draft([asked(a, 2), asked(b, 0)])
    assert [list(out[1].tokens), list(back[0].tokens)] == alone[::-1]


def test_a_draft_model_reads_nothing_twice_for_a_reply_that_sat_out() -> None:
    engine = FakeEngine(n_sequences=2)
    drafter = ModelDrafter(engine, 8)
    contexts = [view.context for view in drafter._free]
    a, b = [1, 2, 3, 1, 2], [4, 5, 6, 4, 5]
    drafter.draft([DraftRequest(a, 1, GREEDY), DraftRequest(b, 1, GREEDY)])
    for _ in range(3):
        b.append(1)
        drafter.draft([DraftRequest(a, 0, GREEDY), DraftRequest(b, 1, GREEDY)])
    drafter.draft([DraftRequest(a, 1, GREEDY), DraftRequest(b, 0, GREEDY)])
    assert sorted(context.n_evaluated for context in contexts) == [len(a) + 1, len(b)]


def test_many_conversations_each_find_their_own_text_again() -> None:
    """Who comes back to a server finds what was said before, not what strangers said."""
    drafter = LookupDrafter()
    told = [[7, i, 10 + i, 20 + i, 30 + i, 40 + i] for i in range(3)]
    drafter.draft([DraftRequest(text, 1, GREEDY) for text in told])
    drafter.draft([])
    order = (1, 0, 2)
    again = [[7, i, 10 + i] for i in order]
    drafts = drafter.draft([DraftRequest(text, 2, GREEDY) for text in again])
    assert [list(draft.tokens) for draft in drafts] == [[20 + i, 30 + i] for i in order]


def test_a_drafter_forgets_the_sampling_of_replies_that_are_gone() -> None:
    """A new reply may have the address of an old one; it must not be drafted with its bans."""
    drafter = ModelDrafter(FakeEngine(), 8)
    history = [1, 2, 3]
    (first,) = drafter.draft([DraftRequest(history, 1, GREEDY)])
    drafter.forget()
    banned = Sampling(temperature=0, banned=frozenset(first.tokens))
    (second,) = drafter.draft([DraftRequest(history, 1, banned)])
    assert second.tokens != first.tokens


def test_a_head_drafts_for_several_replies_in_one_call_a_token() -> None:
    head = FakeHead(FakeEngine(seed=4))
    drafts = MtpDrafter(head).draft([asked([1, 2], 3), asked([3, 4, 5], 3), asked([6, 7], 0)])
    assert [len(draft.tokens) for draft in drafts] == [3, 3, 0]
    assert head.n_calls == 3


def test_a_head_waits_for_the_state_behind_the_text() -> None:
    """A guess without it would be worthless, and would count against the head."""
    head = FakeHead(FakeEngine(seed=4))
    drafter = MtpDrafter(head)
    head.is_awake = False
    history = [1, 2, 3]
    assert [len(drafter.draft([asked(history, 2)])[0].tokens) for _ in range(2)] == [0, 2]
    taken_back = FakeContext(FakeEngine(), [1])
    (draft,) = drafter.draft([DraftRequest(history, 2, GREEDY, context=taken_back)])
    assert draft.source == "mtp"
    assert not draft.tokens
