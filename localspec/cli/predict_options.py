"""The options of `predict`, and the question that they ask."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from localspec.cli.notify import notify
from localspec.cli.numbers import several, share, whole
from localspec.errors import UserError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from localspec.forecast.forecast import Question
    from localspec.forecast.machine import MachineChoice
    from localspec.gguf.types import GgmlType
    from localspec.model.facts import ModelFacts
    from localspec.predict.roofline import CacheSetting


MAX_TOKENS = 16_777_216
MAX_BATCH = 4096
DEFAULT_CTX = 4096
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

    def choice(self) -> "MachineChoice":
        from localspec.forecast.machine import MachineChoice

        return MachineChoice(self.device, self.threads, self.gpu_layers, self.probe)


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

    def check(self) -> None:
        """UserError for a list that is none, before anything is read."""
        self._lists()

    def question(self, facts: "ModelFacts") -> "Question":
        """What this model can be asked; what it cannot is left out with a word.

        Raises UserError where nothing is left.
        """
        from localspec.forecast.forecast import Question

        depths, batches, acceptances = self._lists()
        depths = _within(depths, facts.n_ctx_train or MAX_TOKENS)
        most = min(facts.n_ctx_train or MAX_TOKENS, max(DEFAULT_CTX, *depths))
        return Question(
            caches=self._caches(facts),
            depths=depths,
            batches=batches,
            acceptances=acceptances,
            n_prompt=self.prompt_tokens,
            n_ctx=self.ctx or most,
            with_quants=self.quants,
        )

    def _lists(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
        return (
            several("--depth", self.depth, whole(0, MAX_TOKENS), "a number of tokens"),
            self._batches(),
            several("--accept", self.accept, share, "a number from 0 to 1"),
        )

    def _batches(self) -> tuple[int, ...]:
        if self.batch == "auto":
            return ()
        wanted = f"a number from 1 to {MAX_BATCH}, nor auto"
        return several("--batch", self.batch, whole(1, MAX_BATCH), wanted)

    def _caches(self, facts: "ModelFacts") -> "tuple[CacheSetting, ...]":
        from localspec.predict.roofline import CacheSetting

        flash, problems = self.flash_attn != "off", dict[str, None]()
        possible: list[CacheSetting] = []
        for type_k, type_v in self._pairs():
            problem = facts.kv_problem(type_k, type_v, flash_attention=flash)
            if problem:
                problems[problem] = None
            else:
                possible.append(CacheSetting(type_k, type_v, flash))
        if not possible:
            raise UserError(next(iter(problems)))
        for problem in problems:
            notify(f"left out: {problem}")
        return tuple(possible)

    def _pairs(self) -> "list[tuple[GgmlType, GgmlType]]":
        from localspec.model.facts import cache_type

        if self.kv_k is None and self.kv_v is None:
            return [(cache_type(name), cache_type(name)) for name in ("f16", "bf16", "q8_0")]
        types_k = several("--kv-k", self.kv_k or "f16", cache_type, "a type")
        types_v = several("--kv-v", self.kv_v or "f16", cache_type, "a type")
        return [(k, v) for k in types_k for v in types_v]


def _within(depths: tuple[int, ...], limit: int) -> tuple[int, ...]:
    fitting = tuple(depth for depth in depths if depth < limit)
    if not fitting:
        raise UserError(f"--depth {depths[0]:,} is beyond the {limit:,} tokens of this model")
    if fitting != depths:
        notify(f"depths beyond the {limit:,} tokens that the model can hold are left out")
    return fitting
