"""How right are predictions from a probe of this machine?

    scripts/check-probe [--again] [--json]

Predicts decoding, v(n) = T(n) / T(1) and reading a prompt of SmolLM2 and Gemma variants by depth
and cache type, from a probe that no run of these models enters, then measures them. Nothing is
fitted in between. What other programs took of the processors meanwhile is said at the end.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from _models import gemma, smollm2, variant

from localspec.engine.base import EngineConfig
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.engine import LlamaEngine
from localspec.forecast.forecast import facts_of
from localspec.forecast.sources import MachineChoice, predicted_machine
from localspec.hardware.activity import Watch
from localspec.hardware.detect import usable_cores
from localspec.predict.roofline import Roofline
from localspec.settings import Attention

DEPTHS = (0, 512, 2048)
TYPES = ("f16", "bf16", "q8_0")
WIDTHS = (2, 3, 4, 5, 8, 12, 16)
PROMPT = 512
REPEATS, PROMPTS = 5, 2


def main(
    again: Annotated[bool, typer.Option("--again", help="Probe this machine anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Predict, then measure."""
    rows: list[dict[str, Any]] = []
    watch = Watch.now()
    for i, path in enumerate(_models()):
        rows += _check(path, again=again and i == 0)
    errors = {what: _median_error(rows, what) for what in ("decode", "verify", "prefill")}
    others = watch.others_share()
    if as_json:
        print(json.dumps({"median_error": errors, "others_share": others, "rows": rows}))
        return
    for row in rows:
        what = f"v({row['width']})" if row["what"] == "verify" else row["what"]
        print(
            f"{row['model']:42}{row['kv']:>6}{row['depth']:6}  {what:8}"
            f"{row['predicted']:9.2f}{row['measured']:9.2f}"
            f"{row['predicted'] / row['measured'] - 1:+8.0%}"
        )
    print("median error:", ", ".join(f"{what} {error:.1%}" for what, error in errors.items()))
    print(f"other programs had {others:.0%} of the processors meanwhile")


def _median_error(rows: list[dict[str, Any]], what: str) -> float:
    return median(abs(r["predicted"] / r["measured"] - 1) for r in rows if r["what"] == what)


def _models() -> Iterator[Path]:
    yield smollm2()
    yield variant(smollm2(), "Q8_0")
    yield variant(smollm2(), "F16")
    yield gemma()
    yield variant(gemma(), "F16")


def _check(path: Path, *, again: bool) -> Iterator[dict[str, Any]]:
    facts = facts_of(str(path))
    caches = [Attention(name, name) for name in TYPES]
    choice = MachineChoice(probe="again" if again else "auto", n_gpu_layers=0)
    machine = predicted_machine(choice, [facts], caches, 4096, lambda message: None)
    for cache in caches:
        kv = cache.type_k.name.lower()
        print(f"{path.name} with {kv} keys and values", file=sys.stderr)
        roofline = Roofline(facts, machine.shares_of(facts), cache)
        predicted, measured = _predicted(roofline), _measured(path, kv)
        for (depth, width), seconds in measured.items():
            what = "decode" if width == 1 else "prefill" if width == PROMPT else "verify"
            yield {
                "model": path.name,
                "kv": kv,
                "depth": depth,
                "width": width,
                "what": what,
                "predicted": predicted[depth, width],
                "measured": seconds / measured[depth, 1] if what == "verify" else width / seconds,
            }


def _predicted(roofline: Roofline) -> dict[tuple[int, int], float]:
    """Tokens a second of one token and of a prompt, v(n) of what lies between."""
    found = {(depth, 1): roofline.decode(depth).mid for depth in DEPTHS}
    found |= {(0, PROMPT): roofline.prefill(PROMPT).mid}
    return found | {(depth, n): roofline.verify(n, depth) for depth in DEPTHS for n in WIDTHS}


def _measured(path: Path, kv: str) -> dict[tuple[int, int], float]:
    """Median seconds by depth and width; widths take turns, so that drift meets all of them.

    Each turn is two passes, of which the second counts: the first of a width builds its graph.
    """
    config = EngineConfig.of(
        path, max(WIDTHS), ctx=4096, threads=usable_cores(), kv_k=kv, kv_v=kv,
        flash_attn="on", gpu_layers=0,
    )  # fmt: skip
    engine = LlamaEngine(config)
    try:
        context, found = engine.context(), dict[tuple[int, int], float]()
        for depth in DEPTHS:
            n_more = depth - len(context.tokens)
            if n_more:
                context.eval([100 + i % 400 for i in range(n_more)], 0)
            times: dict[int, list[float]] = {width: [] for width in (1, *WIDTHS)}
            for _ in range(REPEATS):
                for width, spent in times.items():
                    _seconds(engine, context, width, depth)
                    spent.append(_seconds(engine, context, width, depth))
            found |= {(depth, width): median(spent) for width, spent in times.items()}
        context.truncate(0)
        prompts = [_seconds(engine, context, PROMPT, 0) for _ in range(PROMPTS)]
        return found | {(0, PROMPT): median(prompts)}
    finally:
        engine.close()


def _seconds(engine: LlamaEngine, context: LlamaContext, width: int, depth: int) -> float:
    before = engine.busy_s
    context.eval([100 + i % 400 for i in range(width)], 1 if width == PROMPT else width)
    elapsed = engine.busy_s - before
    context.truncate(depth)
    return elapsed


if __name__ == "__main__":
    typer.run(main)
