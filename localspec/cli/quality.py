"""`localspec quality`: what weight and cache types cost, beside what they gain."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localspec.cli.flatten import flatten
from localspec.cli.lists import several
from localspec.cli.options import ModelArgument
from localspec.cli.talk import stages, talk

if TYPE_CHECKING:
    from localspec.engine.base import EngineConfig
    from localspec.tune.settings import Attention
    from localspec.tune.study import Question, Row


@dataclass(frozen=True)
class StudyFlags:
    """What is compared, and on which text."""

    kv: Annotated[
        str,
        typer.Option(metavar="K/V,...", help="Cache types; one name is for keys and values."),
    ] = "bf16,q8_0,q8_0/q4_0,q4_0"
    weights: Annotated[
        str | None,
        typer.Option(metavar="TYPE,...", help="Weight types to make of the model, e.g. Q8_0,Q4_0."),
    ] = None
    reference: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="What it is held against. Default: the model itself."),
    ] = None
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A text of yours. Default: 100 kB of Newton's Opticks."),
    ] = None
    tokens: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Score about so many tokens. Default: all."),
    ] = None
    window: Annotated[
        int, typer.Option(min=16, max=32768, metavar="N", help="Tokens read at once.")
    ] = 512
    depth: Annotated[
        int, typer.Option(min=1, max=65536, metavar="N", help="Tokens cached for the speeds.")
    ] = 512
    ctx: Annotated[
        int, typer.Option(min=256, metavar="N", help="Context for the memory column.")
    ] = 4096
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="CPU threads. Default: physical cores.")
    ] = None

    def question(self) -> "Question":
        """Raises UserError for a type or a text that is none."""
        from localspec.quality.text import shipped_text, text_of
        from localspec.tune.study import Question

        kinds = (
            several("--weights", self.weights, _weights, "a weight type") if self.weights else ()
        )
        n_windows = None if self.tokens is None else -(-self.tokens // (self.window // 2 - 1))
        return Question(
            text=text_of(self.text) if self.text else shipped_text(),
            attentions=several("--kv", self.kv, _attention, "types such as q8_0 or q8_0/q4_0"),
            weights=kinds,
            window=self.window,
            n_windows=n_windows,
            depth=self.depth,
            n_ctx=self.ctx,
        )


@flatten
def quality(
    flags: StudyFlags,
    model: ModelArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """What weight and cache types cost in quality, beside speed and memory.

    localspec quality model.gguf --kv q8_0,q8_0/q4_0

    localspec quality model-f16.gguf --weights Q8_0,Q4_K_M,Q4_0 --text mine.txt

    KL divergence, perplexity and agreement are those of llama-perplexity --kl-divergence.
    """
    from localspec.engine.interrupt import Interrupted
    from localspec.registry.resolve import resolve
    from localspec.tune.study import study, with_front

    question, path = flags.question(), resolve(model)
    reference = resolve(flags.reference) if flags.reference else path
    config = _config(path, question, flags.threads)
    rows: list[Row] = []
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
        typer.echo(json.dumps(_document(path, reference, flags, rows), allow_nan=False))
    else:
        from localspec.cli.quality_table import show

        show(path, reference, rows)
    if is_interrupted:
        raise KeyboardInterrupt


def _weights(text: str) -> str:
    from localspec.engine.quantize import WEIGHT_TYPES

    if text.upper() not in WEIGHT_TYPES:
        raise ValueError
    return text.upper()


def _attention(text: str) -> "Attention":
    from localspec.model.cache import CACHE_TYPES
    from localspec.tune.settings import Attention

    kv_k, _, kv_v = text.lower().partition("/")
    kv_v = kv_v or kv_k
    if kv_k not in CACHE_TYPES or kv_v not in CACHE_TYPES:
        raise ValueError
    return Attention(kv_k, kv_v)


def _config(path: Path, question: "Question", n_threads: int | None) -> "EngineConfig":
    """Checked before anything is loaded. Raises UserError or ModelError."""
    from localspec.engine.preflight import check_cache_types, checked_facts
    from localspec.session.config import SessionConfig
    from localspec.tune.subject import Subject

    facts = checked_facts(path)
    config = SessionConfig(path, spec="none", n_ctx=question.window, n_threads=n_threads)
    engine = Subject.of(config, talk).config
    for attention in question.attentions:
        types = {"kv_k": attention.kv_k, "kv_v": attention.kv_v}
        check_cache_types(replace(engine, **types), facts)
    return engine


def _document(
    path: Path, reference: Path, flags: StudyFlags, rows: "list[Row]"
) -> dict[str, object]:
    from localspec.quality.text import NAME

    return {
        "model": path.name,
        "reference": reference.name,
        "text": str(flags.text) if flags.text else NAME,
        "window": flags.window,
        "depth": flags.depth,
        "rows": [_row(row) for row in rows],
    }


def _row(row: "Row") -> dict[str, object]:
    from dataclasses import asdict

    from localspec.cli.quality_table import published

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
