"""The main promise on real models: a draft never changes an answer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command import assert_refused, localspec, tiny
from head_files import eagle3_of
from models import Pair, gemma_pair, smollm2, smollm2_pair

from localspec.bench.same_answer import TEXTS, compare_answers, diverge, first_difference
from localspec.dialogue.template import Message
from localspec.engine.base import hold
from localspec.engine.sampling import Chooser, Sampling
from localspec.gguf.reader import read_header
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

GREEDY = ReplyOptions(Sampling(temperature=0), max_tokens=40)


def answers(config: SessionConfig, options: ReplyOptions = GREEDY) -> list[list[int]]:
    with Session.open(config) as session:
        return [session.reply(prompt(session, text), options).finish().tokens for text in TEXTS]


def prompt(session: Session, text: str) -> list[int]:
    return session.chat_prompt([Message(role="user", content=text)])


@pytest.fixture(scope="module", params=[smollm2_pair, gemma_pair], ids=["smollm2", "gemma"])
def pair(request: pytest.FixtureRequest) -> Pair:
    make: Callable[[], Pair] = request.param
    return make()


def config(pair: Pair, spec: str) -> SessionConfig:
    return SessionConfig.of(pair.target, pair.draft, spec=spec, threads=1)


def test_greedy_answers_are_the_same_three_ways(pair: Pair) -> None:
    """Token for token, or parted at a near tie that rounding explains."""
    found = compare_answers(
        SessionConfig.of(pair.target, spec="none", threads=1),
        [config(pair, spec) for spec in ("lookup", "draft")],
        TEXTS,
        40,
    )
    assert all(found.answers[0].replies)
    assert found.n_unexplained == 0, found.text


def test_drafts_are_accepted(pair: Pair) -> None:
    """The draft is the target in fewer bits: where it hardly ever stood, the loop is broken."""
    with Session.open(config(pair, "draft")) as session:
        reply = session.reply(prompt(session, TEXTS[0]), GREEDY).finish()
    assert reply.stats.accepted > 0.3 * reply.stats.drafted > 0
    assert reply.stats.passes < len(reply.tokens)
    assert reply.stats.by_source.keys() == {"model"}


def test_a_wrong_answer_would_be_found() -> None:
    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 9, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == 2
    with Session.open(SessionConfig.of(smollm2(), spec="lookup", threads=1)) as session:
        tokens = prompt(session, TEXTS[2])
        plain = session.reply(tokens, GREEDY).finish().tokens
        wrong = [*plain[:3], plain[3] + 1, *plain[4:]]
        found = diverge(session.context, tokens, plain, wrong, 4)
    assert found is not None
    assert not found.is_excused
    assert found.position == 3


def test_the_command_says_which_answers_are_the_same() -> None:
    """A user who doubts a draft asks with one flag; --json has every divergence."""
    options = ("-n", "8", "-t", "1", "--spec", "lookup,auto", "--same-answer", "--json")
    run = localspec("bench", tiny(), *options)
    assert run.code == 0, run.stderr
    (found,) = run.document["results"]
    assert found["ways"] == ["lookup", "auto"]
    assert found["prompts"] == len(TEXTS)
    assert found["unexplained"] == sum(not one["excused"] for one in found["divergences"]) == 0


def test_a_head_is_asked_in_the_ways_that_it_has(tmp_path: Path) -> None:
    """Who names a head need not know its kind."""
    head = eagle3_of(read_header(tiny()), 0, 1, 1).write(tmp_path / "head.gguf")
    run = localspec(
        "bench", tiny(), "--draft", head, "-n", "8", "-t", "1", "--same-answer", "--json"
    )
    assert run.code == 0, run.stderr
    (found,) = run.document["results"]
    assert found["ways"] == ["lookup", "eagle3", "auto"]


def test_without_drafts_there_is_nothing_to_compare() -> None:
    assert_refused(localspec("bench", tiny(), "--spec", "none", "--same-answer"), 2, "--spec")


def test_a_seed_gives_the_same_text_with_a_draft_model() -> None:
    """Who notes a seed gets the text back, drafts or not, but for rounding: where texts part, the
    logits of single tokens and of batches must really choose different tokens."""
    pair = smollm2_pair()
    sampling = Sampling(temperature=0.7, seed=11)
    options = ReplyOptions(sampling, max_tokens=30, verify="match")
    plain, drafted = (answers(config(pair, spec), options) for spec in ("none", "draft"))
    assert sum(a == b for a, b in zip(plain, drafted, strict=True)) >= len(TEXTS) // 2
    with Session.open(config(pair, "lookup")) as session:
        for text, ours, theirs in zip(TEXTS, plain, drafted, strict=True):
            place = first_difference(ours, theirs)
            if place is not None:
                history = [*prompt(session, text), *ours[:place]]
                assert len(choices(session, history, sampling)) > 1, f"{text!r} parts at {place}"


def choices(session: Session, history: list[int], sampling: Sampling) -> set[int]:
    """What this position's random number chooses, by width of the batch with the last token."""
    chooser, chosen = Chooser(sampling), set()
    for width in (1, 2, 3, 4):
        hold(session.context, history[:-width], 0)
        logits = session.context.eval(history[-width:], width)
        chosen.add(chooser.token(logits, width - 1, history))
    return chosen


def test_the_next_turn_evaluates_only_what_is_new() -> None:
    """A chat that reads its whole past at every turn gets slower with each."""
    with Session.open(SessionConfig.of(smollm2(), spec="lookup", threads=1)) as session:
        messages = [Message(role="user", content=TEXTS[3])]
        first = session.reply(session.chat_prompt(messages), GREEDY).finish()
        messages += [
            Message(role="assistant", content=first.text),
            Message(role="user", content="And once more?"),
        ]
        second_prompt = session.chat_prompt(messages)
        second = session.reply(second_prompt, GREEDY).finish()
        fresh = answers_to(session.plan.target.model, second_prompt)
    n_held = first.n_prompt_tokens + len(first.tokens)
    assert second.steps[0].evaluated <= len(second_prompt) - n_held + 2
    assert second.tokens == fresh


def answers_to(model: Path, tokens: list[int]) -> list[int]:
    with Session.open(SessionConfig.of(model, spec="lookup", threads=1)) as session:
        return session.reply(tokens, GREEDY).finish().tokens


def test_accepted_samples_of_a_real_pair_follow_the_law_of_plain_sampling() -> None:
    """Chi-square on the first two tokens, the second of which is drafted, under three truncated
    choices each; exact odds come from the target itself. 5 standard deviations."""
    n = 240
    sampling = Sampling(temperature=1.5, top_k=3, top_p=1.0, min_p=0.0)
    pair = smollm2_pair()
    settings = SessionConfig.of(smollm2(), pair.draft, spec="draft", draft_max=1, threads=1)
    with Session.open(settings) as session:
        asked = prompt(session, TEXTS[2])
        chooser = Chooser(sampling)
        expected: dict[tuple[int, int], float] = {}
        first = chooser.distribution(hold(session.context, asked, 1), 0, asked)
        for a, p_a in zip(first.ids.tolist(), first.probabilities.tolist(), strict=True):
            text = [*asked, a]
            second = chooser.distribution(hold(session.context, text, 1), 0, text)
            for b, p_b in zip(second.ids.tolist(), second.probabilities.tolist(), strict=True):
                expected[a, b] = n * p_a * p_b
        seen: dict[tuple[int, int], int] = dict.fromkeys(expected, 0)
        drafted = accepted = 0
        for seed in range(n):
            options = ReplyOptions(replace(sampling, seed=seed), 3, verify="rejection")
            reply = session.reply(asked, options).finish()
            if len(reply.tokens) > 1:  # else it ended, which is one of the choices, too
                seen[reply.tokens[0], reply.tokens[1]] += 1
            drafted += reply.stats.drafted
            accepted += reply.stats.accepted
    assert 0.4 < accepted / drafted < 1
    cells = {cell: mean for cell, mean in expected.items() if mean >= 3}
    chi_square = sum((seen[cell] - mean) ** 2 / mean for cell, mean in cells.items())
    assert chi_square < len(cells) + 5 * (2 * len(cells)) ** 0.5
