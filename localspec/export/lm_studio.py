"""LM Studio: a configuration for its SDKs (`LLMLoadModelConfig` and `LLMPredictionConfig`).

Names from the SDK's reference; its Python SDK has not always handed on the cache types
(lmstudio-python issue 107), the app's own panel for a model does.
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
