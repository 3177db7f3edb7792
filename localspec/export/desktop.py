"""LM Studio and Ollama.

LM Studio gets a configuration for its SDKs (`LLMLoadModelConfig` and `LLMPredictionConfig`), with
names from the SDK's reference. Its Python SDK has not always passed on the cache types
(lmstudio-python issue 107); the app's own panel for a model does.

Ollama gets a Modelfile, and two variables of the server, which apply to all of its models. It has
one cache type for keys and values, f16, q8_0 or q4_0 (OLLAMA_KV_CACHE_TYPE), and no ordinary draft
models (ollama issues 5800, 16245).
"""

import json
from typing import Any

from localspec.export.exported import (
    ADAPTS,
    USUAL,
    Exported,
    draft_length,
    draft_of,
    drafts,
    looks_up,
    not_told,
)
from localspec.session.config import SessionConfig

LM_STUDIO_TYPES = ("f32", "f16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


def lm_studio(config: SessionConfig) -> Exported:
    """A JSON document with the settings of loading and of prediction."""
    settings = config.settings
    load: dict[str, Any] = {
        "contextLength": settings.ctx,
        "evalBatchSize": settings.ubatch,
        "flashAttention": settings.flash_attn != "off",
        "tryMmap": settings.mmap,
    }
    for name, kind in (("llamaK", settings.kv_k), ("llamaV", settings.kv_v)):
        load[f"{name}CacheQuantizationType"] = kind if kind in LM_STUDIO_TYPES else "f16"
    if settings.gpu_layers == 0:
        load["gpu"] = {"ratio": "off"}
    elif settings.gpu_layers < 0:
        load["gpu"] = {"ratio": "max"}
    predict: dict[str, Any] = {"cpuThreads": settings.threads}
    if draft := draft_of(config):
        predict |= {
            "draftModel": draft.stem,
            "speculativeDecodingNumDraftTokensExact": draft_length(config),
        }
    document = {"model": config.model.stem, "load": load, "predict": predict}
    return Exported(
        json.dumps(document, indent=2) + "\n",
        tuple(_lm_studio_cannot(config)),
        ("LM Studio has its own names for models: `lms ls` lists them",),
    )


def _lm_studio_cannot(config: SessionConfig) -> list[str]:
    settings = config.settings
    found: list[str] = []
    for kind in sorted({settings.kv_k, settings.kv_v} - set(LM_STUDIO_TYPES)):
        found.append(f"keep a {kind} cache (f16 stands in)")
    if looks_up(config):
        found.append("draft by prompt lookup")
    elif drafts(config):
        found.append(ADAPTS)
    if settings.gpu_layers > 0:
        found.append(f"be told {settings.gpu_layers} layers (the SDK takes a share of the model)")
    return found + not_told(config, USUAL)


OLLAMA_TYPES = ("f16", "q8_0", "q4_0")
_NEAREST = {"f32": "f16", "bf16": "f16", "q4_1": "q4_0", "iq4_nl": "q4_0"}


def ollama(config: SessionConfig) -> Exported:
    """A Modelfile for `ollama create NAME -f Modelfile`."""
    settings = config.settings
    kind = _cache_type(config)
    flash = "0" if settings.flash_attn == "off" and kind == "f16" else "1"
    lines = [
        "# The server, for all of its models:",
        f"#   OLLAMA_FLASH_ATTENTION={flash} OLLAMA_KV_CACHE_TYPE={kind} ollama serve",
        f"FROM {config.model}",
        f"PARAMETER num_ctx {settings.ctx}",
        f"PARAMETER num_thread {settings.threads}",
        f"PARAMETER num_batch {settings.ubatch}",
    ]
    if settings.gpu_layers >= 0:
        lines.append(f"PARAMETER num_gpu {settings.gpu_layers}")
    if not settings.mmap:
        lines.append("PARAMETER use_mmap false")
    return Exported("\n".join(lines) + "\n", tuple(_ollama_cannot(config, kind)))


def _cache_type(config: SessionConfig) -> str:
    """Ollama's coarsest type that is no coarser than the keys' or the values'."""
    settings = config.settings
    near = {_NEAREST.get(kind, kind) for kind in (settings.kv_k, settings.kv_v)}
    if "f16" in near:
        return "f16"
    return "q4_0" if near == {"q4_0"} else "q8_0"


def _ollama_cannot(config: SessionConfig, kind: str) -> list[str]:
    settings = config.settings
    found: list[str] = []
    if (settings.kv_k, settings.kv_v) != (kind, kind):
        choice = ", ".join(OLLAMA_TYPES)
        found.append(
            f"keep {settings.kv_k} keys and {settings.kv_v} values (one type for both, of {choice})"
        )
    found.append("set cache types and flash attention for one model alone")
    if draft_of(config):
        found.append("draft with a small model")
    elif drafts(config):
        found.append("draft by prompt lookup")
    return found + not_told(config, USUAL)
