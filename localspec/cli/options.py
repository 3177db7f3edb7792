"""The options that commands share, and what they mean to a session."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from localspec.cli.completion import model_names
from localspec.cli.notify import notify
from localspec.cli.prompt import check_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localspec.session.config import ReplyOptions, SessionConfig
    from localspec.session.opening import ReplyKeywords

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A name, a path to a .gguf, or hf:owner/repo/file.gguf. Default: the starter.",
        autocompletion=model_names,
    ),
]
_SPECULATION = "Speculation"
_ENGINE = "Engine"
_SAMPLING = "Sampling"


@dataclass(frozen=True)
class EngineFlags:
    """What is loaded and how."""

    draft: Annotated[
        str,
        typer.Option(
            metavar="MODEL|auto|none",
            help="Draft model; auto: the one that models.toml pairs with MODEL, if it is here.",
            rich_help_panel=_SPECULATION,
            autocompletion=model_names,
        ),
    ] = "auto"
    spec: Annotated[
        Literal["auto", "none", "lookup", "draft"],
        typer.Option(
            help="How to guess ahead; auto: at each step what gains most here, or not at all.",
            rich_help_panel=_SPECULATION,
        ),
    ] = "auto"
    draft_max: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Tokens to draft at once (default 3), or for --spec auto the most (default 16).",
            rich_help_panel=_SPECULATION,
        ),
    ] = None
    verify: Annotated[
        Literal["auto", "match", "rejection"],
        typer.Option(
            help="How sampled drafts are accepted; auto: match with --seed, else rejection.",
            rich_help_panel=_SPECULATION,
        ),
    ] = "auto"
    kv_k: Annotated[
        str,
        typer.Option(
            metavar="TYPE", help="Type of the K cache, e.g. q8_0.", rich_help_panel=_ENGINE
        ),
    ] = "f16"
    kv_v: Annotated[
        str, typer.Option(metavar="TYPE", help="Type of the V cache.", rich_help_panel=_ENGINE)
    ] = "f16"
    flash_attn: Annotated[
        Literal["auto", "on", "off"], typer.Option(help="Flash attention.", rich_help_panel=_ENGINE)
    ] = "auto"
    ctx: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Context in tokens. Default: 4096 or the model's, the smaller.",
            rich_help_panel=_ENGINE,
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="CPU threads. Default: physical cores.", rich_help_panel=_ENGINE
        ),
    ] = None
    gpu_layers: Annotated[
        int,
        typer.Option(metavar="N", help="Layers on the GPU; -1: all.", rich_help_panel=_ENGINE),
    ] = -1
    threads_batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="CPU threads for prompts. Default: --threads.",
            rich_help_panel=_ENGINE,
        ),
    ] = None
    ubatch: Annotated[
        int,
        typer.Option(
            min=32, max=4096, metavar="N", help="Tokens of a micro-batch.", rich_help_panel=_ENGINE
        ),
    ] = 512
    cpu_moe: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Keep the experts of the first N layers on the CPU.",
            rich_help_panel=_ENGINE,
        ),
    ] = 0
    mmap: Annotated[
        bool, typer.Option(help="Map the weights, or read them.", rich_help_panel=_ENGINE)
    ] = True
    repack: Annotated[
        bool,
        typer.Option(help="Repack weights for the CPU's matrix units.", rich_help_panel=_ENGINE),
    ] = True
    no_profile: Annotated[
        bool,
        typer.Option(
            "--no-profile", help="Leave the settings that `tune` kept.", rich_help_panel=_ENGINE
        ),
    ] = False
    given: frozenset[str] = frozenset()

    def session_config(self, model: str | None) -> "SessionConfig":
        """Names resolved to files. Raises UserError or ModelError."""
        from localspec.cli.pull import fetched
        from localspec.session.opening import session_config
        from localspec.settings import ROWS, Settings

        values = {name: getattr(self, name) for name, row in ROWS.items() if row.is_offered}
        given = None if self.no_profile else self.given & frozenset(values)
        return session_config(model, Settings.of(**values), given, notify, fetched)


@dataclass(frozen=True)
class ReplyFlags:
    """How a reply is made."""

    temp: Annotated[
        float,
        typer.Option(
            min=0, max=100, help="Temperature; 0 takes the best token.", rich_help_panel=_SAMPLING
        ),
    ] = 0.8
    top_k: Annotated[
        int, typer.Option(min=0, help="Keep the K best tokens; 0: all.", rich_help_panel=_SAMPLING)
    ] = 40
    top_p: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Keep the best with this probability.", rich_help_panel=_SAMPLING
        ),
    ] = 0.95
    min_p: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Drop what is less likely than this x the best.",
            rich_help_panel=_SAMPLING,
        ),
    ] = 0.05
    repeat_penalty: Annotated[
        float,
        typer.Option(
            min=0.01, max=100, help="Above 1: discourage repetition.", rich_help_panel=_SAMPLING
        ),
    ] = 1.0
    seed: Annotated[
        int | None,
        typer.Option(help="Same seed, same reply. Default: random.", rich_help_panel=_SAMPLING),
    ] = None
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            "-n",
            min=0,
            metavar="N",
            help="Stop after N tokens. Default: at the end.",
        ),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Stop before this text; may be repeated."),
    ] = None
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Never choose an end token.")] = (
        False
    )
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.")] = None
    given: frozenset[str] = frozenset()

    def keywords(self, engine: EngineFlags) -> "ReplyKeywords":
        """As the library takes them. UserError for a text that is not UTF-8."""
        check_text("--system", self.system or "")
        return {
            "temperature": self.temp,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repeat_penalty": self.repeat_penalty,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "stop": [check_text("--stop", text) for text in self.stop or ()],
            "verify": engine.verify,
            "ignore_eos": self.ignore_eos,
        }

    def reply_options(self, engine: EngineFlags) -> "ReplyOptions":
        """The seed is drawn here where none is given; rejection is chosen where it may be.

        Raises UserError for a text that is not UTF-8.
        """
        from localspec.session.opening import reply_options

        return reply_options(**self.keywords(engine))
