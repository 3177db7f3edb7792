"""Are greedy answers the same plainly, with prompt lookup and with a draft model?

    scripts/research/run compare-answers --prompts FILE.jsonl [--json]

`localspec bench --same-answer` for two real pairs, and questions spread over a file. FILE has one
JSON object a line with "turns" (a list of texts, the first is asked) or "prompt"; Spec-Bench's
question file is of this form. Exit code 1 where an answer differs by more than rounding explains.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from models import Pair, gemma_pair, smollm2_pair
from research.speculation.questions import read_questions

from localspec.bench.same_answer import AnswerComparison, compare_answers
from localspec.session.session_config import SessionConfig

PAIRS = {"smollm2": smollm2_pair, "gemma": gemma_pair}


def main(
    prompts: Annotated[Path, typer.Option(help="A file of prompts, one JSON object a line.")],
    questions: Annotated[int, typer.Option(help="How many to ask, spread over the file.")] = 30,
    max_tokens: Annotated[int, typer.Option("-n", "--max-tokens")] = 64,
    draft_max: Annotated[int, typer.Option(help="Tokens in a draft.")] = 3,
    pairs: Annotated[
        str, typer.Option(help="smollm2, gemma, or both with a comma.")
    ] = "smollm2,gemma",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Compare greedy answers to the same prompts, three ways."""
    asked = _spread([question.text for question in read_questions(prompts)], questions)
    found = {
        pair.name: _compared(pair, asked, max_tokens, draft_max)
        for pair in (PAIRS[name]() for name in pairs.split(","))
    }
    if as_json:
        results = [{"pair": name, **one.to_json()} for name, one in found.items()]
        print(json.dumps({"results": results}))
    for one in found.values():
        print(one.text, file=sys.stderr if as_json else sys.stdout)
    if any(one.n_unexplained for one in found.values()):
        raise typer.Exit(1)


def _spread(texts: list[str], n: int) -> list[str]:
    """`n` texts at even distances, so that every part of a sorted file is asked."""
    n = min(n, len(texts))
    return [texts[i * len(texts) // n] for i in range(n)]


def _compared(pair: Pair, texts: list[str], max_tokens: int, draft_max: int) -> AnswerComparison:
    drafted = [
        SessionConfig.of(pair.target, draft, spec=spec, draft_max=draft_max)
        for spec, draft in (("lookup", None), ("draft", pair.draft))
    ]
    plain = SessionConfig.of(pair.target, spec="none")
    return compare_answers(plain, drafted, texts, max_tokens)
