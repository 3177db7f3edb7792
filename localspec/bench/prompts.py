"""Questions of real text by category, from JSON lines: drafting on random tokens means nothing.

A line is {"category": ..., "turns": [...]} (Spec-Bench's form, of which the first turn is asked) or
{"prompt": ...}; a category that is not given is "text".
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localspec.errors import UserError


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question."""

    category: str
    text: str


def read_prompts(path: Path, per_category: int) -> list[Prompt]:
    """The first `per_category` of each category, in order. UserError where there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"--prompts {path} cannot be read: {reason}") from error
    taken: Counter[str] = Counter()
    prompts: list[Prompt] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        prompt = _prompt(path, number, line)
        if taken[prompt.category] < per_category:
            taken[prompt.category] += 1
            prompts.append(prompt)
    if not prompts:
        raise UserError(
            f'--prompts {path} has no line such as {{"prompt": "Why is the sky blue?"}}'
        )
    return prompts


def _prompt(path: Path, number: int, line: str) -> Prompt:
    try:
        document: Any = json.loads(line)
        turns = document.get("turns")
        text = turns[0] if turns else document["prompt"]
        if not isinstance(text, str) or not text.strip():
            raise ValueError
        return Prompt(str(document.get("category", "text")), text)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f'--prompts {path}, line {number}: not {{"category": ..., "turns": [...]}} or'
            ' {"prompt": ...}'
        ) from error
