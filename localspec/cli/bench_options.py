"""The options of `bench`, in llama-bench's words.

The sweep that `bench`'s options make: every product of their values.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from localspec.cli.notify import notify
from localspec.cli.numbers import numbers, several
from localspec.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localspec.bench.plan import Sweep
    from localspec.session.config import SessionConfig


_WORK = "Work"
_SETTINGS = "Settings"


@dataclass(frozen=True)
class SweepFlags:
    """Every option takes several values; every product of them is a case."""

    models: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", metavar="MODEL,...", help="Models, as the arguments."),
    ] = None
    n_prompt: Annotated[
        str | None,
        typer.Option(
            "-p", "--n-prompt", metavar="N,...", rich_help_panel=_WORK,
            help="Tokens of the prompt; 0: not measured. [512]",
        ),
    ] = None  # fmt: skip
    n_gen: Annotated[
        str | None,
        typer.Option(
            "-n", "--n-gen", metavar="N,...", rich_help_panel=_WORK,
            help="Tokens to generate; 0: not measured. [128]",
        ),
    ] = None  # fmt: skip
    depth: Annotated[
        str | None,
        typer.Option(
            "-d", "--depth", "--n-depth", metavar="N,...", rich_help_panel=_WORK,
            help="Tokens that are in the context before. [0]",
        ),
    ] = None  # fmt: skip
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N,...", rich_help_panel=_WORK,
            help="Sequences in one decode: parallel users. [1]",
        ),
    ] = None  # fmt: skip
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl", rich_help_panel=_WORK,
            help="Real questions by category, for --spec; plain decoding answers them as well.",
        ),
    ] = None  # fmt: skip
    per_category: Annotated[
        int,
        typer.Option(min=1, rich_help_panel=_WORK, help="Questions of each category."),
    ] = 3
    kv: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE,...", rich_help_panel=_SETTINGS, help="Cache types, K and V alike."
        ),
    ] = None
    kv_k: Annotated[
        str | None,
        typer.Option(
            "-ctk", "--kv-k", "--cache-type-k", metavar="TYPE,...", rich_help_panel=_SETTINGS,
            help="Types of the K cache, with each of --kv-v. [f16]",
        ),
    ] = None  # fmt: skip
    kv_v: Annotated[
        str | None,
        typer.Option(
            "-ctv", "--kv-v", "--cache-type-v", metavar="TYPE,...", rich_help_panel=_SETTINGS,
            help="Types of the V cache. [f16]",
        ),
    ] = None  # fmt: skip
    flash_attn: Annotated[
        str | None,
        typer.Option(
            "-fa", "--flash-attn", metavar="auto|on|off,...", rich_help_panel=_SETTINGS,
            help="Flash attention. [auto]",
        ),
    ] = None  # fmt: skip
    threads: Annotated[
        str | None,
        typer.Option(
            "-t", "--threads", metavar="N,...", rich_help_panel=_SETTINGS,
            help="CPU threads. [physical cores]",
        ),
    ] = None  # fmt: skip
    gpu_layers: Annotated[
        str | None,
        typer.Option(
            "-ngl", "--gpu-layers", "--n-gpu-layers", metavar="N,...", rich_help_panel=_SETTINGS,
            help="Layers on the GPU; -1: all. [-1]",
        ),
    ] = None  # fmt: skip
    spec: Annotated[
        str | None,
        typer.Option(
            metavar="none|lookup|draft|auto,...", rich_help_panel=_SETTINGS,
            help="How to guess ahead. [none]",
        ),
    ] = None  # fmt: skip
    draft: Annotated[
        str,
        typer.Option(
            metavar="MODEL|auto", rich_help_panel=_SETTINGS,
            help="Draft model; auto: each model's own, if it is here.",
        ),
    ] = "auto"  # fmt: skip
    draft_max: Annotated[
        str | None,
        typer.Option(
            metavar="N,...", rich_help_panel=_SETTINGS, help="Tokens to draft at once."
        ),
    ] = None  # fmt: skip
    no_profile: Annotated[
        bool,
        typer.Option(
            "--no-profile", rich_help_panel=_SETTINGS, help="Leave the settings that `tune` kept."
        ),
    ] = False
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A look at cache types and flash attention, within 90 s for the starter.",
        ),
    ] = False
    full: Annotated[
        bool, typer.Option("--full", help="All cache types, depths and batches: takes hours.")
    ] = False

    @property
    def are_given(self) -> bool:
        """Whether anything was asked for at all."""
        return self != SweepFlags()

    @property
    def rounds(self) -> int:
        """Visits to each case."""
        return 2 if self.quick else 3

    @property
    def samples(self) -> int:
        """In each visit."""
        return 2 if self.quick else 3


@dataclass(frozen=True)
class RunFlags:
    """How often, where to, and how it goes on."""

    samples: Annotated[
        int | None,
        typer.Option("-r", "--repetitions", min=1, metavar="N", help="Samples a visit. [3]"),
    ] = None
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Visits to each case, in turns. [3]")
    ] = None
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder of results. [data folder]"),
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest results that are not complete.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would run.")] = False
    probe: Annotated[
        Literal["auto", "again", "off"],
        typer.Option(help="Probe this machine for predictions: if needed, again, or not."),
    ] = "auto"
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Limit of one visit.")
    ] = 1800
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False


MAX_TOKENS = 16_777_216
MAX_BATCH = 256
MAX_DRAFT = 64

_FIELDS = {
    "kv": ("kv_k", "kv_v"), "kv_k": ("kv_k",), "kv_v": ("kv_v",), "flash_attn": ("flash_attn",),
    "threads": ("n_threads",), "gpu_layers": ("n_gpu_layers",),
}  # fmt: skip
"""Which of a session's settings an option decides."""

PRESETS = {
    "quick": {
        "n_prompt": "128", "n_gen": "32", "depth": "0,1024", "kv": "f16,q8_0",
        "flash_attn": "auto,off",
    },
    "full": {
        "depth": "0,1024,4096", "batch": "1,2,4,8", "kv": "f16,bf16,q8_0,q4_0",
        "flash_attn": "auto,off",
    },
}  # fmt: skip


def sweep_of(flags: SweepFlags, arguments: list[str]) -> "Sweep":
    """Names resolved to files. Raises UserError or ModelError."""
    from localspec.bench.plan import Sweep
    from localspec.hardware.detect import usable_cores
    from localspec.registry.resolve import resolve

    if flags.quick and flags.full:
        raise UserError("--quick contradicts --full: choose one")
    flags = _with_preset(flags)
    values = _values(flags, usable_cores())
    named = [name for option in flags.models or [] for name in option.split(",")]
    asked: list[str | None] = [*arguments, *named] or [None]
    models = {resolve(name): name for name in asked}
    return Sweep(
        models=tuple(models),
        drafts=_drafts(flags, models, values["spec"]),
        prompts=flags.prompts,
        per_category=flags.per_category,
        with_curve=flags.quick or flags.full,
        adapt=_adapting(flags),
        **values,
    )


def _with_preset(flags: SweepFlags) -> SweepFlags:
    """Explicit options win over a preset's, one by one."""
    preset = dict(PRESETS["quick"] if flags.quick else PRESETS["full"] if flags.full else {})
    if flags.kv_k or flags.kv_v:
        preset.pop("kv", None)
    given = {f.name for f in fields(flags) if getattr(flags, f.name) is not None}
    return replace(flags, **{name: text for name, text in preset.items() if name not in given})


def _adapting(flags: SweepFlags) -> "Callable[[SessionConfig], SessionConfig]":
    """A model's tuned profile where no option says otherwise."""
    from localspec.session.profile import with_profile

    if flags.no_profile:
        return lambda config: config
    given = (names for option, names in _FIELDS.items() if getattr(flags, option))
    kept = frozenset({"spec", "draft", "draft_max"}.union(*given))
    return lambda config: with_profile(config, kept, _talk_once)


@cache
def _talk_once(message: str) -> None:
    """Every configuration of a model would say the same."""
    notify(message)


def _values(flags: SweepFlags, n_cores: int) -> dict[str, Any]:
    modes = "auto", "on", "off"
    kinds = "none", "lookup", "draft", "auto"
    threads = numbers("--threads", flags.threads, 1, 512) if flags.threads else (n_cores,)
    drafts = numbers("--draft-max", flags.draft_max, 1, MAX_DRAFT) if flags.draft_max else (None,)
    return {
        "n_prompt": numbers("-p", flags.n_prompt or "512", 0, MAX_TOKENS),
        "n_gen": numbers("-n", flags.n_gen or "128", 0, MAX_TOKENS),
        "depth": numbers("-d", flags.depth or "0", 0, MAX_TOKENS),
        "batch": numbers("--batch", flags.batch or "1", 1, MAX_BATCH),
        "kv": _pairs(flags),
        "flash_attn": _words("--flash-attn", flags.flash_attn or "auto", modes),
        "threads": threads,
        "gpu_layers": numbers("--gpu-layers", flags.gpu_layers or "-1", -1, 9999),
        "spec": _words("--spec", flags.spec or "none", kinds),
        "draft_max": drafts,
    }


def _pairs(flags: SweepFlags) -> tuple[tuple[str, str], ...]:
    """The same type for both, and every K type with every V type."""
    same = [(name, name) for name in _types("--kv", flags.kv or "")]
    if same and flags.kv_k is None and flags.kv_v is None:
        return tuple(same)
    keys, values = _types("--kv-k", flags.kv_k or "f16"), _types("--kv-v", flags.kv_v or "f16")
    return tuple(dict.fromkeys([*same, *((k, v) for k in keys for v in values)]))


def _drafts(
    flags: SweepFlags, models: dict[Path, str | None], spec: tuple[str, ...]
) -> tuple[tuple[Path, Path], ...]:
    from localspec.registry.resolve import draft_of, resolve

    if not {"draft", "auto"} & set(spec):
        return ()
    named = None if flags.draft == "auto" else resolve(flags.draft)
    pairs = [(path, named or draft_of(name)) for path, name in models.items()]
    return tuple((target, draft) for target, draft in pairs if draft)


def _types(option: str, text: str) -> tuple[str, ...]:
    from localspec.model.facts import cache_type

    return several(option, text, lambda name: cache_type(name).name.lower(), "") if text else ()


def _words(option: str, text: str, known: tuple[str, ...]) -> tuple[Any, ...]:
    def read(word: str) -> str:
        lowered = {"1": "on", "0": "off"}.get(word, word) if "on" in known else word
        if lowered not in known:
            raise ValueError
        return lowered

    return several(option, text, read, f"one of {', '.join(known)}")
