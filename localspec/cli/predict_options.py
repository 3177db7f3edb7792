"""The options of `predict`, and the question that they ask."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from localspec.cli.notify import notify
from localspec.cli.numbers import numbers, several, share
from localspec.cli.options import option, setting
from localspec.errors import UserError
from localspec.settings import Attention, FlashAttention

if TYPE_CHECKING:
    from localspec.forecast.forecast import Question
    from localspec.forecast.sources import MachineChoice
    from localspec.model.facts import ModelFacts


MAX_TOKENS = 16_777_216
MAX_BATCH = 4096
DEFAULT_CTX = 4096
_MACHINE = "Machine"
_QUESTION = "Question"


@dataclass(frozen=True)
class MachineFlags:
    """Where the model would run."""

    device: str | None = option(
        None, 'Another machine, e.g. "RTX 4090" or "Apple M4 Max". Default: this one.',
        metavar="NAME", panel=_MACHINE,
    )  # fmt: skip
    threads: int | None = setting("threads", min=1, max=512, panel=_MACHINE)
    gpu_layers: int = setting(
        "gpu_layers", "Layers on the GPU, the others on this processor; -1: all that fit.",
        panel=_MACHINE,
    )  # fmt: skip
    probe: Literal["auto", "again", "off"] = option(
        "auto", "Measure this machine: if that has not been done, again, or not at all.",
        panel=_MACHINE,
    )  # fmt: skip

    def choice(self) -> "MachineChoice":
        from localspec.forecast.sources import MachineChoice

        return MachineChoice(self.device, self.threads, self.gpu_layers, self.probe)


@dataclass(frozen=True)
class QuestionFlags:
    """What is asked: every product of cache types, depths and batches is a row."""

    kv_k: str | None = option(None, "Types of the K cache.", metavar="TYPE,...", panel=_QUESTION)
    kv_v: str | None = option(None, "Types of the V cache.", metavar="TYPE,...", panel=_QUESTION)
    flash_attn: FlashAttention = setting(
        "flash_attn", "Flash attention; auto counts as on.", panel=_QUESTION
    )
    depth: str = option(
        "0,1024,4096", "Tokens that are in the context already.", metavar="N,...", panel=_QUESTION
    )
    batch: str = option(
        "1", "Sequences in one pass: parallel users; auto: up to the break-even.",
        metavar="N,...", panel=_QUESTION,
    )  # fmt: skip
    accept: str = option(
        "0.5,0.7,0.9", "Chances that a drafted token stands.", metavar="P,...", panel=_QUESTION
    )
    prompt_tokens: int = option(
        512, "Of the prompt that is waited for.", min=1, max=MAX_TOKENS, panel=_QUESTION
    )
    ctx: int | None = setting("ctx", min=2, max=MAX_TOKENS, panel=_QUESTION)
    quants: bool = option(
        False, "What other weight quantizations of it would give.", "--quants", panel=_QUESTION
    )

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
            numbers("--depth", self.depth, 0, MAX_TOKENS),
            self._batches(),
            several("--accept", self.accept, share, "a number from 0 to 1"),
        )

    def _batches(self) -> tuple[int, ...]:
        if self.batch == "auto":
            return ()
        return numbers("--batch", self.batch, 1, MAX_BATCH, "auto")

    def _caches(self, facts: "ModelFacts") -> tuple[Attention, ...]:
        from localspec.model.kv import types_of

        problems, possible = dict[str, None](), list[Attention]()
        for kv_k, kv_v in self._pairs():
            attention = Attention(kv_k, kv_v, self.flash_attn)
            flash = attention.is_flash
            problem = facts.kv_problem(*types_of(attention), flash_attention=flash)
            if problem:
                problems[problem] = None
            else:
                possible.append(attention)
        if not possible:
            raise UserError(next(iter(problems)))
        for problem in problems:
            notify(f"left out: {problem}")
        return tuple(possible)

    def _pairs(self) -> list[tuple[str, str]]:
        if self.kv_k is None and self.kv_v is None:
            return [(name, name) for name in ("f16", "bf16", "q8_0")]
        keys, values = (
            several(f"--kv-{part}", text or "f16", _cache_type, "a type")
            for part, text in (("k", self.kv_k), ("v", self.kv_v))
        )
        return [(k, v) for k in keys for v in values]


def _cache_type(text: str) -> str:
    from localspec.model.kv import cache_type

    return cache_type(text).name.lower()


def _within(depths: tuple[int, ...], limit: int) -> tuple[int, ...]:
    fitting = tuple(depth for depth in depths if depth < limit)
    if not fitting:
        raise UserError(f"--depth {depths[0]:,} is beyond the {limit:,} tokens of this model")
    if fitting != depths:
        notify(f"depths beyond the {limit:,} tokens that the model can hold are left out")
    return fitting
