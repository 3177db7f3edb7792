"""LM Studio: a configuration for its SDKs (`LLMLoadModelConfig` and `LLMPredictionConfig`).

Names from the SDK's reference; its Python SDK has not always handed on the cache types
(lmstudio-python issue 107), the app's own panel for a model does.

Ollama: a Modelfile, and two variables of the server, which hold for all of its models.

It has one cache type for keys and values, f16, q8_0 or q4_0 (OLLAMA_KV_CACHE_TYPE), and no
ordinary draft models (ollama issues 5800, 16245).
"""

import json
from typing import Any

from localspec.export.exported import ADAPTS, Exported, draft_length, draft_of, drafts, looks_up
from localspec.session.config import SessionConfig

LM_STUDIO_TYPES = ("f32", "f16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


def lm_studio(config: SessionConfig) -> Exported:
    """A JSON document with what to load and how to predict."""
    load: dict[str, Any] = {
        "contextLength": config.n_ctx,
        "evalBatchSize": config.n_batch,
        "flashAttention": config.flash_attn != "off",
        "tryMmap": config.use_mmap,
    }
    for name, kind in (("llamaK", config.kv_k), ("llamaV", config.kv_v)):
        load[f"{name}CacheQuantizationType"] = kind if kind in LM_STUDIO_TYPES else "f16"
    if config.n_gpu_layers == 0:
        load["gpu"] = {"ratio": "off"}
    elif config.n_gpu_layers < 0:
        load["gpu"] = {"ratio": "max"}
    predict: dict[str, Any] = {"cpuThreads": config.n_threads}
    if draft := draft_of(config):
        predict |= {
            "draftModel": draft.stem,
            "speculativeDecodingNumDraftTokensExact": draft_length(config),
        }
    document = {"model": config.model.stem, "load": load, "predict": predict}
    return Exported(
        json.dumps(document, indent=2) + "\n",
        tuple(_lm_studio_cannot(config)),
        ("models go by the name that LM Studio gives them: `lms ls` lists them",),
    )


def _lm_studio_cannot(config: SessionConfig) -> list[str]:
    found: list[str] = []
    for kind in sorted({config.kv_k, config.kv_v} - set(LM_STUDIO_TYPES)):
        found.append(f"keep a {kind} cache (f16 stands in)")
    if looks_up(config):
        found.append("draft by prompt look-up")
    elif drafts(config):
        found.append(ADAPTS)
    if config.n_threads_batch and config.n_threads_batch != config.n_threads:
        found.append("use other numbers of threads for prompts")
    if not config.repack:
        found.append("leave weights unpacked")
    if config.n_gpu_layers > 0:
        found.append(f"be told {config.n_gpu_layers} layers (the SDK takes a share of the model)")
    return found


OLLAMA_TYPES = ("f16", "q8_0", "q4_0")
_NEAREST = {"f32": "f16", "bf16": "f16", "q4_1": "q4_0", "iq4_nl": "q4_0"}


def ollama(config: SessionConfig) -> Exported:
    """A Modelfile for `ollama create NAME -f Modelfile`."""
    kind = _cache_type(config)
    flash = "0" if config.flash_attn == "off" and kind == "f16" else "1"
    lines = [
        "# The server, for all of its models:",
        f"#   OLLAMA_FLASH_ATTENTION={flash} OLLAMA_KV_CACHE_TYPE={kind} ollama serve",
        f"FROM {config.model}",
        f"PARAMETER num_ctx {config.n_ctx}",
        f"PARAMETER num_thread {config.n_threads}",
        f"PARAMETER num_batch {config.n_batch}",
    ]
    if config.n_gpu_layers >= 0:
        lines.append(f"PARAMETER num_gpu {config.n_gpu_layers}")
    if not config.use_mmap:
        lines.append("PARAMETER use_mmap false")
    return Exported("\n".join(lines) + "\n", tuple(_ollama_cannot(config, kind)))


def _cache_type(config: SessionConfig) -> str:
    """The coarsest that Ollama has and that is not coarser than either of the two."""
    near = {_NEAREST.get(kind, kind) for kind in (config.kv_k, config.kv_v)}
    if "f16" in near:
        return "f16"
    return "q4_0" if near == {"q4_0"} else "q8_0"


def _ollama_cannot(config: SessionConfig, kind: str) -> list[str]:
    found: list[str] = []
    if (config.kv_k, config.kv_v) != (kind, kind):
        choice = ", ".join(OLLAMA_TYPES)
        found.append(
            f"keep {config.kv_k} keys and {config.kv_v} values (one type for both, of {choice})"
        )
    found.append("set cache types and flash attention for one model alone")
    if draft_of(config):
        found.append("draft with a small model")
    elif drafts(config):
        found.append("draft by prompt look-up")
    if config.n_threads_batch and config.n_threads_batch != config.n_threads:
        found.append("use other numbers of threads for prompts")
    if not config.repack:
        found.append("leave weights unpacked")
    if config.n_cpu_moe:
        found.append("keep only experts on the CPU")
    return found
