"""The options of `predict`."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from localspec.cli.numbers import several, share, whole

MAX_TOKENS = 16_777_216
MAX_BATCH = 4096
_MACHINE = "Machine"
_QUESTION = "Question"


@dataclass(frozen=True)
class MachineFlags:
    """Where the model would run."""

    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help='Another machine, e.g. "RTX 4090" or "Apple M4 Max". Default: this one.',
            rich_help_panel=_MACHINE,
        ),
    ] = None
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=512, help="CPU threads. Default: physical cores.", rich_help_panel=_MACHINE
        ),
    ] = None
    gpu_layers: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Layers on the GPU, the others on this processor; -1: all that fit.",
            rich_help_panel=_MACHINE,
        ),
    ] = -1
    probe: Annotated[
        Literal["auto", "again", "off"],
        typer.Option(
            help="Measure this machine: if that has not been done, again, or not at all.",
            rich_help_panel=_MACHINE,
        ),
    ] = "auto"

    def keywords(self) -> dict[str, Any]:
        """As `predict` of the library takes them."""
        return {
            "device": self.device,
            "threads": self.threads,
            "gpu_layers": self.gpu_layers,
            "probe": self.probe,
        }


@dataclass(frozen=True)
class QuestionFlags:
    """What is asked: every product of cache types, depths and batches is a row."""

    kv_k: Annotated[
        str | None,
        typer.Option(metavar="TYPE,...", help="Types of the K cache.", rich_help_panel=_QUESTION),
    ] = None
    kv_v: Annotated[
        str | None,
        typer.Option(metavar="TYPE,...", help="Types of the V cache.", rich_help_panel=_QUESTION),
    ] = None
    flash_attn: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(help="Flash attention; auto counts as on.", rich_help_panel=_QUESTION),
    ] = "auto"
    depth: Annotated[
        str,
        typer.Option(
            metavar="N,...",
            help="Tokens that are in the context already.",
            rich_help_panel=_QUESTION,
        ),
    ] = "0,1024,4096"
    batch: Annotated[
        str,
        typer.Option(
            metavar="N,...",
            help="Sequences in one pass: parallel users; auto: up to the break-even.",
            rich_help_panel=_QUESTION,
        ),
    ] = "1"
    accept: Annotated[
        str,
        typer.Option(
            metavar="P,...", help="Chances that a drafted token stands.", rich_help_panel=_QUESTION
        ),
    ] = "0.5,0.7,0.9"
    prompt_tokens: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_TOKENS,
            help="Of the prompt that is waited for.",
            rich_help_panel=_QUESTION,
        ),
    ] = 512
    ctx: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=MAX_TOKENS,
            help="Context in tokens. Default: 4096 or the model's, the smaller.",
            rich_help_panel=_QUESTION,
        ),
    ] = None
    quants: Annotated[
        bool,
        typer.Option(
            "--quants",
            help="What other weight quantizations of it would give.",
            rich_help_panel=_QUESTION,
        ),
    ] = False

    def keywords(self) -> dict[str, Any]:
        """As `predict` of the library takes them. UserError for a list that is none."""
        return {
            "kv_k": self.kv_k and several("--kv-k", self.kv_k, str, "a type"),
            "kv_v": self.kv_v and several("--kv-v", self.kv_v, str, "a type"),
            "flash_attn": self.flash_attn,
            "depth": several("--depth", self.depth, whole(0, MAX_TOKENS), "a number of tokens"),
            "batch": self._batches(),
            "accept": several("--accept", self.accept, share, "a number from 0 to 1"),
            "prompt_tokens": self.prompt_tokens,
            "ctx": self.ctx,
            "quants": self.quants,
        }

    def _batches(self) -> tuple[int, ...] | str:
        if self.batch == "auto":
            return "auto"
        wanted = f"a number from 1 to {MAX_BATCH}, nor auto"
        return several("--batch", self.batch, whole(1, MAX_BATCH), wanted)
