"""`localspec predict`: a model's speed on a machine, before the download."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

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
from localspec.cli.output import fields_of, notify, print_json
from localspec.errors import UserError
from localspec.settings import MAX_THREADS, FlashAttention, Split

if TYPE_CHECKING:
    from localspec.forecast.corrections import RestingRun
    from localspec.forecast.forecast import Forecast, ForecastRow, SpeculationRow
    from localspec.forecast.head_forecast import HeadForecast
    from localspec.prediction.speculation import Advice

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
    from localspec.cli.predict_output import show, write_plot

    if plot:
        write_plot(forecast, plot)

    if as_json:
        print_json(document(forecast))
    else:
        show(forecast)


DEVICE = (
    "name", "bandwidth_bytes_per_s", "flops_per_s", "memory_bytes", "free_bytes", "source",
)  # fmt: skip
MODEL = (
    "path", "name", "architecture", "file_type", "n_params", "active_params", "n_layers",
    "n_ctx_train", "weight_bytes", "streamed_bytes",
)  # fmt: skip


HEAD = (
    "method", "file", "is_inside", "n_draft_max", "weight_bytes", "step_bytes", "token_bytes",
    "context_bytes", "n_snapshots", "snapshot_bytes", "memory_bytes", "pays_for_users",
)  # fmt: skip


def document(forecast: "Forecast") -> dict[str, Any]:
    """Plain values; an unknown one is null."""
    return {
        "device": {**fields_of(forecast.machine, *DEVICE), "rates": forecast.machine.rates.source},
        "devices": _devices(forecast),
        "verdict": forecast.machine.verdict(forecast.facts, forecast.rows[0].cache),
        "model": fields_of(forecast.facts, *MODEL),
        "rows": [_row(row) for row in forecast.rows],
        "ceiling_tps": forecast.ceiling_tps,
        "break_even_batch": forecast.break_even_batch,
        "speculation": _speculation(forecast),
        "head": forecast.head and _head_document(forecast.head),
        "advice": [_advice_document(item) for item in forecast.advice],
        "quants": [asdict(quant) for quant in forecast.quants] or None,
        "notes": list(forecast.machine.notes),
        "runs": [_run(each) for each in forecast.machine.experience.runs],
    }


def _run(each: "RestingRun") -> dict[str, Any]:
    return {
        **fields_of(each.run, "source", "device", "backend", "file", "test", "n_tokens", "depth"),
        "tokens_per_s": each.run.tokens_per_s,
        **fields_of(each, "predicted_per_s", "is_of_machine", "is_of_model"),
    }


def _devices(forecast: "Forecast") -> list[dict[str, Any]] | None:
    """Who computes which layers; null where the devices were not measured one by one."""
    shares = forecast.machine.peer_shares(forecast.facts, forecast.rows[0].cache)
    return [asdict(share) for share in shares] or None


def _row(row: "ForecastRow") -> dict[str, Any]:
    return {
        **fields_of(row.cache, "kv_k", "kv_v"),
        "flash_attn": row.cache.is_flash,
        **fields_of(row, "depth", "batch", "token_s", "bound"),
        "decode_tps": asdict(row.decode),
        "decode_tps_per_user": row.decode.mid / row.batch,
        "prefill_tps": row.prefill.mid,
        "prefill_interval": fields_of(row.prefill, "low", "high"),
        "ttft_s": row.first_token.mid,
        "ttft_interval_s": asdict(row.first_token),
        "memory_bytes": row.memory.total_bytes,
        "memory": asdict(row.memory),
    }


def _speculation(forecast: "Forecast") -> dict[str, Any] | None:
    """Null without a draft model. Lookup has no draft cost, and `advice` covers it."""
    if forecast.draft is None:
        return None
    return {
        "draft": forecast.draft.path,
        "rows": [_speculation_row(row) for row in forecast.speculation],
    }


def _head_document(head: "HeadForecast") -> dict[str, Any]:
    users = [
        {
            "n_users": each.n_users,
            "break_even_acceptance": each.break_even,
            "acceptance": each.best.acceptance,
            "n_draft": each.best.n_draft,
            "speedup": each.best.speedup,
        }
        for each in head.users
    ]
    return {**fields_of(head, *HEAD), "users": users}


def _speculation_row(row: "SpeculationRow") -> dict[str, Any]:
    costs, chances = row.costs, [gain.acceptance for gain in row.best]
    return {
        **fields_of(row, "depth", "batch"),
        "draft_cost": costs.draft_cost,
        "break_even_acceptance": row.break_even,
        "best": [asdict(gain) for gain in row.best],
        "by_length": [
            {
                "n_draft": n,
                "verify": costs.verify(n + 1),
                "speedup": {str(chance): costs.speedup(chance, n) for chance in chances},
            }
            for n in range(1, costs.max_draft + 1)
        ],
    }


def _advice_document(item: "Advice") -> dict[str, Any]:
    gain = ("acceptance", "n_draft", "speedup")
    return {
        "use": item.use.name,
        "depth": item.use.depth,
        "batch": item.use.n_sequences,
        **{name: getattr(item.gain, name, None) for name in gain},
        "break_even_acceptance": item.break_even,
        "sentence": item.sentence,
    }
