"""`localspec predict`: a model's speed on a machine, before the download."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from localspec.cli.notify import notify
from localspec.cli.options import (
    MAX_TOKENS,
    JsonFlag,
    ModelArgument,
    command,
    numbers,
    option,
    setting,
    several,
    share,
)
from localspec.cli.output import print_json, write_text
from localspec.errors import UserError
from localspec.settings import MAX_THREADS, FlashAttention, Split

if TYPE_CHECKING:
    from localspec.bench.report.chart import Chart
    from localspec.forecast.forecast import Forecast, SpeculationRow

PICTURE = ".svg"
MAX_BATCH = 4096
_MACHINE = "Machine"
_QUESTION = "Question"


@dataclass(frozen=True)
class MachineFlags:
    """The machine to predict for."""

    device: str | None = option(
        None, 'Another machine, e.g. "RTX 4090", or devices of this one by their names.',
        metavar="NAME", panel=_MACHINE,
    )  # fmt: skip
    threads: int | None = setting("threads", min=1, max=MAX_THREADS, panel=_MACHINE)
    gpu_layers: int = setting(
        "gpu_layers", "Layers on the GPU, the others on this processor; -1: all that fit.",
        panel=_MACHINE,
    )  # fmt: skip
    workers: tuple[str, ...] = setting("workers", panel=_MACHINE)
    split: Split = setting("split", panel=_MACHINE)
    cpu_moe: int = setting("cpu_moe", panel=_MACHINE)
    probe: Literal["auto", "again", "off"] = option(
        "auto", "Measure this machine: if needed, again, or never.",
        panel=_MACHINE,
    )  # fmt: skip
    results: list[str] | None = option(
        None, "Results of bench or llama-bench, here or elsewhere, that correct it; repeatable.",
        "--from", metavar="FILE", panel=_MACHINE,
    )  # fmt: skip

    def keywords(self) -> dict[str, Any]:
        """As `predict` of the library takes them. UserError for files that are no results."""
        words = asdict(self)
        files = words.pop("results")
        if files:
            from localspec.bench.measured_runs import runs_of

            words["runs"] = runs_of(files, notify)
        return words


@dataclass(frozen=True)
class QuestionFlags:
    """The question: each combination of cache types, depths and batches is a row."""

    kv_k: str | None = option(None, "Types of the K cache.", metavar="TYPE,...", panel=_QUESTION)
    kv_v: str | None = option(None, "Types of the V cache.", metavar="TYPE,...", panel=_QUESTION)
    flash_attn: FlashAttention = setting(
        "flash_attn", "Flash attention; auto counts as on.", panel=_QUESTION
    )
    depth: str = option(
        "0,1024,4096", "Tokens in the context before.", metavar="N,...", panel=_QUESTION
    )
    batch: str = option(
        "1", "Sequences in one pass: parallel users; auto: up to the break-even.",
        metavar="N,...", panel=_QUESTION,
    )  # fmt: skip
    accept: str = option(
        "0.5,0.7,0.9", "Chances that a drafted token is accepted.", metavar="P,...", panel=_QUESTION
    )
    prompt_tokens: int = option(
        512,
        "Length of the prompt, for the time to the first token.",
        min=1,
        max=MAX_TOKENS,
        panel=_QUESTION,
    )
    ctx: int | None = setting("ctx", min=2, max=MAX_TOKENS, panel=_QUESTION)
    quants: bool = option(
        False, "Also other weight quantizations of the model.", "--quants", panel=_QUESTION
    )

    def keywords(self) -> dict[str, Any]:
        """As `predict` of the library takes them. Raises UserError for a wrong list."""
        is_auto = self.batch == "auto"
        return asdict(self) | {
            "kv_k": self.kv_k and several("--kv-k", self.kv_k, str, "a type"),
            "kv_v": self.kv_v and several("--kv-v", self.kv_v, str, "a type"),
            "depth": numbers("--depth", self.depth, 0, MAX_TOKENS),
            "batch": "auto" if is_auto else numbers("--batch", self.batch, 1, MAX_BATCH, "auto"),
            "accept": several("--accept", self.accept, share, "a number from 0 to 1"),
        }


@command
def predict(
    machine: MachineFlags,
    asked: QuestionFlags,
    model: ModelArgument = None,
    draft: str | None = typer.Option(
        None, metavar="MODEL|own|auto", help="A draft model or head; own: the head in MODEL's file."
    ),
    plot: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="Write a picture of the speed, its interval and the gain of drafts (.svg).",
    ),
    as_json: JsonFlag = False,
) -> None:
    """Predict a model's speed on a machine, before the download.

    localspec predict hf:owner/repo/model.gguf --device "RTX 4090"

    localspec predict model.gguf --draft small.gguf --accept .5,.7,.9 --batch 1,8 --depth 0,4096
    """
    if plot and plot.suffix.lower() != PICTURE:
        raise UserError(f"--plot {plot} is no picture that can be written: end it in {PICTURE}")
    keywords = machine.keywords() | asked.keywords() | {"draft": draft}
    from localspec.forecast.question import answer, read_question

    forecast = answer(model, *read_question(**keywords), notify)
    if plot:
        write_plot(forecast, plot)
    from localspec.cli.predict_document import document
    from localspec.cli.predict_output import show

    if as_json:
        print_json(document(forecast))
    else:
        show(forecast)


def write_plot(forecast: "Forecast", path: Path) -> None:
    """Draw the gain of drafts, a panel for each depth and batch. Raises UserError if that fails."""
    from localspec.bench.report.svg import picture

    target = forecast.facts.name or forecast.facts.path
    draft = forecast.draft.name or forecast.draft.path if forecast.draft else "lookup"
    title = f"{draft} drafts for {target} on {forecast.machine.name}"
    panels = [_speeds(forecast), *(_gains(row) for row in forecast.speculation)]
    panels[1:1] = _resting(forecast)
    write_text(path, "--plot", picture(title, panels))


def _speeds(forecast: "Forecast") -> "Chart":
    """Plain decoding by depth, with the interval, and what it rests on."""
    from localspec.bench.report.chart import Chart, ChartPoint, Series

    first = forecast.rows[0]
    rows = [r for r in forecast.rows if (r.cache, r.batch) == (first.cache, first.batch)]
    names = {"mid": "predicted", "low": "80 % interval", "high": ""}
    series = tuple(
        Series(
            label,
            tuple(ChartPoint(row.depth, getattr(row.decode, name)) for row in rows),
            "line",
            dashed=name != "mid",
            tone=0 if name == "mid" else None,
        )
        for name, label in names.items()
    )
    title = f"decoding: rests on {forecast.machine.rates.source}"
    return Chart("speed", title, "", "tokens in the context", "tokens per second", series)


def _resting(forecast: "Forecast") -> "list[Chart]":
    """The runs that the prediction rests on, each beside what was predicted without it."""
    from localspec.bench.report.chart import Chart, ChartPoint, Series

    runs = forecast.machine.experience.runs
    if not runs:
        return []
    groups = {
        "this machine": [each for each in runs if each.is_of_machine],
        "this model elsewhere": [r for r in runs if r.is_of_model and not r.is_of_machine],
        "others": [r for r in runs if not r.is_of_model and not r.is_of_machine],
    }
    series = [
        Series(
            name,
            tuple(
                ChartPoint(each.predicted_per_s, each.run.tokens_per_s, note=each.run.text)
                for each in found
            ),
            tone=i,
        )
        for i, (name, found) in enumerate(groups.items())
        if found
    ]
    ends = [f(each.predicted_per_s for each in runs) for f in (min, max)]
    equal = Series("", tuple(ChartPoint(x, x) for x in ends), "line", tone=None)
    title = f"rests on {len(runs)} measured runs"
    labels = ("tokens per second, predicted without them", "measured")
    return [Chart("runs", title, "", *labels, (equal, *series), is_log=True)]


def _gains(row: "SpeculationRow") -> "Chart":
    """Speed-up by draft length, a line for each acceptance with its best length marked."""
    from localspec.bench.report.chart import Chart, ChartPoint, Series
    from localspec.format import percent

    lengths = range(row.costs.max_draft + 1)
    plain = Series("", tuple(ChartPoint(n, 1.0) for n in lengths), "line", tone=None)
    lines = [
        Series(
            f"{percent(gain.acceptance)} accepted, best {gain.n_draft}",
            tuple(ChartPoint(n, row.costs.speedup(gain.acceptance, n)) for n in lengths),
            "line",
            tone=i,
        )
        for i, gain in enumerate(row.best)
    ]
    title = f"depth {row.depth:,}, batch {row.batch}"
    return Chart("gain", title, "", "drafted tokens", "times plain speed", (plain, *lines))
