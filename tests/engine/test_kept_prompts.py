"""A second question on a long text reads the question alone, in another process too."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from command import ANSWER, localspec
from hybrids import LIMITED, write_random_limited
from models import gemma, smollm2

from localspec.engine.sampling import Sampling
from localspec.session import disk_cache
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

OPTIONS = ReplyOptions(Sampling(temperature=0), max_tokens=6, ignore_eos=True)
TEXT = " ".join(f"Line {i}: the ship sailed to port {i * 7 % 31}." for i in range(40))
FIRST, SECOND = f"{TEXT} To which port did it sail first?", f"{TEXT} How many lines are there?"


def asked(
    question: str, model: Path | None = None, *, keeps: bool = True
) -> tuple[Sequence[int], int, int]:
    """The answer, the tokens of the prompt and how many of them were read."""
    config = SessionConfig.of(model or smollm2(), spec="none", ctx=2048, threads=1)
    with Session.open(replace(config, keeps_prompts=keeps)) as session:
        prompt = session.raw_prompt(question)
        reply = session.reply(prompt, OPTIONS).finish()
        return reply.tokens, len(prompt), reply.steps[0].evaluated


def test_the_question_alone_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "WORTH_S", 0.0)
    plain, n_prompt, n_read = asked(SECOND, keeps=False)
    assert n_read == n_prompt > 400
    asked(FIRST)
    again, n_prompt, n_read = asked(SECOND)
    assert n_read < n_prompt / 10
    assert again == plain


def test_what_was_read_fast_is_not_kept(
    localspec_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "WORTH_S", 60.0)
    asked(FIRST)
    folder = localspec_home / "cache" / "prompts"
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert all(each.stat().st_mode & 0o077 == 0 for each in folder.iterdir())


@pytest.fixture(params=LIMITED)
def limited(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A memory with a window or a state, on a tokenizer of bytes."""
    return write_random_limited(tmp_path / "model.gguf", request.param)


@pytest.mark.parametrize("text", [TEXT, TEXT + "\n\nSay in one word." + " Think.", TEXT + "\n"])
def test_a_memory_that_cannot_go_back_reads_the_question_alone(
    limited: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had read behind the text is no part of the next prompt."""
    monkeypatch.setattr(disk_cache, "WORTH_S", 0.0)
    first, second = f"{text} To which port did it sail first?", f"{text} How many lines are there?"
    plain, n_prompt, n_read = asked(second, limited, keeps=False)
    assert n_read == n_prompt > 1000
    asked(first, limited)
    again, _, n_read = asked(second, limited)
    assert n_read <= len(" How many lines are there?")
    assert again == plain


def test_where_texts_part_elsewhere_is_known_from_the_second_on(
    limited: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question of many sentences: nothing tells its beginning but the next one."""
    monkeypatch.setattr(disk_cache, "WORTH_S", 0.0)
    rest = " It is so. We know that. Nobody denies it. Say who. Say when. Say why."
    n_asked = [asked(f"{TEXT} {who} sailed.{rest}", limited)[1:] for who in ("Ann", "Bob", "Eve")]
    assert [n_read == n_prompt for n_prompt, n_read in n_asked] == [True, True, False]
    assert n_asked[2][1] <= len(f" Eve sailed.{rest}") + 1


def test_gemma_reads_the_question_alone_in_another_process(tmp_path: Path) -> None:
    text = " ".join(f"Line {i}: the ship sailed to port {i * 7 % 31}." for i in range(110))
    rows: list[int] = []
    log = tmp_path / "log.txt"
    log.write_text(text)
    for question in ("To which port did it sail first?", "How many lines are there?"):
        arguments = ("generate", gemma(), *ANSWER, "--raw", "--spec", "none", "-n", "2", "--json")
        run = localspec(*arguments, "-p", f" {question}", stdin=log.read_bytes())
        assert run.code == 0, run.stderr
        timings = run.document["timings"]
        rows.append(round(timings["prefill_s"] * timings["prefill_tps"]))
    assert rows[0] > 1500
    assert rows[1] < 20
