"""`localspec quality`: the loss and gain of weight and cache types; `quantize` writes one.

The table of `quality` has published figures beside the measured ones.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from localspec.cli.options import JsonFlag, ModelArgument, command, option, setting, several
from localspec.cli.output import WIDE, notify, print_json, progress, ruled_table, stages
from localspec.display import console as console_of
from localspec.display import echo
from localspec.format import percent
from localspec.settings import CACHE_TYPES, MAX_THREADS, NONE, Attention
from localspec.store import read_text

if TYPE_CHECKING:
    from rich.console import Console

    from localspec.engine.base import EngineConfig
    from localspec.quality.divergence import Published
    from localspec.tuning.study import StudyQuestion, StudyRow


@dataclass(frozen=True)
class StudyFlags:
    """The types to compare, and the text."""

    kv: str = option(
        "bf16,q8_0,q8_0/q4_0,q4_0", "Cache types; one name is for keys and values.",
        metavar="K/V,...",
    )  # fmt: skip
    weights: str | None = option(
        None, "Weight types to make of the model, e.g. Q8_0,Q4_0.", metavar="TYPE,..."
    )
    reference: str | None = option(
        None, "Model to compare with. Default: the model itself.", metavar="MODEL"
    )
    text: Path | None = option(
        None, "Your own text. Default: 100 kB of Newton's Opticks.", metavar="FILE"
    )
    tokens: int | None = option(None, "Score about N tokens. Default: all.", min=1, metavar="N")
    window: int = option(512, "Tokens read at once.", min=16, max=32768, metavar="N")
    depth: int = option(512, "Tokens cached for the speeds.", min=1, max=65536, metavar="N")
    ctx: int = setting("ctx", "Context for the memory column.", default=4096, min=256)
    threads: int | None = setting("threads")

    def question(self) -> "StudyQuestion":
        """As a study takes it. Raises UserError for an unknown type or an unreadable text."""
        from localspec.quality.divergence import shipped_text
        from localspec.tuning.study import StudyQuestion

        kinds = (
            several("--weights", self.weights, _weights, "a weight type") if self.weights else ()
        )
        n_windows = None if self.tokens is None else -(-self.tokens // (self.window // 2 - 1))
        return StudyQuestion(
            text=read_text(self.text, f"--text {self.text}") if self.text else shipped_text(),
            attentions=several("--kv", self.kv, _attention, "types such as q8_0 or q8_0/q4_0"),
            weights=kinds,
            window=self.window,
            n_windows=n_windows,
            depth=self.depth,
            n_ctx=self.ctx,
        )


@command
def quality(flags: StudyFlags, model: ModelArgument = None, as_json: JsonFlag = False) -> None:
    """Measure the loss of quality by weight and cache types, beside speed and memory.

    localspec quality model.gguf --kv q8_0,q8_0/q4_0

    localspec quality model-f16.gguf --weights Q8_0,Q4_K_M,Q4_0 --text mine.txt

    KL divergence, perplexity and agreement are those of llama-perplexity --kl-divergence.
    """
    from localspec.engine.interrupt import Interrupted
    from localspec.registry.resolve import resolve
    from localspec.session.loading import checked_facts
    from localspec.tuning.study import study, with_front

    question, path = flags.question(), resolve(model)
    reference = resolve(flags.reference) if flags.reference else path
    if reference != path:
        checked_facts(reference)
    config = _config(path, question, flags.threads)
    rows: list[StudyRow] = []
    is_interrupted = False
    with stages("reading") as listen:
        try:
            for row in study(config, reference, question, listen):
                rows.append(row)
        except Interrupted:
            is_interrupted = True
    if is_interrupted and (not rows or as_json):
        raise KeyboardInterrupt
    rows = with_front(rows)
    if as_json:
        print_json(_document(path, reference, flags, rows))
    else:
        show(path, reference, rows)
    if is_interrupted:
        raise KeyboardInterrupt


def _weights(text: str) -> str:
    from localspec.engine.quantize import WEIGHT_TYPES

    if text.upper() not in WEIGHT_TYPES:
        raise ValueError
    return text.upper()


def _attention(text: str) -> Attention:
    kv_k, _, kv_v = text.lower().partition("/")
    kv_v = kv_v or kv_k
    if kv_k not in CACHE_TYPES or kv_v not in CACHE_TYPES:
        raise ValueError
    return Attention(kv_k, kv_v)


def _config(path: Path, question: "StudyQuestion", n_threads: int | None) -> "EngineConfig":
    """The engine's configuration, checked before loading. Raises UserError or ModelError."""
    from localspec.session.loading import check_cache_types, sound_plan
    from localspec.session.session_config import SessionConfig

    config = SessionConfig.of(path, spec=NONE, ctx=question.window, threads=n_threads)
    plan = sound_plan(config, notify)
    for attention in question.attentions:
        check_cache_types(plan.target.settings.with_attention(attention), plan.facts)
    return plan.target


def _document(
    path: Path, reference: Path, flags: StudyFlags, rows: "list[StudyRow]"
) -> dict[str, object]:
    from localspec.quality.divergence import NAME

    return {
        "model": path.name,
        "reference": reference.name,
        "text": str(flags.text) if flags.text else NAME,
        "window": flags.window,
        "depth": flags.depth,
        "rows": [_row(row) for row in rows],
    }


def _row(row: "StudyRow") -> dict[str, object]:
    found = asdict(row.quality)
    found["kld"] = max(0.0, row.quality.kld)
    return {
        "weights": row.weights,
        "kv_k": row.attention.kv_k,
        "kv_v": row.attention.kv_v,
        **found,
        "decode_tps": row.decode_tps,
        "speed_ratio": row.ratio,
        "memory_bytes": row.memory_bytes,
        "is_reference": row.is_reference,
        "is_front": row.is_front,
        "published": [asdict(figure) for figure in published(row)],
    }


FRONT = "*"


def published(row: "StudyRow") -> "tuple[Published, ...]":
    """Published figures for the type that a row changes."""
    from localspec.quality.divergence import of_cache, of_weights

    if row.attention.is_exact:
        return of_weights(row.weights)
    return of_cache(row.attention.kv_k, row.attention.kv_v)


def show(path: Path, reference: Path, rows: "list[StudyRow]") -> None:
    """Print the table; a narrow terminal gets fewer columns."""
    console = console_of()
    hidden = () if console.width >= WIDE else ("99 %", "publ.")
    held = "itself" if path == reference else reference.name
    title = f"{path.name}, compared with {held} with an f16 cache"
    table = ruled_table(title, *(n for n in _cells(rows[0]) if n not in hidden), left=2)
    for row in rows:
        style = "bold" if row.is_front else None
        table.add_row(*(cell for n, cell in _cells(row).items() if n not in hidden), style=style)
    console.print(table)
    _explain(console, rows)


def _cells(row: "StudyRow") -> dict[str, str]:
    """By the heads of their columns."""
    figures, found = published(row), row.quality
    cells = {
        "weights": row.weights + (f" {FRONT}" if row.is_front else ""),
        "K/V": f"{row.attention.kv_k}/{row.attention.kv_v}",
        "ppl": f"{found.perplexity:.2f}",
        "KLD": f"{max(0.0, found.kld):.4f}",
        "99 %": f"{found.kld_p99:.3f}",
        "top": percent(found.same_top, 1),
        "tok/s": f"{row.decode_tps:.1f}",
        "MB": f"{row.memory_bytes / 1e6:,.0f}",
        "publ.": f"{figures[0].kld:.4f}" if figures else "",
    }
    return cells | ({"KLD": "ref.", "99 %": "", "publ.": ""} if row.is_reference else {})


def _explain(console: "Console", rows: "list[StudyRow]") -> None:
    n = rows[0].quality.n_tokens
    console.print(
        f"{FRONT} Pareto front: no other row is as good in KLD, speed and memory. ppl: perplexity;"
        f" KLD: divergence in nats a token, over {n:,} scored tokens; top: same best token."
    )
    sources = {(f.model, f.source) for row in rows for f in published(row)[:1]}
    for model, source in sorted(sources):
        where = re.split(r" \(|[,;] ", source)[0]
        console.print(f"publ.: KLD published for {model} ({where}), for orientation.", style="dim")


def quantize(
    model: str = typer.Argument(..., metavar="MODEL", help="The model to convert."),
    to: str = typer.Option(..., "--to", metavar="TYPE", help="F16, Q8_0, Q4_K_M, Q4_0, ..."),
    output: Path | None = typer.Option(
        None,
        "-o",
        "--output",
        metavar="FILE",
        help="Default: beside the model's path, else here; named after the type.",
    ),
    threads: int | None = typer.Option(
        None, min=1, max=MAX_THREADS, help="Default: physical cores."
    ),
) -> None:
    """Write a model in another weight type; also makes a draft of a model itself.

    localspec quantize model-f16.gguf --to Q4_0 -o draft.gguf
    """
    from localspec.engine.quantize import quantize as write
    from localspec.hardware.detect import usable_cores
    from localspec.registry.resolve import resolve

    source = resolve(model)
    folder = source.parent if source == Path(model).expanduser() else Path()
    target = output or folder / f"{source.stem}.{to.upper()}.gguf"
    with progress(f"writing {target.name}") as on_progress:
        n_bytes = write(source, target, to, threads or usable_cores(), on_progress)
    echo(f"{target}  {n_bytes / 1e6:,.1f} MB")
