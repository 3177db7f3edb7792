"""A second question on a long text reads the question alone, in another process too."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from models import smollm2

from localspec.engine.sampling import Sampling
from localspec.session import kept_prompts
from localspec.session.config import ReplyOptions, SessionConfig
from localspec.session.session import Session

OPTIONS = ReplyOptions(Sampling(temperature=0), max_tokens=6, ignore_eos=True)
TEXT = " ".join(f"Line {i}: the ship sailed to port {i * 7 % 31}." for i in range(40))
FIRST, SECOND = f"{TEXT} To which port did it sail first?", f"{TEXT} How many lines are there?"


def asked(question: str, *, keeps: bool = True) -> tuple[Sequence[int], int, int]:
    """The answer, the tokens of the prompt and how many of them were read."""
    config = replace(SessionConfig.of(smollm2(), spec="none", ctx=1024), keeps_prompts=keeps)
    with Session.open(config) as session:
        prompt = session.raw_prompt(question)
        reply = session.reply(prompt, OPTIONS).finish()
        return reply.tokens, len(prompt), reply.steps[0].evaluated


def test_the_question_alone_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_prompts, "WORTH_S", 0.0)
    plain, n_prompt, n_read = asked(SECOND, keeps=False)
    assert n_read == n_prompt > 400
    asked(FIRST)
    again, n_prompt, n_read = asked(SECOND)
    assert n_read < n_prompt / 10
    assert again == plain


def test_what_was_read_fast_is_not_kept(
    localspec_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_prompts, "WORTH_S", 60.0)
    asked(FIRST)
    folder = localspec_home / "cache" / "prompts"
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert all(each.stat().st_mode & 0o077 == 0 for each in folder.iterdir())
