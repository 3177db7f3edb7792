"""Results of real measurements of a tiny random model, predicted for a made-up machine."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

from command import folder, tiny

from localspec.bench.case import Case, Work
from localspec.bench.measure import measure
from localspec.bench.prediction import Prediction, facts_of, predict
from localspec.bench.sample import Measurement
from localspec.bench.store import Results, ResultsHeader, Visited, Writer, read_results
from localspec.bench.visit import environment, model_record
from localspec.forecast.experience import Experience
from localspec.forecast.machine import PredictedMachine
from localspec.hardware.activity import Circumstances
from localspec.prediction.rates import IdealRates
from localspec.session.session_config import SessionConfig

IDEAL = PredictedMachine(
    "a machine that loses nothing", "made up", IdealRates(20e9, 5e11), 20e9, 5e11,
    experience=Experience({"another model, Q8_0, 135000000": 1.25}),
)  # fmt: skip


def config(spec: str = "none", kv: str = "f16") -> SessionConfig:
    flash = "on" if kv == "q8_0" else "auto"
    return SessionConfig.of(
        tiny(), spec=spec, kv_k=kv, kv_v=kv, flash_attn=flash, threads=1,  # type: ignore[arg-type]
        draft_max=3 if spec == "lookup" else None,
    )  # fmt: skip


@cache
def prompts() -> Path:
    path = folder() / "questions.jsonl"
    lines = [
        {"category": "echo", "turns": ["say it again: one two three four one two three four"]},
        {"category": "chat", "prompt": "Hello there, how are you?"},
        {"category": "chat", "prompt": "never asked, with one a category"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def cases() -> list[Case]:
    """Two cache types at two depths, two users, real questions with and without drafts, a curve."""
    work = Work(n_prompt=16, n_gen=8)
    real = Work(0, 8, prompts=prompts(), per_category=1)
    return [
        *(Case(config(kv=kv), replace(work, depth=d)) for kv in ("f16", "q8_0") for d in (0, 64)),
        Case(config(), replace(work, batch=2)),
        Case(config(), real),
        Case(config("lookup"), real),
        Case(config("lookup"), Work(0, 0, widths=(1, 2, 4))),
    ]


def prediction(case: Case) -> Prediction | None:
    if case.work.widths:
        return None
    return predict(case, IDEAL, facts_of(case.config.model))


@cache
def _measured() -> dict[Case, Measurement]:
    return {case: measure(case, 3) for case in cases()}


def visited(case: Case, number: int, factor: float = 1.0) -> Visited:
    """`factor`: as if everything had taken so many times as long."""
    found = _measured()[case]
    samples = tuple(
        replace(
            sample,
            decode_s=sample.decode_s and factor * sample.decode_s,
            prefill_s=sample.prefill_s and factor * sample.prefill_s,
        )
        for sample in found.samples
    )
    return Visited(
        number=number,
        case=case,
        is_anchor=number in (0, len(cases())),
        measurement=replace(found, samples=samples),
        reason=None,
        circumstances=Circumstances("on mains power", 1.0, 0.5, 0.0),
        prediction=prediction(case),
        environment=environment(),
        model=model_record(case.config.model),
    )


def results(path: Path, factor: float = 1.0) -> Results:
    """A file of two visits to each case."""
    all_cases = tuple(cases())
    skipped = (("a case with <angle> & ampersand", "it cannot be"),)
    with Writer.open(
        path, ResultsHeader("2026-11-25T02:00:00Z", all_cases, 2, 3, skipped)
    ) as writer:
        for number, case in enumerate([*all_cases, *all_cases[::-1]]):
            writer.add(visited(case, number, factor))
    return read_results(path)
