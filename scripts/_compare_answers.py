"""Are greedy answers the same plainly, with prompt lookup and with a draft model?

    scripts/compare-answers --prompts FILE.jsonl [--json]

FILE has one JSON object a line with "turns" (a list of texts, the first is asked) or "prompt", and
may have "category"; Spec-Bench's question file is of this form. Exit code 1 where an answer differs
by more than rounding explains.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from _answers import Divergence, diverge
from _models import Pair, gemma_pair, smollm2_pair

from localspec.dialogue.template import Message
from localspec.engine.sampling import Sampling
from localspec.session import ReplyOptions, Session, SessionConfig

WAYS = ("none", "lookup", "draft")


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
    asked = _spread(_read(prompts), questions)
    makers = {"smollm2": smollm2_pair, "gemma": gemma_pair}
    results = [_compare(makers[name](), asked, max_tokens, draft_max) for name in pairs.split(",")]
    if as_json:
        print(json.dumps({"results": results}))
    for result in results:
        _show(result, sys.stderr if as_json else sys.stdout)
    if any(result["unexplained"] for result in results):
        raise typer.Exit(1)


def _read(path: Path) -> list[str]:
    rows = [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    return [row["turns"][0] if "turns" in row else row["prompt"] for row in rows]


def _spread(texts: list[str], n: int) -> list[str]:
    """`n` texts at even distances, so that every part of a sorted file is asked."""
    n = min(n, len(texts))
    return [texts[i * len(texts) // n] for i in range(n)]


def _compare(pair: Pair, texts: list[str], max_tokens: int, draft_max: int) -> dict[str, Any]:
    answers: dict[str, list[list[int]]] = {}
    prompts: list[list[int]] = []
    passes = dict.fromkeys(WAYS, 0)
    options = ReplyOptions(Sampling(temperature=0), max_tokens)
    for way in WAYS:
        config = SessionConfig.of(pair.target, pair.draft, spec=way, draft_max=draft_max)
        with Session.open(config) as session:
            prompts = [session.chat_prompt([Message(role="user", content=text)]) for text in texts]
            replies = [session.reply(prompt, options).finish() for prompt in prompts]
            answers[way] = [reply.tokens for reply in replies]
            passes[way] = sum(reply.counts.passes for reply in replies)
    with Session.open(SessionConfig.of(pair.target, spec="lookup", draft_max=draft_max)) as session:
        divergences = [
            {"way": way, "prompt": i, **_described(found)}
            for way in WAYS[1:]
            for i, prompt in enumerate(prompts)
            if (
                found := diverge(
                    session, prompt, answers["none"][i], answers[way][i], draft_max + 1
                )
            )
        ]
    n_tokens = sum(len(answer) for answer in answers["none"])
    return {
        "pair": pair.name,
        "prompts": len(prompts),
        "over_512_tokens": sum(
            len(p) + len(a) > 512 for p, a in zip(prompts, answers["none"], strict=True)
        ),
        "tokens": n_tokens,
        "tokens_per_pass": {way: sum(map(len, answers[way])) / passes[way] for way in WAYS},
        "divergences": divergences,
        "unexplained": sum(not d["excused"] for d in divergences),
    }


def _described(found: Divergence) -> dict[str, Any]:
    return {
        "position": found.position,
        "margin": found.margin,
        "largest_difference": found.largest_difference,
        "excused": found.is_excused,
    }


def _show(result: dict[str, Any], out: Any) -> None:
    per_pass = ", ".join(f"{way} {n:.2f}" for way, n in result["tokens_per_pass"].items())
    same = 2 * result["prompts"] - len(result["divergences"])
    print(
        f"{result['pair']}: {same} of {2 * result['prompts']} drafted answers are the plain ones"
        f" ({result['tokens']:,} tokens; tokens a pass: {per_pass})",
        file=out,
    )
    for d in result["divergences"]:
        rounding = d["largest_difference"]
        verdict = "rounding" if d["excused"] else "NOT EXPLAINED"
        print(
            f"  {d['way']}, prompt {d['prompt']}: parts at token {d['position']},"
            f" margin {d['margin']:.3f}, largest difference of logits {rounding:.3f}: {verdict}",
            file=out,
        )


if __name__ == "__main__":
    typer.run(main)
