"""Drafts of MTP heads change no answer: greedy ones are equal, sampled ones keep their law.

The fixtures' heads guess right by construction, or wrong where noise is added, in the model's file
or beside it.

Each place of the head and kind of target, one sequence and three, drafts that are all accepted
or not at all, an end inside a draft, a full context, a saved and restored one, drafts that come
and go. Heads that are files of their own have theirs in test_heads_beside.py and
test_heads_agree.py.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from drafted import SometimesFixed, odds, run, sampled
from heads import EOS, KINDS, N_BEFORE_END, ORDER, write_agreeing
from serving import Served, served

from localspec.decode.chances import Learned
from localspec.decode.costs import PassCosts
from localspec.decode.curve import PassCurve, Point
from localspec.decode.drafters.heads import MtpDrafter
from localspec.decode.driver import Slot
from localspec.decode.generation import Generation, Limits, Verification
from localspec.decode.speculator import Fixed
from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.sampling import Chooser, Sampling
from localspec.gguf.reader import read_header
from localspec.model.facts import HeadFacts
from localspec.model.head_fit import head_of
from localspec.serve.server import engine_thread_of
from localspec.session.drafting import found_head
from localspec.session.reply_options import reply_options
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig, session_config
from localspec.settings import OWN, Settings
from localspec.tuning.search import search
from localspec.tuning.target import Goal, TuneTarget

GREEDY = Sampling(temperature=0)
N_CTX, N_TOKENS = 192, 30
PROMPTS = [ORDER[5:40], ORDER[60:62], ORDER[150:190]]
RIGHT, NEARLY, WRONG = 0.0, 0.03, 1.0


@dataclass(frozen=True)
class HeadFiles:
    """A target, and its head; its path is None where the target has it inside."""

    target: Path
    head: HeadFacts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heads")


def files_of(folder: Path, kind: str, place: str, noise: float) -> HeadFiles:
    stem = f"{kind}-{noise:g}".replace(" ", "-")
    if place == "inside":
        target, head = written(folder / f"{stem}.gguf", noise, kind), None
    else:
        target = written(folder / f"{stem}-target.gguf", noise, kind, "target")
        head = written(folder / f"mtp-{stem}-target.gguf", noise, kind, "head")
    facts = head_of(read_header(target), head and read_header(head))
    assert not isinstance(facts, str), facts
    return HeadFiles(target, facts)


def written(path: Path, noise: float, kind: str, part: str = "all") -> Path:
    return path if path.exists() else write_agreeing(path, noise, kind, part)  # pyright: ignore[reportArgumentType]


@pytest.fixture(params=[RIGHT, WRONG], ids=["right", "wrong"])
def noise(request: pytest.FixtureRequest) -> float:
    return request.param


@pytest.fixture(params=["inside", "beside"])
def place(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=sorted(KINDS))
def files(request: pytest.FixtureRequest, folder: Path, place: str, noise: float) -> HeadFiles:
    return files_of(folder, request.param, place, noise)


def engine_of(files: HeadFiles, n: int, n_sequences: int = 1) -> LlamaEngine:
    return LlamaEngine(
        EngineConfig.of(
            files.target, n_sequences * (n + 1), ctx=N_CTX, threads=1, gpu_layers=0,
            load_mtp=files.head.path is None, n_rs_seq=n, n_sequences=n_sequences,
            kv_unified=n_sequences > 1,
        )
    )  # fmt: skip


def generations(n: int, max_tokens: int = N_TOKENS) -> list[Generation]:
    """One for each of the first prompts; they end at different times."""
    return [
        Generation(prompt, GREEDY, Limits(N_CTX, max_tokens + 3 * i, frozenset({EOS})))
        for i, prompt in enumerate(PROMPTS[:n])
    ]


def expected(generation: Generation) -> list[int]:
    """What follows a prompt by construction."""
    start = ORDER.index(generation.history[generation.n_prompt - 1]) + 1
    text = [*ORDER[start:], *ORDER][: generation.limits.max_tokens]
    return text[: text.index(EOS)] if EOS in text else text


@pytest.mark.parametrize("n_sequences", [1, 3])
@pytest.mark.parametrize("n", [1, 4, 8])
def test_drafts_change_no_greedy_answer(
    files: HeadFiles, noise: float, n: int, n_sequences: int
) -> None:
    """And where the head is right by construction, every drafted token is accepted."""
    engine = engine_of(files, n, n_sequences)
    speculator = Fixed(MtpDrafter(engine.head(files.head, n)), n)
    slots = [Slot(each, engine.context()) for each in generations(n_sequences)]
    steps = run(slots, engine, speculator)
    engine.close()
    for slot, own in zip(slots, steps, strict=True):
        assert slot.generation.tokens == expected(slot.generation)
        assert sum(each.drafted for each in own) >= len(own) - 2
        longest = min(n, files.head.n_draft_max or n)
        whole = [each for each in own[1:-1] if each.drafted == longest]
        assert whole
        assert noise or all(each.accepted == longest for each in whole)
    assert not noise or sum(each.accepted for own in steps for each in own) < N_TOKENS / 3


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_a_draft_that_runs_over_the_end_is_cut_there(files: HeadFiles, n_sequences: int) -> None:
    """The tokens behind an end token are right guesses of what nobody may read."""
    engine = engine_of(files, 8, n_sequences)
    speculator = Fixed(MtpDrafter(engine.head(files.head, 8)), 8)
    contexts = [engine.context() for _ in range(n_sequences)]
    for i in range(8):
        lengths = [(i + 3 * k) % 8 for k in range(n_sequences)]
        ends = [N_BEFORE_END - n_left for n_left in lengths]
        asked = [
            Generation(ORDER[end - 8 : end], GREEDY, Limits(N_CTX, 40, frozenset({EOS})))
            for end in ends
        ]
        run([Slot(*each) for each in zip(asked, contexts, strict=True)], engine, speculator)
        assert [each.tokens for each in asked] == [expected(each) for each in asked]
        assert [len(each.tokens) for each in asked] == lengths
        assert {each.finish_reason for each in asked} == {"stop"}
    engine.close()


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_a_context_that_becomes_full(files: HeadFiles, n_sequences: int) -> None:
    """The head's cache is as long as the target's; the last drafts are shorter."""
    engine = engine_of(files, 4, n_sequences)
    speculator = Fixed(MtpDrafter(engine.head(files.head, 4)), 4)
    prompts = [[*ORDER[101:257], *ORDER[: 20 + i]] for i in range(n_sequences)]
    asked = [Generation(prompt, GREEDY, Limits(N_CTX)) for prompt in prompts]
    run([Slot(each, engine.context()) for each in asked], engine, speculator)
    engine.close()
    assert {each.finish_reason for each in asked} == {"context"}
    for i, (each, prompt) in enumerate(zip(asked, prompts, strict=True)):
        start = 20 + i
        assert each.history == [*prompt, *ORDER[start : start + N_CTX - len(prompt) + 1]]


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_drafts_that_come_and_go_in_the_middle_of_a_reply(
    files: HeadFiles, noise: float, n_sequences: int
) -> None:
    """After 16 passes without them the states are not handed out any more, and come back."""
    engine = engine_of(files, 3, n_sequences)
    speculator = SometimesFixed(MtpDrafter(engine.head(files.head, 3)), 3)
    slots = [Slot(each, engine.context()) for each in generations(n_sequences, 90)]
    steps = run(slots, engine, speculator)
    engine.close()
    assert [s.generation.tokens for s in slots] == [expected(s.generation) for s in slots]
    late = [each for each in steps[0][20:] if each.drafted]
    assert late
    assert noise or all(each.accepted == 3 for each in late[:-1] if each.drafted == 3)


@pytest.mark.parametrize("n_sequences", [1, 3])
def test_a_state_that_was_saved_and_restored(
    files: HeadFiles, tmp_path: Path, n_sequences: int
) -> None:
    """No hidden states are in it: the head begins with the first pass that follows."""
    engine = engine_of(files, 3, n_sequences)
    speculator = Fixed(MtpDrafter(engine.head(files.head, 3)), 3)
    slots = [Slot(each, engine.context()) for each in generations(n_sequences)]
    run(slots, engine, speculator)
    for i, slot in enumerate(slots):
        slot.context.save(tmp_path / f"state{i}")
        slot.context.clear()
    assert all(slot.context.restore(tmp_path / f"state{i}") for i, slot in enumerate(slots))
    limits = Limits(N_CTX, 20, frozenset({EOS}))
    again = [Generation(slot.generation.history, GREEDY, limits) for slot in slots]
    found = run(
        [Slot(each, slot.context) for each, slot in zip(again, slots, strict=True)],
        engine, speculator,
    )  # fmt: skip
    engine.close()
    assert [each.tokens for each in again] == [expected(each) for each in again]
    assert all(sum(each.drafted for each in own) > len(own) for own in found)


@pytest.mark.parametrize("verification", ["rejection", "match"])
def test_samples_keep_the_law_of_the_target(folder: Path, verification: Verification) -> None:
    """Chi-square on the first two tokens, the second of which is drafted by a head that says
    something else than the target; exact odds come from the target itself."""
    files, sampling = files_of(folder, "hybrid", "inside", NEARLY), Sampling(temperature=8, top_k=4)
    engine, prompt = engine_of(files, 1), PROMPTS[1]
    context = engine.context()
    sampling = replace(sampling, top_p=1.0, min_p=0.0)
    expected = odds(context, prompt, Chooser(sampling))
    speculator = Fixed(MtpDrafter(engine.head(files.head, 1)), 1)
    found = sampled(
        300, Generation(prompt, sampling, Limits(N_CTX, 3), verification), context, speculator
    )
    engine.close()
    assert 0.2 < found.acceptance < 0.99
    found.assert_law(expected)


# sessions


def session_of(files: HeadFiles, **chosen: object) -> Session:
    settings = Settings.of(**{"ctx": N_CTX, "threads": 1, "gpu_layers": 0, **chosen})
    return Session.open(session_config(str(files.target), settings, is_auto=False))


@pytest.fixture(scope="module", params=["inside", "beside"])
def agreeing(request: pytest.FixtureRequest, folder: Path) -> HeadFiles:
    return files_of(folder, "hybrid", request.param, RIGHT)


def test_a_head_is_found_in_the_file_and_beside_it(agreeing: HeadFiles) -> None:
    head = agreeing.head.path
    assert found_head(agreeing.target, None) == (str(head) if head else OWN)
    assert found_head(agreeing.target, None, "eagle3") is None
    assert found_head(agreeing.target.with_name("nowhere.gguf"), None) is None
    empty = agreeing.target.with_name("empty.gguf")
    empty.touch()
    assert found_head(empty, None) is None


@pytest.mark.parametrize("spec", ["mtp", "auto"])
def test_a_session_drafts_with_it(agreeing: HeadFiles, spec: str) -> None:
    with session_of(agreeing, spec=spec) as session:
        assert session.head
        assert session.plan.settings.draft == (str(agreeing.head.path or OWN))
        reply = session.reply(PROMPTS[0], reply_options(temperature=0, max_tokens=20)).finish()
        assert reply.tokens == ORDER[40:60]
        if spec == "mtp":
            assert reply.stats.by_source["mtp"].accepted >= 12


def test_costs_of_a_head_are_kept(agreeing: HeadFiles) -> None:
    """As those of a draft model: measured once, not at each load."""
    with session_of(agreeing) as session:
        seconds = session.learned().drafting["mtp"].curve
    with session_of(agreeing) as session:
        assert session._store is not None
        kept = session.learned().drafting["mtp"].curve
    assert [p.n_tokens for p in kept.points] == [p.n_tokens for p in seconds.points]
    assert all(row[1] > 0 for row in kept.rows)


def test_without_drafts_no_head_is_loaded(agreeing: HeadFiles) -> None:
    """It takes memory, and states for rollback."""
    for chosen in ({"spec": "none"}, {"spec": "lookup"}, {"draft": "none"}):
        with session_of(agreeing, **chosen) as session:
            assert session.head is None
            assert not session.plan.target.settings.load_mtp


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of libllama without the functions that heads need."""
    from localspec.engine.llama import features

    nothing = dict.fromkeys(features._FUNCTIONS)
    monkeypatch.setattr(features, "_FUNCTIONS", nothing)


@pytest.mark.usefixtures("lacking")
def test_a_build_without_heads_says_so_and_goes_on(agreeing: HeadFiles) -> None:
    heard: list[str] = []
    config = session_config(str(agreeing.target), Settings.of(ctx=N_CTX, gpu_layers=0, spec="mtp"))
    with Session.open(config, heard.append) as session:
        reply = session.reply(PROMPTS[0], reply_options(temperature=0, max_tokens=20)).finish()
    assert reply.tokens == ORDER[40:60]
    assert any("this build of the engine has no llama_set_embeddings_nextn" in t for t in heard)


def test_auto_drafts_with_a_head_that_pays(agreeing: HeadFiles) -> None:
    """Look-ups find nothing in a text without repeats, so the head is the better expected one."""
    with session_of(agreeing, threads=1) as session:
        assert session._store
        options = reply_options(temperature=0, max_tokens=40)
        target = PassCosts(PassCurve((Point(1, 1e-2), Point(17, 1.1e-2))))
        target.learn(1, len(PROMPTS[0]), 1e-2)
        head = PassCosts(PassCurve((Point(1, 1e-5), Point(64, 1e-4))))
        session._store.learned = Learned(target, {"mtp": head})
        reply = session.reply(PROMPTS[0], options).finish()
        assert reply.tokens == expected_of(PROMPTS[0], 40)
        assert reply.stats.by_source["mtp"].accepted > 5


def expected_of(prompt: list[int], n: int) -> list[int]:
    return expected(Generation(prompt, GREEDY, Limits(N_CTX, n)))


def test_a_tuning_with_it_ends_with_an_answer(agreeing: HeadFiles) -> None:
    """On a busy machine drafts, its last stage, may not be reached; they never fail."""
    head = str(agreeing.head.path or OWN)
    config = SessionConfig.of(agreeing.target, head, ctx=N_CTX, threads=1, gpu_layers=0)
    subject = TuneTarget.of(config, lambda message: None)
    stages: list[str] = []
    outcome = search(subject, Goal(), 6.0, lambda stage, *best: stages.append(stage))
    assert stages[0] == "loading"
    assert (outcome.setting.threads or 0) >= 1
    assert not [note for note in outcome.notes if note.startswith("drafts")]
    assert not outcome.is_interrupted


def test_several_users_are_served_with_it(agreeing: HeadFiles) -> None:
    """Their drafts are made in one call a token, beside each other's prompts."""
    chosen = {"spec": "mtp", "n_sequences": 3, "kv_unified": True, "ctx": 256}
    with (
        session_of(agreeing, **chosen) as session,
        served(session, engine_thread_of(session)) as server,
    ):
        bodies = [
            {"prompt": prompt, "max_tokens": 40, "temperature": 0}
            for prompt in ("the cat", "1 2 3 1 2 3 1", "x" * 90)
        ]
        alone = [_text(server, body) for body in bodies]
        with ThreadPoolExecutor(3) as pool:
            together = list(pool.map(lambda body: _text(server, body), bodies))
        assert together == alone
        metrics = str(server.ask("GET", "/metrics")[1])
        server.wait_until_idle()
    accepted = re.search(r"spec_decode_num_accepted_tokens_total (\d+)", metrics)
    assert accepted
    assert int(accepted[1]) > 60
    with session_of(agreeing, spec="none") as plain:
        for body, text in zip(bodies, alone, strict=True):
            prompt = plain.raw_prompt(body["prompt"])
            reply = plain.reply(prompt, reply_options(temperature=0, max_tokens=40)).finish()
            assert reply.text == text


def _text(server: Served, body: dict[str, object]) -> str:
    status, document = server.post("/v1/completions", **body)
    assert status == 200, document
    return document["choices"][0]["text"]
