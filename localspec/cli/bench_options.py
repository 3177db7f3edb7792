"""The options of `bench`, in llama-bench's words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

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
    same_answer: Annotated[
        bool,
        typer.Option(
            "--same-answer",
            help="Check that drafts change no greedy answer, of --prompts or built-in.",
        ),
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
