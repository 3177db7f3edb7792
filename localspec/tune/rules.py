"""What need not be tried: combinations without a fast kernel, each with the reason.

Sources: ggml's flash attention dispatch (ggml-metal-device.m and ggml-cuda/fattn.cu, libggml
0.25.3) and llama_init_from_model. A CUDA build has kernels for the pairs in GGML_CUDA_FA_QUANTS,
which it prints among its features; others are converted to f16 in every step. Metal has none where
K's and V's types differ. What is refused for the model itself, `ModelFacts.kv_problem` says. The
rules for CUDA and Metal are not yet measured.
"""

import re
from dataclasses import dataclass

from localspec.model.facts import ModelFacts, cache_type
from localspec.tune.settings import Attention

CUDA_DEFAULT_PAIRS = frozenset({"q4_0-q4_0", "q8_0-q8_0", "f16-f16", "bf16-bf16"})
_FEATURE = re.compile(r"FA_QUANTS\s*=\s*([\w;-]+)")
_NO_FLASH = frozenset({"grok"})
ANY_PAIR = "all"


@dataclass(frozen=True, slots=True)
class Build:
    """What decides which kernels there are: the backend that attends, and its features' text."""

    backend: str = "cpu"
    features: str = ""

    @property
    def cuda_pairs(self) -> frozenset[str]:
        """K-V pairs with a kernel of their own."""
        found = _FEATURE.search(self.features)
        return frozenset(found[1].lower().split(";")) if found else CUDA_DEFAULT_PAIRS


def excluded(attention: Attention, facts: ModelFacts, build: Build) -> str | None:
    """A sentence on why a way to keep the cache is not worth trying here; None where it is."""
    types = cache_type(attention.kv_k), cache_type(attention.kv_v)
    is_flash = attention.flash != "off"
    problem = facts.kv_problem(*types, flash_attention=is_flash)
    if problem:
        return problem
    if is_flash and facts.architecture in _NO_FLASH:
        return f"{facts.architecture} has no flash attention"
    if not is_flash:
        return None
    return _without_kernel(attention, build)


def _without_kernel(attention: Attention, build: Build) -> str | None:
    k, v = attention.kv_k, attention.kv_v
    if build.backend == "metal" and k != v:
        return f"Metal has no flash attention for {k} keys with {v} values"
    if build.backend != "cuda":
        return None
    if "iq4_nl" in (k, v):
        return "CUDA has no flash attention for iq4_nl"
    pairs = build.cuda_pairs
    if ANY_PAIR not in pairs and f"{k}-{v}" not in pairs:
        return f"this CUDA build has no flash attention for {k} keys with {v} values"
    return None
