"""Questions for measuring: from a file, the same ones for the same seed."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from localspec.errors import UserError


@dataclass(frozen=True, slots=True)
class Question:
    """A text to ask; `number` is its line in the file."""

    number: int
    category: str
    text: str


def read_questions(path: Path) -> list[Question]:
    """One JSON object a line with "turns" (the first is asked) or "prompt", perhaps "category"."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): check --prompts") from error
    questions: list[Question] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row["turns"][0] if "turns" in row else row["prompt"]
            questions.append(Question(number, str(row.get("category", "all")), text))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f'{path}, line {number} is no JSON object with "turns" or "prompt"'
            ) from error
    if not questions:
        raise UserError(f"{path} has no questions")
    return questions


def choose(questions: list[Question], n: int, seed: int) -> list[Question]:
    """At most `n` of each category, one of each in turn, so that a part of them covers all."""
    by_category: dict[str, list[Question]] = {}
    for question in questions:
        by_category.setdefault(question.category, []).append(question)
    for category, asked in by_category.items():
        random.Random(f"{seed} {category}").shuffle(asked)
        del asked[n:]
    return [asked[i] for i in range(n) for asked in by_category.values() if i < len(asked)]
