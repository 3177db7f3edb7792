"""`generate --jsonl` with several prompts at once, on a real model."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import localspec
from models import smollm2

TIE = 0.3
"""Nats between two tokens that passes of other widths may swap."""


def answers(lines: Path, n_at_once: int) -> list[dict[str, Any]]:
    how = ("--temp", "0", "--max-tokens", "24", "--logprobs", "2", "--ctx", "512")
    run = localspec("generate", smollm2(), "--jsonl", lines, "--parallel", str(n_at_once), *how)
    assert run.code == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_prompts_that_are_answered_at_once_have_the_answers_that_each_has_alone(
    tmp_path: Path,
) -> None:
    lines = tmp_path / "prompts.jsonl"
    topics = ("a fox", "the sea", "bread", "a clock", "rain", "chess")
    lines.write_text("\n".join(json.dumps(f"Tell me about {topic}.") for topic in topics))
    alone, together = answers(lines, 1), answers(lines, 3)
    assert [each["line"] for each in together] == [1, 2, 3, 4, 5, 6]
    assert len({each["text"] for each in together}) == len(topics)
    for one, other in zip(alone, together, strict=True):
        pairs = zip(one["tokens"], other["tokens"], strict=True)
        n = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        if n is not None:
            first, second = one["logprobs"][n]["top"]
            assert first["logprob"] - second["logprob"] == pytest.approx(0, abs=TIE)
