"""The options of `predict`."""

from dataclasses import dataclass
from typing import Any, Literal

from localspec.cli.numbers import numbers, several, share
from localspec.cli.options import option, setting
from localspec.settings import FlashAttention

MAX_TOKENS = 16_777_216
MAX_BATCH = 4096
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

    def keywords(self) -> dict[str, Any]:
        """As `predict` of the library takes them. UserError for a list that is none."""
        is_auto = self.batch == "auto"
        return {
            "kv_k": self.kv_k and several("--kv-k", self.kv_k, str, "a type"),
            "kv_v": self.kv_v and several("--kv-v", self.kv_v, str, "a type"),
            "flash_attn": self.flash_attn,
            "depth": numbers("--depth", self.depth, 0, MAX_TOKENS),
            "batch": "auto" if is_auto else numbers("--batch", self.batch, 1, MAX_BATCH, "auto"),
            "accept": several("--accept", self.accept, share, "a number from 0 to 1"),
            "prompt_tokens": self.prompt_tokens,
            "ctx": self.ctx,
            "quants": self.quants,
        }
