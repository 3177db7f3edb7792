"""Facts that follow from a model's architecture and have no metadata key.

Source: src/llama-arch.cpp, src/llama-model.cpp and src/models/*.cpp of llama.cpp (libllama 0.5.0).
An architecture that is not in a table is taken for a plain transformer with causal attention.
"""

from dataclasses import dataclass


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


RECURRENT = _names("mamba mamba2 rwkv6 rwkv6qwen2 rwkv7 arwkv7")
# Some layers attend and some are recurrent. Which ones: see `layers`.
HYBRID = _names(
    "jamba falcon-h1 plamo2 granitehybrid lfm2 lfm2moe nemotron_h nemotron_h_moe qwen3next"
    " kimi-linear bailingmoe3 kimi-k3 glm5-next qwen35 qwen35moe qwen4exp deepseek4 minimax-01"
)
# Of these, every n-th layer attends unless an array says which.
FULL_ATTENTION_EVERY = {
    "minimax-01": 8,
    "qwen3next": 4,
    "qwen35": 4,
    "qwen35moe": 4,
    "qwen4exp": 4,
}

# The cache has more in it than keys and values by layer, or layers share it in ways of their own.
UNUSUAL_CACHE = _names(
    "deepseek32 deepseek4 glm-dsa glm5-next minimax-m3 hy_v4 dots3note qwen4exp hrm_text"
    " graniteswitch"
)

ENCODERS = _names(
    "bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert"
    " gemma-embedding llama-embed t5encoder"
)
DIFFUSION = _names("dream llada llada-moe rnd1")
DRAFT_HEADS = _names("eagle3 dflash gemma4-assistant gemma4_assistant gemma4_mtp")
ENCODER_DECODERS = _names("t5")
# Layers without attention and without feed-forward have no weights at all (Nemotron Ultra).
SKIPPING = _names("deci")
NOT_LANGUAGE = _names("clip wavtokenizer-dec controlvector")


@dataclass(frozen=True, slots=True)
class Window:
    """How an architecture lays out sliding windows: all but every `period`-th layer has one.

    `period` is the default for the key `attention.sliding_window_pattern`; None: that key is an
    array, one entry a layer; 0: all layers. `n_tokens` is the default window, None: the key
    `attention.sliding_window` says it, and without that no layer has one; `fixed`: the key only
    says whether. `n_layers`: only models of that many layers have windows at all.
    """

    period: int | None
    dense_first: bool = False
    n_tokens: int | None = None
    fixed: bool = False
    n_layers: int | None = None


WINDOWS: dict[str, Window] = {
    "afmoe": Window(4),
    "cohere2": Window(4),
    "cohere2moe": Window(4, dense_first=True),
    "dots3note": Window(None),
    "exaone-moe": Window(4),
    "exaone4": Window(4, n_tokens=4096, n_layers=64),
    "gemma2": Window(2, n_tokens=4096),
    "gemma3": Window(6),
    "gemma3n": Window(5),
    "gemma4": Window(None),
    "gpt-oss": Window(2),
    "granite_swa": Window(None),
    "laguna": Window(4, dense_first=True),
    "lfm2": Window(0),  # of those layers that attend
    "lfm2moe": Window(0),
    "llama4": Window(4, n_tokens=8192, fixed=True),  # chunks rather than windows
    "maple": Window(None),
    "mellum": Window(4),
    "mimo2": Window(None),
    "muse-glimmer": Window(4),
    "olmo2": Window(4),
    "plamo3": Window(8),
    "smallthinker": Window(4, dense_first=True),
    "spark2_5": Window(None),
    "step35": Window(None),
}
