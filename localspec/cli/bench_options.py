"""The options of `bench`, in llama-bench's words, and the sweep that they make.

Options take several values; each combination is a case. The table of `Settings` says which settings
can be swept, and under which flags.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, dataclass_transform

from localspec.cli.options import MAX_TOKENS, numbers, option, setting, several, values_of
from localspec.cli.output import notify
from localspec.errors import UserError
from localspec.fields import Choice, Row, Switch, value_text
from localspec.settings import NONE, ROWS, Speculation

if TYPE_CHECKING:
    from localspec.bench.plan import Sweep
    from localspec.session.session_config import SessionConfig

_WORK = "Work"
_SETTINGS = "Settings"
SWEPT = tuple(row for row in ROWS.values() if row.is_swept)
PLACING = ("device", "workers", "split")
"""Settings that all cases of a run have in common."""
DEFAULTS: dict[str, Any] = {"spec": NONE}
"""Where `bench` differs from other commands."""
MAX_BATCH = 256

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def _with_swept(kind: type[T]) -> type[T]:
    """Add an option for each setting that can be swept."""
    for row in SWEPT:
        kind.__annotations__[row.name] = str | None
        default = DEFAULTS.get(row.name, row.default)
        help_ = row.help if default is None else f"{row.help} Default: {value_text(default)}."
        flags = (row.flag, *row.aliases)
        swept = option(None, help_, *flags, panel=_SETTINGS, metavar=f"{_metavar(row)},...")
        setattr(kind, row.name, swept)
    return dataclass(frozen=True)(kind)


def _metavar(row: Row) -> str:
    if isinstance(row.kind, Switch):
        return "on|off"
    words = row.kind.values if isinstance(row.kind, Choice) else ()
    return row.kind.metavar or "|".join(words)


@_with_swept
class SweepFlags:
    """The work to measure, and the settings."""

    models: list[str] | None = option(
        None, "Models, as the arguments.", "-m", "--model", metavar="MODEL,..."
    )
    n_prompt: str | None = option(
        None, "Tokens of the prompt; 0: not measured. Default: 512.", "-p", "--n-prompt",
        metavar="N,...", panel=_WORK,
    )  # fmt: skip
    n_gen: str | None = option(
        None, "Tokens to generate; 0: not measured. Default: 128.", "-n", "--n-gen",
        metavar="N,...", panel=_WORK,
    )  # fmt: skip
    depth: str | None = option(
        None, "Tokens in the context before. Default: 0.", "-d", "--depth", "--n-depth",
        metavar="N,...", panel=_WORK,
    )  # fmt: skip
    batch: str | None = option(
        None, "Sequences in one decode: parallel users. Default: 1.", metavar="N,...", panel=_WORK
    )
    prompts: Path | None = option(
        None, "Real questions by category, for --spec; plain decoding answers them as well.",
        metavar="FILE.jsonl", panel=_WORK,
    )  # fmt: skip
    per_category: int = option(3, "Questions of each category.", min=1, panel=_WORK)
    kv: str | None = option(
        None, "Cache types, K and V alike.", metavar="TYPE,...", panel=_SETTINGS
    )
    draft: str = setting(
        "draft", "Draft model or head; auto: what goes with each model, if it is here.",
        metavar="MODEL|own|auto",
        panel=_SETTINGS,
    )  # fmt: skip
    device: tuple[str, ...] = setting("device", panel=_SETTINGS)
    workers: tuple[str, ...] = setting("workers", panel=_SETTINGS)
    split: str = setting("split", panel=_SETTINGS)
    no_profile: bool = option(
        False, "Ignore the settings that `tune` kept.", "--no-profile", panel=_SETTINGS
    )
    quick: bool = option(
        False, "Only cache types and flash attention: within 90 s for the starter.", "--quick"
    )
    full: bool = option(False, "All cache types, depths and batches: takes hours.", "--full")

    @property
    def repeats(self) -> int:
        """Visits to each case, and samples of each visit."""
        return 2 if self.quick else 3

    @property
    def swept(self) -> dict[str, str]:
        """The given settings, as texts."""
        texts = {row.name: getattr(self, row.name) for row in SWEPT}
        return {name: text for name, text in texts.items() if text}


@dataclass(frozen=True)
class RunFlags:
    """How often to measure, and where the results go."""

    samples: int | None = option(
        None, "Samples of each visit. Default: 3.", "-r", "--repetitions", min=1, metavar="N"
    )
    rounds: int | None = option(
        None, "Visits to each case, in turns. Default: 3.", min=1, metavar="N"
    )
    output: Path | None = option(
        None, "Folder of results. Default: in the data folder.", "-o", "--output", metavar="DIR"
    )
    resume: bool = option(False, "Go on with the newest incomplete results.", "--resume")
    same_answer: bool = option(
        False,
        "Check that drafts change no greedy answer, to --prompts or built-in ones.",
        "--same-answer",
    )
    dry_run: bool = option(False, "Show the cases; measure nothing.", "--dry-run")
    probe: Literal["auto", "again", "off"] = option(
        "auto", "Probe this machine for predictions: if needed, again, or never."
    )
    timeout: float = option(1800, "Time limit of one visit.", min=1, metavar="SECONDS")
    form: Literal["table", "json", "csv", "md", "bench-json", "bench-md", "scoreboard"] = option(
        "table", "Form of stdout at the end, as of report.", "--format"
    )
    as_json: bool = option(False, "One JSON document.", "--json")


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
    from localspec.registry.resolve import resolve

    if flags.quick and flags.full:
        raise UserError("--quick contradicts --full: choose one")
    # Explicit options win over a preset's, one by one.
    preset = dict(PRESETS["quick"] if flags.quick else PRESETS["full"] if flags.full else {})
    if flags.swept.keys() & {"kv_k", "kv_v"}:
        preset.pop("kv", None)
    left = {name: text for name, text in preset.items() if getattr(flags, name) is None}
    flags = replace(flags, **left)  # type: ignore[type-var]
    settings = _settings(flags)
    named = [name for option in flags.models or [] for name in option.split(",")]
    asked: list[str | None] = [*arguments, *named] or [None]
    models = {resolve(name): name for name in asked}
    return Sweep(
        models=tuple(models),
        drafts=_drafts(flags, models, settings["spec"]),
        kv=_pairs(flags),
        settings=settings,
        prompts=flags.prompts,
        per_category=flags.per_category,
        with_curve=flags.quick or flags.full,
        adapt=_adapting(flags),
        n_prompt=numbers("-p", flags.n_prompt or "512", 0, MAX_TOKENS),
        n_gen=numbers("-n", flags.n_gen or "128", 0, MAX_TOKENS),
        depth=numbers("-d", flags.depth or "0", 0, MAX_TOKENS),
        batch=numbers("--batch", flags.batch or "1", 1, MAX_BATCH),
    )


def _adapting(flags: SweepFlags) -> "Callable[[SessionConfig], SessionConfig]":
    """A model's tuned profile where no option says otherwise."""
    from localspec.session.profile import with_profile

    if flags.no_profile:
        return lambda config: config
    both = {"kv_k", "kv_v"} if flags.kv else set[str]()
    kept = frozenset({"spec", "draft", "draft_max"}.union(flags.swept, both))
    once = cache(notify)  # each configuration of a model would say the same
    return lambda config: replace(
        config, settings=with_profile(config.model, config.settings, kept, once)
    )


def _settings(flags: SweepFlags) -> dict[str, tuple[Any, ...]]:
    """Values of each setting but the cache types, which go in pairs."""
    from localspec.engine.threads import default_threads

    defaults = {row.name: DEFAULTS.get(row.name, row.default) for row in SWEPT}
    defaults["threads"] = default_threads()
    given = flags.swept
    swept = {
        row.name: values_of(row, given[row.name]) if row.name in given else (defaults[row.name],)
        for row in sorted(SWEPT, key=lambda row: not row.is_engine)
        if row.name not in ("kv_k", "kv_v")
    }
    return {**{name: (getattr(flags, name),) for name in PLACING}, **swept}


def _pairs(flags: SweepFlags) -> tuple[tuple[str, str], ...]:
    """`--kv` types for both, and each K type with each V type."""
    given, kinds = flags.swept, ("kv_k", "kv_v")
    same = [(name, name) for name in _types("--kv", flags.kv or "")]
    if same and not given.keys() & set(kinds):
        return tuple(same)
    keys, values = (_types(ROWS[name].flag, given.get(name, "f16")) for name in kinds)
    return tuple(dict.fromkeys([*same, *((k, v) for k in keys for v in values)]))


def _types(option: str, text: str) -> tuple[str, ...]:
    from localspec.model.kv import cache_type

    return several(option, text, lambda name: cache_type(name).name.lower(), "") if text else ()


def _drafts(
    flags: SweepFlags, models: dict[Path, str | None], specs: tuple[Speculation, ...]
) -> dict[tuple[Path, str], str]:
    """What drafts for each model, by drafter."""
    from localspec.cli.pull import fetched
    from localspec.session.session_config import draft_for

    return {
        (path, spec): draft_for(path, name, flags.draft, spec, fetched)
        for path, name in models.items()
        for spec in specs
        if spec not in (NONE, "lookup")
    }
