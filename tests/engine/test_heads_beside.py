"""Gemma 4's assistants, EAGLE-3, DFlash and DSpark heads change no greedy answer.

An assistant that agrees by construction has all of its drafts accepted. The other heads have random
weights, so nearly all they say is rejected.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from babbling import write_babbling_model
from beside import N_BLOCK, SMALL, write_assistant, write_dflash, write_eagle3, write_gemma4
from drafted import SometimesFixed, assert_same, odds, run, sampled
from hybrids import write_random_limited

from localspec.decode.drafters import head_kind
from localspec.decode.drafters.base import Drafter
from localspec.decode.driver import Slot
from localspec.decode.generation import Generation, Limits
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.sampling import Chooser, Sampling
from localspec.gguf.reader import read_header
from localspec.model.facts import HeadFacts
from localspec.model.head_fit import head_of
from localspec.session.reply_options import reply_options
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

GREEDY = Sampling(temperature=0)
N_CTX = 192
PROMPTS = [[(7 * i + 3) % 250 for i in range(n)] for n in (35, 2, 100)]

Write = Callable[[Path], Path]


def _llama(path: Path) -> Path:
    write_babbling_model(path, SMALL)
    return path


PAIRS: dict[str, tuple[Write, Write]] = {
    "assistant": (write_gemma4, write_assistant),
    "assistant that guesses": (
        lambda path: write_gemma4(path, is_silent=False),
        lambda path: write_assistant(path, 1.0),
    ),
    "EAGLE-3": (_llama, write_eagle3),
    "EAGLE-3 of few tokens": (_llama, lambda path: write_eagle3(path, n_own_vocab=200)),
    "EAGLE-3 of a hybrid": (lambda path: write_random_limited(path, "qwen35"), write_eagle3),
    "DFlash": (_llama, write_dflash),
    "DFlash of a hybrid": (lambda path: write_random_limited(path, "qwen35"), write_dflash),
    "DSpark": (_llama, lambda path: write_dflash(path, is_dspark=True)),
    "DSpark of a hybrid": (
        lambda path: write_random_limited(path, "qwen35"),
        lambda path: write_dflash(path, is_dspark=True),
    ),
}


@dataclass(frozen=True)
class Beside:
    """A target, and what its head is by their headers."""

    name: str
    target: Path
    head: HeadFacts


@pytest.fixture(scope="module", params=PAIRS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Beside:
    write_target, write_head = PAIRS[request.param]
    folder = tmp_path_factory.mktemp("pair")
    target, head = write_target(folder / "t.gguf"), write_head(folder / "head.gguf")
    facts = head_of(read_header(target), read_header(head))
    assert not isinstance(facts, str), facts
    return Beside(request.param, target, facts)


def engine_of(pair: Beside, n: int, n_sequences: int = 1) -> LlamaEngine:
    return LlamaEngine(
        EngineConfig.of(
            pair.target, n_sequences * (n + 1), ctx=N_CTX, threads=1, gpu_layers=0,
            n_sequences=n_sequences, kv_unified=n_sequences > 1, flash_attn="on",
            n_rs_seq=n if "hybrid" in pair.name else 0,
        )
    )  # fmt: skip


def drafter_of(pair: Beside, engine: LlamaEngine, n: int) -> Drafter:
    return head_kind(pair.head.method)(engine.head(pair.head, n))


def generations(n: int, max_tokens: int = 24) -> list[Generation]:
    prompts = PROMPTS[:n]
    return [Generation(p, GREEDY, Limits(N_CTX, max_tokens + 3 * i)) for i, p in enumerate(prompts)]


def assert_plain(pair: Beside, asked: Sequence[Generation]) -> None:
    """They say what they would without drafts, side by side: company changes roundings."""
    engine = engine_of(pair, 0, len(asked))
    prompts = [each.history[: each.n_prompt] for each in asked]
    twins = [
        Generation(prompt, GREEDY, each.limits) for prompt, each in zip(prompts, asked, strict=True)
    ]
    slots = [Slot(each, engine.context()) for each in twins]
    run(slots, engine, Plain())
    slots[0].context.truncate(0)
    texts = [[each.tokens for each in one] for one in (asked, twins)]
    assert_same(slots[0].context, prompts, *texts)
    engine.close()


@pytest.mark.parametrize("n_sequences", [1, 3])
@pytest.mark.parametrize("n", [1, 4, 8])
def test_drafts_change_no_greedy_answer(pair: Beside, n: int, n_sequences: int) -> None:
    engine = engine_of(pair, n, n_sequences)
    drafter = drafter_of(pair, engine, n)
    slots = [Slot(each, engine.context()) for each in generations(n_sequences)]
    steps = run(slots, engine, Fixed(drafter, n))
    engine.close()
    assert_plain(pair, [slot.generation for slot in slots])
    longest = min(n, drafter.n_longest or n)
    whole = [each for own in steps for each in own[1:-1] if each.drafted]
    assert any(each.drafted == longest for each in whole)
    assert all(each.drafted <= longest for each in whole)
    if pair.name == "assistant":
        assert all(each.accepted == each.drafted == n for each in whole if each.drafted == n)


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_drafts_that_come_and_go(pair: Beside, n_sequences: int) -> None:
    engine = engine_of(pair, 3, n_sequences)
    slots = [Slot(each, engine.context()) for each in generations(n_sequences, 80)]
    steps = run(slots, engine, SometimesFixed(drafter_of(pair, engine, 3), 3))
    engine.close()
    assert_plain(pair, [slot.generation for slot in slots])
    assert all(any(each.drafted for each in own[22:]) for own in steps)


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_a_context_that_becomes_full(pair: Beside, n_sequences: int) -> None:
    lengths = (N_CTX - 20, N_CTX - 13, N_CTX - 6)[:n_sequences]
    asked = [
        Generation([(11 * i) % 250 for i in range(length)], GREEDY, Limits(N_CTX))
        for length in lengths
    ]
    engine = engine_of(pair, 4, n_sequences)
    speculator = Fixed(drafter_of(pair, engine, 4), 4)
    run([Slot(each, engine.context()) for each in asked], engine, speculator)
    engine.close()
    assert {each.finish_reason for each in asked} == {"context"}
    assert_plain(pair, asked)


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_an_end_at_each_place_of_a_draft(pair: Beside, n_sequences: int) -> None:
    """No token comes twice, so that any of them can be the end. Where the head is right, the end
    lies inside a draft, and what was drafted behind it is not said."""
    sampling = Sampling(temperature=0, presence_penalty=100.0, repeat_last_n=-1)
    plain, engine = engine_of(pair, 0, n_sequences), engine_of(pair, 5, n_sequences)
    speculator = Fixed(drafter_of(pair, engine, 5), 5)
    prompts = PROMPTS[:n_sequences]
    whole = [Generation(prompt, sampling, Limits(N_CTX, 14)) for prompt in prompts]
    run([Slot(each, plain.context()) for each in whole], plain, Plain())
    plain.close()
    contexts, cut = [engine.context() for _ in prompts], 0
    for i in range(14):
        ends = [frozenset({each.tokens[i - 5 * k]}) for k, each in enumerate(whole)]
        asked = [
            Generation(prompt, sampling, Limits(N_CTX, 40, end))
            for prompt, end in zip(prompts, ends, strict=True)
        ]
        slots = [Slot(*each) for each in zip(asked, contexts, strict=True)]
        found = run(slots, engine, speculator)
        for each, all_of_it, end in zip(asked, whole, ends, strict=True):
            (place,) = (all_of_it.tokens.index(token) for token in end)
            assert each.tokens == all_of_it.tokens[:place]
            assert each.finish_reason == "stop"
        cut += found[0][-1].accepted < found[0][-1].drafted
    engine.close()
    assert cut >= (9 if pair.name == "assistant" else 5)


def test_samples_keep_the_law_of_the_target(pair: Beside) -> None:
    """Chi-square on two tokens of a reply, out of three that may be said, so that head and target
    often agree and often do not."""
    unsaid = frozenset({*range(SMALL.n_vocab)} - {5, 77, 201})
    sampling = Sampling(temperature=1, top_p=1.0, min_p=0.0, banned=unsaid)
    engine, prompt = engine_of(pair, 2), PROMPTS[1]
    context = engine.context()
    expected = odds(context, prompt, Chooser(sampling))
    speculator = Fixed(drafter_of(pair, engine, 2), 2)
    first = Generation(prompt, sampling, Limits(N_CTX, 4), "rejection")
    found = sampled(200, first, context, speculator)
    engine.close()
    assert found.acceptance > 0.1
    found.assert_law(expected)


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_a_conversation_that_goes_back_and_on(pair: Beside, n_sequences: int) -> None:
    """Another end of the same text, another text, and a state that was saved and restored."""
    engine = engine_of(pair, 4, n_sequences)
    drafts = Fixed(drafter_of(pair, engine, 4), 4)
    found = conversations(engine, drafts, n_sequences, pair.target.parent)
    engine.close()
    plain = engine_of(pair, 4, n_sequences)
    wanted = conversations(plain, Plain(), n_sequences, pair.target.parent)
    plain.close()
    scratch = engine_of(pair, 0)
    asked = [each.history[: each.n_prompt] for each in found]
    # Behind a turn that tied and went on otherwise, the next one asks something else.
    alike = [i for i, each in enumerate(wanted) if each.history[: each.n_prompt] == asked[i]]
    assert len(alike) >= 3 * n_sequences
    texts = [[some[i].tokens for i in alike] for some in (found, wanted)]
    assert_same(scratch.context(), [asked[i] for i in alike], *texts)
    scratch.close()


def conversations(
    engine: LlamaEngine, speculator: Speculator, n: int, folder: Path
) -> list[Generation]:
    """`n` of them side by side, each with other turns than the next: their replies."""
    contexts = [engine.context() for _ in range(n)]
    texts = [PROMPTS[2], [*PROMPTS[2][:40], 9, 8, 7], PROMPTS[0]]

    def answers(turns: list[list[int]]) -> list[Generation]:
        asked = [Generation(each, GREEDY, Limits(N_CTX, 16)) for each in turns]
        run([Slot(*each) for each in zip(asked, contexts, strict=True)], engine, speculator)
        return asked

    said = [answers([texts[(i + k) % 3] for k in range(n)]) for i in range(len(texts))]
    for i, context in enumerate(contexts):
        context.save(folder / f"state{i}")
        context.clear()
        assert context.restore(folder / f"state{i}")
    said.append(answers([[*each.history, 5, 6] for each in said[-1]]))
    return [each for turn in said for each in turn]


def test_a_session_drafts_with_it(pair: Beside) -> None:
    method = head_kind(pair.head.method).option
    texts: list[list[int]] = []
    for spec, draft in (("none", None), (method, pair.head.path), ("auto", pair.head.path)):
        config = SessionConfig.of(pair.target, draft, spec=spec, ctx=N_CTX, gpu_layers=0, threads=1)
        with Session.open(config) as session:
            reply = session.reply(PROMPTS[0], reply_options(temperature=0, max_tokens=24))
            texts.append(reply.finish().tokens)
            assert spec != method or reply.stats.by_source[method].drafted
    assert texts[0] == texts[1] == texts[2]


def test_scores_of_a_step_are_those_of_a_whole_text(pair: Beside) -> None:
    """A head that has read pair after pair, and one that reads the same at once, guess alike."""
    engine = engine_of(pair, 1)
    head, context = engine.head(pair.head, 1), engine.context()
    text = PROMPTS[0]
    context.eval(text[:20], 1)
    for i in range(20, 30):
        stepped = head.draft([(context, text[i : i + 1])])[0].row(0).copy()
        context.eval(text[i : i + 1], 1)
    context.truncate(0)
    context.eval(text[:29], 1)
    whole = head.draft([(context, text[29:30])])[0].row(0)
    known = np.isfinite(whole)
    assert np.array_equal(known, np.isfinite(stepped))
    assert float(np.abs(whole[known] - stepped[known]).max()) < 0.02 * float(whole[known].std())
    engine.close()


def test_a_draft_is_as_long_as_a_block_at_most(pair: Beside) -> None:
    """And DSpark says of each of its tokens how likely it is accepted."""
    engine = engine_of(pair, 16)
    head, context = engine.head(pair.head, 16), engine.context()
    block = pair.head.block
    assert head.n_longest == (N_BLOCK - block.first if block else 16)
    context.eval(PROMPTS[0][:-1], 1)
    chances = [head.draft([(context, [1] * n)])[0].chance for n in range(1, head.n_longest + 1)]
    engine.close()
    assert all((chance is not None) == pair.name.startswith("DSpark") for chance in chances)
    assert all(chance is None or 0 <= chance <= 1 for chance in chances)
