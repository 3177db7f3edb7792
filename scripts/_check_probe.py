"""How right are predictions from a probe of this machine?

    scripts/check-probe [--again] [--json]

Predicts decoding and v(n) = T(n) / T(1) of SmolLM2 and Gemma variants by depth and cache type, from
a probe that no run of these models enters, then measures them. Nothing is fitted in between.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from _models import gemma, smollm2, variant

from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.hardware.detect import usable_cores
from localspec.model.facts import cache_type
from localspec.predict.roofline import CacheSetting, Roofline
from localspec.session.forecast import facts_of
from localspec.session.machine import MachineChoice, predicted_machine

DEPTHS = (0, 512, 2048)
TYPES = ("f16", "bf16", "q8_0")
WIDTHS = (2, 3, 4, 5, 6, 8, 12, 16)
REPEATS = 9


def main(
    again: Annotated[bool, typer.Option("--again", help="Probe this machine anew.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Predict, then measure."""
    rows: list[dict[str, Any]] = []
    for i, path in enumerate(_models()):
        rows += _check(path, again=again and i == 0)
    errors = {
        "decode": median(abs(r["predicted"] / r["measured"] - 1) for r in rows if r["width"] == 1),
        "verify": median(abs(r["predicted"] / r["measured"] - 1) for r in rows if r["width"] > 1),
    }
    if as_json:
        print(json.dumps({"median_error": errors, "rows": rows}))
        return
    for row in rows:
        what = "tok/s" if row["width"] == 1 else f"v({row['width']})"
        print(
            f"{row['model']:42}{row['kv']:>6}{row['depth']:6}  {what:6}"
            f"{row['predicted']:9.2f}{row['measured']:9.2f}"
            f"{row['predicted'] / row['measured'] - 1:+8.0%}"
        )
    print(f"median error: decode {errors['decode']:.1%}, v(n) {errors['verify']:.1%}")


def _models() -> Iterator[Path]:
    yield smollm2()
    yield variant(smollm2(), "Q8_0")
    yield variant(smollm2(), "F16")
    yield gemma()
    yield variant(gemma(), "F16")


def _check(path: Path, *, again: bool) -> Iterator[dict[str, Any]]:
    facts = facts_of(str(path))
    caches = [CacheSetting(cache_type(name), cache_type(name)) for name in TYPES]
    choice = MachineChoice(probe="again" if again else "auto", n_gpu_layers=0)
    machine = predicted_machine(choice, [facts], caches, 4096, lambda message: None)
    for cache in caches:
        roofline = Roofline(facts, machine.shares_of(facts), cache)
        measured = _measured(path, cache.type_k.name.lower())
        for depth in DEPTHS:
            seconds = measured[depth]
            for width in (1, *WIDTHS):
                yield {
                    "model": path.name,
                    "kv": cache.type_k.name.lower(),
                    "depth": depth,
                    "width": width,
                    "predicted": 1 / roofline.seconds(1, depth)
                    if width == 1
                    else roofline.verify(width, depth),
                    "measured": 1 / seconds[1] if width == 1 else seconds[width] / seconds[1],
                }


def _measured(path: Path, kv: str) -> dict[int, dict[int, float]]:
    """Median seconds by depth and width; widths take turns, so that drift meets all of them."""
    config = EngineConfig(
        path, n_ctx=4096, n_threads=usable_cores(), n_outputs=max(WIDTHS), kv_k=kv, kv_v=kv,
        flash_attn="on", n_gpu_layers=0,
    )  # fmt: skip
    engine = LlamaEngine(config)
    try:
        context, found = engine.context(), dict[int, dict[int, float]]()
        for depth in DEPTHS:
            n_more = depth - len(context.tokens)
            if n_more:
                context.eval([100 + i % 400 for i in range(n_more)], 0)
            times: dict[int, list[float]] = {width: [] for width in (1, *WIDTHS)}
            for _ in range(REPEATS):
                for width, spent in times.items():
                    before = engine.busy_s
                    context.eval([100 + i for i in range(width)], width)
                    spent.append(engine.busy_s - before)
                    context.truncate(depth)
            found[depth] = {width: median(spent) for width, spent in times.items()}
        return found
    finally:
        engine.close()


if __name__ == "__main__":
    typer.run(main)
