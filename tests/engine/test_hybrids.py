"""Memories that cannot go back as attention can: states and windows, on small random models."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Run, localspec
from hybrids import LIMITED, ROLLING, STATES, WINDOW, write_random_limited
from turns import TEMPLATE, turns

from localspec.api import load as load_model
from localspec.engine.base import EngineConfig, hold
from localspec.engine.interrupt import Interrupted
from localspec.engine.llama import rollback
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.llama.replay import rollback_limit

Load = Callable[..., LlamaEngine]
ROUNDING = 0.1
"""Between batches of different widths; a stale state is off by more than 1."""
N_SNAPSHOTS = 4
PROMPT = list(range(20, 45))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: write_random_limited(folder / f"{name}.gguf", name, template=TEMPLATE)
        for name in LIMITED
    }


@pytest.fixture
def load() -> Iterator[Load]:
    engines: list[LlamaEngine] = []

    def load(model: Path, **settings: object) -> LlamaEngine:
        chosen: Any = {"ctx": 1024, "threads": 1, "n_outputs": 8, "n_rs_seq": N_SNAPSHOTS}
        engines.append(LlamaEngine(EngineConfig.of(model, **chosen | settings)))
        return engines[-1]

    yield load
    for engine in engines:
        engine.close()


def next_row(context: LlamaContext, tokens: Sequence[int]) -> np.ndarray:
    """The logits behind `tokens`, with whatever of them the context holds."""
    return hold(context, tokens, 1).row(0).copy()


class Truth:
    """The next logits of a sequence that never held anything else, by another engine."""

    def __init__(self, engine: LlamaEngine) -> None:
        self.context = engine.context()

    def row(self, tokens: Sequence[int]) -> np.ndarray:
        self.context.clear()
        return self.context.eval(tokens, 1).row(0).copy()


@pytest.mark.parametrize("name", STATES)
def test_every_rollback_leaves_the_state_of_a_clean_sequence(
    load: Load, models: dict[str, Path], name: str
) -> None:
    """m rows, b of them or more taken back: one stale state, and every answer after it is wrong."""
    engine, truth = load(models[name]), Truth(load(models[name], n_rs_seq=0))
    assert engine.rollback_limit == (N_SNAPSHOTS if name in ROLLING else 0)
    used = engine.context()
    for m, b in product(range(1, 7), range(1, 9)):
        used.clear()
        used.eval(PROMPT, 0)
        used.eval(range(200, 200 + m), 0)
        tokens = used.tokens[: len(PROMPT) + m - b]
        used.go_back(len(tokens))
        is_free = name in ROLLING and b < m and b <= N_SNAPSHOTS
        assert used.tokens == (tokens if is_free else []), (m, b)
        row = next_row(used, [*tokens, 77])
        assert row == pytest.approx(truth.row([*tokens, 77]), abs=ROUNDING), (m, b)


@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_done_to_a_sequence_its_next_logits_are_right(
    load: Load, models: dict[str, Path], name: str, seed: int, tmp_path: Path
) -> None:
    """Drafts, stop strings, regeneration, shared prefixes, dropped ends, saved states."""
    rng = np.random.default_rng(seed)
    engine, truth = load(models[name], ubatch=64), Truth(load(models[name], n_rs_seq=0))
    context = engine.context()

    def some(most: int) -> list[int]:
        return rng.integers(1, 500, rng.integers(1, most)).tolist()

    def save() -> None:
        context.save(tmp_path / "state")
        assert context.restore(tmp_path / "state")

    def back(most: int) -> None:
        context.go_back(max(0, len(context.tokens) - int(rng.integers(most))))

    def pause() -> None:
        place = context.checkpoint_place(len(context.tokens))
        assert place in (None, len(context.tokens))
        context.checkpoint()

    doings: list[Callable[[], object]] = [
        lambda: context.eval(some(9), 1),
        lambda: context.eval(some(150), 0),
        lambda: context.eval(some(2), 1),
        lambda: back(4),
        lambda: back(9),
        lambda: back(200),
        pause,
        lambda: context.truncate(int(rng.integers(len(context.tokens) + 1))),
        save,
    ]
    for i in range(60):
        if len(context.tokens) > 700:
            context.go_back(int(rng.integers(300)))
        before = list(context.tokens)
        doings[rng.choice(len(doings), p=[0.2, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05])]()
        n = min(len(before), len(context.tokens))
        assert context.tokens[:n] == before[:n]
        assert engine.memory.length(0) == len(context.tokens)
        if context.tokens and i % 3 == 0:
            row = context.eval([9], 1).row(0).copy()
            assert np.corrcoef(row, truth.row(context.tokens))[0, 1] > 0.998, i


@pytest.mark.parametrize("is_unified", [False, True])
@pytest.mark.parametrize("name", ROLLING)
def test_sequences_that_share_passes_are_taken_back_each_by_itself(
    load: Load, models: dict[str, Path], name: str, is_unified: bool
) -> None:
    """Two users' drafts of different lengths are verified in one pass, and fail apart."""
    engine = load(models[name], n_sequences=2, kv_unified=is_unified, n_outputs=16)
    truth = Truth(load(models[name], n_rs_seq=0))
    one, other = engine.context(), engine.context()
    for m, n, b, c in ((4, 2, 3, 1), (4, 4, 1, 3), (3, 1, 2, 0), (1, 3, 0, 2), (2, 2, 2, 1)):
        one.clear(), other.clear()
        engine.decode([(one, PROMPT, 0), (other, PROMPT[5:], 0)])
        engine.decode([(one, range(90, 90 + m), m), (other, range(60, 60 + n), n)])
        texts = [one.tokens[: 25 + m - b], other.tokens[: 20 + n - c]]
        one.go_back(len(texts[0])), other.go_back(len(texts[1]))
        row = next_row(other, [*texts[1], 7])  # the first one's rollback is pending meanwhile
        assert row == pytest.approx(truth.row([*texts[1], 7]), abs=ROUNDING), (m, n, b, c)
        row = next_row(one, [*texts[0], 8])
        assert row == pytest.approx(truth.row([*texts[0], 8]), abs=ROUNDING), (m, n, b, c)


class Lying(LlamaContext):
    """A memory that says that it went back, as libllama's does behind the last decode."""

    def go_back(self, n: int) -> None:
        del self.tokens[n:]
        self.engine.memory.forget(self.sequence, n)


@pytest.mark.parametrize("name", STATES)
def test_a_memory_that_does_not_go_back_is_found_out_when_it_is_loaded(
    load: Load, models: dict[str, Path], name: str
) -> None:
    """Some architecture will be wrong in its own way: then no drafts, and no checkpoints."""
    engine = load(models[name])
    engine.memory.n_snapshots = N_SNAPSHOTS
    scratch = Lying(engine, 0)
    scratch.eval(range(300, 308), 0)  # snapshots of another text
    scratch.clear()
    scratch.eval = one_by_one(scratch)
    other_key = engine.config.with_settings(n_rs_seq=N_SNAPSHOTS + 1)  # that of no kept verdict
    assert rollback_limit(engine.memory, scratch, other_key) == 0
    assert engine.memory.flags is None
    context = engine.context()
    assert context.checkpoint_place(3) is None


def one_by_one(context: LlamaContext) -> Callable[[Sequence[int], int], Any]:
    """Passes of one row, so that no row but the last has a snapshot."""
    whole = context.eval

    def eval_(tokens: Sequence[int], n_logits: int) -> Any:
        for token in tokens[:-1]:
            whole([token], 0)
        return whole(tokens[-1:], n_logits)

    return eval_


@pytest.mark.parametrize("name", STATES)
def test_a_pass_that_is_stopped_halfway_costs_no_more_than_the_way_from_the_checkpoint(
    load: Load, models: dict[str, Path], name: str
) -> None:
    """Ctrl-C in a prompt leaves a state of nobody knows what; the conversation goes on from it."""
    engine, truth = load(models[name]), Truth(load(models[name], n_rs_seq=0))
    context = engine.context()
    context.eval(PROMPT, 0)
    context.checkpoint()
    decode = engine._decode_batch

    def torn() -> int:
        decode()
        engine._is_torn = True
        return 2

    engine._decode_batch = torn
    with pytest.raises(Interrupted):
        context.eval(range(100, 200), 1)
    engine._decode_batch = decode
    assert context.tokens == PROMPT
    row = next_row(context, [*PROMPT, 3])
    assert row == pytest.approx(truth.row([*PROMPT, 3]), abs=ROUNDING)


@pytest.mark.parametrize("name", LIMITED)
def test_a_saved_conversation_goes_back_to_its_last_question(
    load: Load, models: dict[str, Path], name: str, tmp_path: Path
) -> None:
    """`chat --continue` tomorrow must not read everything again, whatever drafts were set then."""
    engine, truth = load(models[name], ubatch=64), Truth(load(models[name], n_rs_seq=0))
    context = engine.context()
    context.eval(range(1, 300), 0)
    context.checkpoint()
    context.eval(range(300, 400), 0)
    context.save(tmp_path / "state")
    n_file = (tmp_path / "state").stat().st_size
    assert n_file == pytest.approx(context.state_bytes + 4 * len(context.tokens), abs=64)
    other = load(models[name], n_rs_seq=0, ubatch=64).context()
    assert other.restore(tmp_path / "state")
    assert other.tokens == list(range(1, 400))
    other.go_back(301)
    assert len(other.tokens) >= 299
    row = next_row(other, [*range(1, 302), 5])
    assert row == pytest.approx(truth.row([*range(1, 302), 5]), abs=ROUNDING)


def test_checkpoints_are_few_and_small(
    load: Load, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states of a large model are hundreds of megabytes each."""
    context = load(models["mamba"]).context()
    for n in range(1, 9):
        context.eval([n], 0)
        context.checkpoint()
    kept = context.memory.checkpoints
    assert [each.n_tokens for each in kept] == [6, 7, 8]
    monkeypatch.setattr(rollback, "MOST_BYTES", 2 * kept[0].data.size + 1)
    context.eval([9], 0)
    context.checkpoint()
    assert [each.n_tokens for each in context.memory.checkpoints] == [8, 9]
    monkeypatch.setattr(rollback, "MOST_BYTES", kept[0].data.size - 1)
    context.eval([10], 0)
    context.checkpoint()
    context.go_back(9)
    assert context.tokens == []


def test_a_window_that_was_passed_goes_back_to_the_question(
    load: Load, models: dict[str, Path]
) -> None:
    """/regen after a long answer, and a thought that the template drops, read a few tokens."""
    engine, truth = load(models["gemma3"], ubatch=64), Truth(load(models["gemma3"]))
    rng = np.random.default_rng(1)
    long, answer = rng.integers(1, 500, 400).tolist(), rng.integers(1, 500, 300).tolist()
    for n_question in (400, WINDOW + 30, WINDOW, WINDOW // 2):
        context, prompt = engine.scratch(), long[:n_question]
        context.clear()
        place = context.checkpoint_place(n_question - 2)
        if place is not None:
            context.eval(prompt[:place], 0)
            context.checkpoint()
        context.eval(prompt[len(context.tokens) :], 1)
        for token in answer:
            context.eval([token], 1)
        context.go_back(n_question - 1)
        assert len(context.tokens) >= n_question - 2, n_question
        row = next_row(context, [*prompt, 3])
        assert np.corrcoef(row, truth.row([*prompt, 3]))[0, 1] > 0.999, n_question


def conversation(path: Path, spec: str) -> tuple[list[str], int]:
    """Ten answers, and how many drafted tokens were accepted; every turn's cost is checked."""
    answers, n_accepted = [], 0
    with load_model(path, spec=spec, draft="none", ctx=4096, threads=1, ubatch=64) as model:
        for turn in turns(model):
            reply = turn.reply
            assert reply.timings.n_prefilled <= turn.n_new + 64
            assert turn.n_rows == sum(step.evaluated for step in reply.steps)
            answers.append(reply.text)
            n_accepted += reply.stats.accepted
    return answers, n_accepted


@pytest.mark.parametrize("name", LIMITED)
def test_a_turn_reads_the_last_answer_and_the_question_and_says_so(
    models: dict[str, Path], name: str
) -> None:
    """A conversation that is read again whole at each turn takes minutes more, and look-ups must
    not change what is said."""
    plain, _ = conversation(models[name], "none")
    drafted, n_accepted = conversation(models[name], "lookup")
    assert drafted == plain
    assert (n_accepted > 0) == (name != "mamba")


@pytest.mark.parametrize("name", LIMITED)
def test_a_stop_text_inside_a_draft_and_another_try_change_no_answer(
    models: dict[str, Path], name: str
) -> None:
    """A stop text cuts behind rows that are rolled back already: the next turn must not."""
    asked = [{"role": "user", "content": "abc abc abc abc abc abc"}]
    with load_model(models[name], spec="none", ctx=1024, threads=1) as model:
        whole = model.chat(asked, max_tokens=60, temperature=0).text
    stop = whole[30:33]
    cut = whole[: whole.index(stop)]
    with load_model(models[name], spec="lookup", draft_max=7, ctx=1024, threads=1) as model:
        for _ in range(2):
            assert model.chat(asked, max_tokens=60, temperature=0, stop=stop).text == cut
            again = model.chat(asked, max_tokens=60, temperature=0)
            assert again.text == whole
            assert again.timings.n_prefilled <= 64


def test_a_chat_goes_on_tomorrow_from_its_last_question(models: dict[str, Path]) -> None:
    """Through the whole program: what is kept on disk can be gone back to."""
    options = ("--threads", "1", "--temp", "0", "-n", "40", "--json-lines")
    first = localspec("chat", models["qwen35"], *options, stdin=f"{QUESTION}\n{QUESTION}".encode())
    later = localspec("chat", "--continue", *options, stdin=QUESTION.encode())
    read = [event["n_evaluated"] for run in (first, later) for event in answers(run)]
    n_question = read[0]
    assert all(n <= n_question + 40 for n in read[1:]), read


QUESTION = "What was it that the keeper of the lighthouse saw in the night of the storm?"


def answers(run: Run) -> list[dict[str, Any]]:
    assert run.code == 0, run.stderr
    events = map(json.loads, run.stdout.splitlines())
    return [event for event in events if event["event"] == "answer"]
