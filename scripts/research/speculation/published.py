"""Would predictions have told what drafts gained elsewhere?

    scripts/research/run validate-gains [--json] [--rows]

Rows of data/spec_results.csv and spec_results_2026.csv name their sources. Of those that state one
device of the table, a model, how many tokens were drafted and which share was accepted, the gain is
predicted from the device's name alone:

    gain = (1 + length * share) / (length * c + v(length + 1))

with c what a drafted token costs: of a draft model its own pass, of an MTP head one layer and the
output matrix. Servers measured them. What they take beside a pass counts, as runs of other models
taught it; `with_server` has also what a server takes for each token of a draft model beside its
pass: the median of rows of other sources, so that no row is judged by its own. That is no part of a
prediction for localspec, which measures its own drafting. A gain is right if it lies on the right
side of 1. Left out are several devices or users, and drafts that are seldom as long as
stated (n-grams, heads that stop when unsure).
"""

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from research.efficiency.fit import fit_of, published_batches
from research.efficiency.notes import Notes, number
from research.efficiency.places import place_of
from research.efficiency.runs import Run, usual_bits
from research.efficiency.shapes import shape_of
from research.efficiency.widths import Widths, growth, widths_of

from localspec.prediction.efficiency import Coefficients, dense_curve, expert_curve, weight_curve
from localspec.prediction.families import type_class

DATA = Path(__file__).parent / "data"
TABLES = ("spec_results.csv", "spec_results_2026.csv")
BACKENDS = ("cuda", "rocm", "vulkan", "metal", "sycl")
_SEVERAL = re.compile(r"\b[2-9] ?[x×]|\w \+ |^\d+ streams|cpu|not named|6 threads", re.IGNORECASE)  # noqa: RUF001
_SELDOM = re.compile(r"ngram|p-min|gated", re.IGNORECASE)
"""Drafts that are not as long as stated: only where a text repeats, or while the head is sure."""
_QUANT = re.compile(r"(?:UD-)?(?:IQ|Q)\d(?:_[A-Z0-9]+)*|(?<![A-Za-z])F16", re.IGNORECASE)
DEPTH = 512.0
SURE = 0.9


@dataclass(frozen=True, slots=True)
class Gain:
    """One row: times plain speed, measured and predicted."""

    name: str
    length: int
    share: float
    measured: float
    predicted: float
    plain_s: float
    has_model: bool
    """Whether a model drafts, and no head."""
    source: str = ""

    @property
    def beside_s(self) -> float:
        """What a drafted token took beyond its prediction."""
        accepted = 1 + self.length * self.share
        return self.plain_s * accepted * (1 / self.measured - 1 / self.predicted) / self.length

    def with_server(self, beside_s: float) -> "Gain":
        """With what a server takes for each token of a draft model."""
        if not self.has_model:
            return self
        accepted = 1 + self.length * self.share
        cost = accepted / self.predicted + self.length * beside_s / self.plain_s
        return replace(self, predicted=accepted / cost)

    @property
    def is_right(self) -> bool:
        return (self.measured >= 1) == (self.predicted >= 1)

    @property
    def error(self) -> float:
        return abs(self.predicted / self.measured - 1)


def main(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
    rows: Annotated[bool, typer.Option(help="Also every row.")] = False,
) -> None:
    """Compare published gains with predicted ones."""
    gains = list(published_gains())
    document: dict[str, Any] = {"alone": scores_of(gains)}
    times = {source: 1e3 * server_s(gains, source) for source in sorted({g.source for g in gains})}
    document["server_token_ms"] = sorted(times.values())
    gains = [gain.with_server(times[gain.source] / 1e3) for gain in gains]
    document["with_server"] = scores_of(gains)
    if as_json:
        print(json.dumps(document))
        return
    if rows:
        for gain in sorted(gains, key=lambda gain: -gain.error):
            print(
                f"{gain.name:60.60} {gain.length:3} {gain.share:5.2f}"
                f" {gain.measured:6.2f} {gain.predicted:6.2f}"
            )
    for name, value in document.items():
        print(f"{name:24}{value}")


def sure_from(gains: Iterable[Gain]) -> float:
    """The least predicted gain from which on nine in ten gained: below it, a gain is no promise."""
    kept = sorted(gains, key=lambda gain: gain.predicted)
    while kept and sum(gain.measured >= 1 for gain in kept) < SURE * len(kept):
        del kept[0]
    return kept[0].predicted if kept else float("inf")


def server_s(gains: Iterable[Gain], source: str) -> float:
    """What a server takes for a token of a draft model by other sources, each one voice."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for gain in gains:
        if gain.has_model and gain.source != source:
            times[gain.source].append(gain.beside_s)
    return max(0.0, median(map(median, times.values()))) if times else 0.0


def scores_of(gains: Iterable[Gain]) -> dict[str, Any]:
    """Counts, and the median error of the size."""
    gains = list(gains)
    losses = [gain for gain in gains if gain.measured < 1]
    return {
        "rows": len(gains),
        "sign_right": sum(gain.is_right for gain in gains) / len(gains),
        "losses": len(losses),
        "losses_right": sum(gain.is_right for gain in losses),
        "sure_from": sure_from(gains),
        "median_error": median(gain.error for gain in gains),
    }


def published_gains() -> Iterator[Gain]:
    """Of every row that says enough."""
    known = fit_of("decode").fitted.coefficients
    widths = widths_of(published_batches(), known)
    for table in TABLES:
        with (DATA / table).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if gain := _gain(row, known, widths):
                    yield gain


def _gain(row: dict[str, str], known: Coefficients, widths: Widths) -> Gain | None:
    plain, drafted = number(row["baseline_tps"]), number(row["spec_tps"])
    length, share = number(row["gamma"]), _share(row["acceptance"])
    is_said = plain and drafted and length and share is not None
    seldom = _SELDOM.search(f"{row['method']} {row['notes'].replace('ungated', '')}")
    if seldom or not is_said or _SEVERAL.search(row["device"]) or _SEVERAL.search(row["task"]):
        return None
    target = _run(row, row["target"])
    if target is None:
        return None
    draft_s = _draft_s(row, target, known)
    if draft_s is None:
        return None
    n = int(length)
    plain_s = _pass_s(target, known, widths, 1)
    cost = (n * draft_s + _pass_s(target, known, widths, n + 1)) / plain_s
    name = f"{row['device']}, {row['target']}, {row['method']}, {row['task']}"
    return Gain(
        name,
        n,
        share,
        drafted / plain,
        (1 + n * share) / cost,
        1 / plain,
        "mtp" not in row["method"],
        Notes(row["notes"]).source_of(row["source"]),
    )


def _share(text: str) -> float | None:
    """Of drafted tokens; of a range its middle."""
    found = [float(x) for x in re.findall(r"\d?\.\d+|[01](?![\d.])", text)]
    return sum(found[:2]) / len(found[:2]) if found else None


def _run(row: dict[str, str], model: str) -> Run | None:
    """A plain pass of a model on a row's device; None where either is not known."""
    shape = shape_of(re.sub(r"\.gguf$|-gguf", "", model), None)
    said = _QUANT.search(model) or _QUANT.search(row["device"]) or _QUANT.search(row["notes"])
    quant = said[0].upper() if said else "Q4_K_M"
    device = re.sub(r" \((?!\d+-core).*\)| \d+GB.*", "", row["device"])
    words = f"{row['method']} {row['device']} {row['notes']}".lower()
    backend = next((each for each in BACKENDS if each in words), "")
    if shape is None:
        return None
    place = place_of(
        {"device": device, "backend": backend, "source": "", "test": "server_gen", "model": model},
        Notes("build=1"), type_class(quant), shape,
    )  # fmt: skip
    if isinstance(place, str):
        return None
    n_bytes = shape.n_params * usual_bits(quant) / 8
    return Run(place, "decode", shape, n_bytes, DEPTH, 128, 1.0, "", None, 0)


def _draft_s(row: dict[str, str], target: Run, known: Coefficients) -> float | None:
    """Of one drafted token."""
    method = row["method"]
    if "mtp" in method:
        return _plain_s(replace(target, **_head(target)), known)
    draft = _run(row, row["draft"])
    return None if draft is None or "draft" not in method else _plain_s(draft, known)


def _head(target: Run) -> dict[str, Any]:
    """One layer of the target and its output matrix."""
    shape = target.shape
    layer = (shape.n_params - shape.expert_params - 2 * shape.table_params) / shape.n_layers
    head = replace(
        shape, n_layers=1, kv_bytes=shape.kv_bytes / shape.n_layers, is_tied=True, state_bytes=0.0,
        n_params=max(layer, 0.0) + shape.table_params + shape.expert_params / shape.n_layers,
        expert_params=shape.expert_params / shape.n_layers, lookup_params=0.0,
    )  # fmt: skip
    share = head.n_params / shape.n_params
    return {"shape": head, "file_bytes": target.file_bytes * share}


def _plain_s(run: Run, known: Coefficients) -> float:
    return sum(base * known.factor(run.conditions, part) for part, base in run.bases.items())


def _pass_s(run: Run, known: Coefficients, widths: Widths, n: int) -> float:
    """Of a pass over n tokens: experts by what n tokens touch, weights and all else by curves."""
    seconds = {part: base * known.factor(run.conditions, part) for part, base in run.bases.items()}
    experts_s, weights_s = seconds.pop("experts"), seconds.pop("weights")
    dense_s = sum(seconds.values()) * dense_curve(widths.dense, run.conditions).at(n)
    dense_s += weights_s * weight_curve(widths.dense, run.conditions).at(n)
    if not run.shape.is_mixture:
        return dense_s
    more = growth(run.shape, n) * expert_curve(widths.experts, run.conditions).at(n)
    return dense_s + experts_s * more
