"""What a session and a reply are made from."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from localspec.decode.generation import Verification
from localspec.engine.base import FlashAttention
from localspec.engine.sampling import Sampling

Speculation = Literal["auto", "none", "lookup", "draft"]


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What is loaded and how.

    `spec` "auto" decides at each step who drafts and how much, from what it costs and gains here;
    "lookup" and "draft" draft `draft_max` tokens each time. None: `draft_max` 3, or for "auto" no
    cap; `n_ctx` 4096 or the model's if that is smaller, `n_threads` the physical cores.
    `n_gpu_layers` < 0: all, but for the experts of the first `n_cpu_moe` layers. Longer passes have
    `n_threads_batch` (None: `n_threads`) and micro-batches of `n_batch` tokens.
    """

    model: Path
    draft: Path | None = None
    spec: Speculation = "auto"
    draft_max: int | None = None
    kv_k: str = "f16"
    kv_v: str = "f16"
    flash_attn: FlashAttention = "auto"
    n_ctx: int | None = None
    n_threads: int | None = None
    n_gpu_layers: int = -1
    n_threads_batch: int | None = None
    n_batch: int = 512
    n_cpu_moe: int = 0
    use_mmap: bool = True
    repack: bool = True


@dataclass(frozen=True, slots=True)
class ReplyOptions:
    """How one reply is made. `max_tokens` None: until the model ends it or the context is full.

    `spec` and `draft_max` are the session's unless given; what the session has not loaded drafts
    nothing, and no draft is longer than the session's longest.
    """

    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    verify: Verification = "match"
    ignore_eos: bool = False
    spec: Speculation | None = None
    draft_max: int | None = None
