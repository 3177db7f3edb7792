"""Engines on llama.cpp: its own server, llama-cpp-python's `Llama` as a program, LM Studio, Ollama.

The server's flags are those of libllama 0.5.0 (common/arg.cpp). Since llama.cpp PR 23988
`--model-draft` alone drafts nothing: `--spec-type` turns drafting on, and `--draft-max` is gone.
`scripts/test --acceptance export` holds every flag against the server's own --help.

llama-cpp-python 0.3.36 has no names for some cache types, so ggml's numbers stand for them.

LM Studio gets a configuration for its SDKs (`LLMLoadModelConfig` and `LLMPredictionConfig`), with
names from the SDK's reference. Its Python SDK has not always passed on the cache types
(lmstudio-python issue 107); the app's own panel for a model does.

Draft heads: the server tells each kind by `--spec-type`, and an MTP head in the model's own file
needs no `--spec-draft-model`. Ollama's Modelfile has a line DRAFT for MTP and DFlash heads, which
draft nothing until `draft_num_predict` is set (ollama PR 17865).

Ollama gets a Modelfile, and two variables of the server, which apply to all of its models. It has
one cache type for keys and values, f16, q8_0 or q4_0 (OLLAMA_KV_CACHE_TYPE), and no ordinary draft
models (ollama issues 5800, 16245).
"""

import json
import shlex
from typing import Any

from localspec.engine.workers import addresses_of
from localspec.export.exported import (
    ADAPTS,
    USUAL,
    Exported,
    draft_length,
    draft_of,
    drafts,
    head_in,
    looks_up,
    not_told,
)
from localspec.model.kv import cache_type
from localspec.session.session_config import SessionConfig

NGRAM = 3
"""Tokens that must match before lookup drafts; the server's default of 12 rarely does."""

SERVER_HEADS = {
    "mtp": "draft-mtp",
    "gemma4-assistant": "draft-mtp",
    "eagle3": "draft-eagle3",
    "dflash": "draft-dflash",
    "dspark": "draft-dspark",
}
"""`--spec-type` of each kind of head (common/speculative.cpp)."""

_LLAMA_TOLD = USUAL | {"threads_batch"}
_SERVER_TOLD = _LLAMA_TOLD | {"cpu_moe", "repack", "device", "workers", "shares"}


def llama_server(config: SessionConfig) -> Exported:
    """A command line."""
    flags = [*_engine(config), *_speculation(config)]
    lines = [shlex.join(flag) for flag in flags]
    settings = config.settings
    is_shared = settings.shares or settings.split == "memory"
    told = _SERVER_TOLD | {"split"} if is_shared else _SERVER_TOLD
    cannot = [*([ADAPTS] if drafts(config) else []), *not_told(config, told)]
    return Exported(
        text=" \\\n    ".join(["llama-server", *lines]) + "\n",
        cannot=tuple(cannot),
        notes=(
            "one slot (--parallel 1) has the whole context, as in localspec",
            "GOMP_SPINCOUNT=1000 in its environment keeps it from stalling beside other programs,"
            " as localspec does",
        ),
    )


def _engine(config: SessionConfig) -> list[list[str]]:
    settings = config.settings
    flags = [
        ["--model", str(config.model)],
        ["--ctx-size", str(settings.ctx), "--parallel", "1"],
        ["--threads", str(settings.threads)],
        ["--ubatch-size", str(settings.ubatch)],
        ["--flash-attn", settings.flash_attn],
        ["--cache-type-k", settings.kv_k, "--cache-type-v", settings.kv_v],
    ]
    if settings.threads_batch:
        flags[2] += ["--threads-batch", str(settings.threads_batch)]
    if settings.gpu_layers >= 0:
        flags.append(["--n-gpu-layers", str(settings.gpu_layers)])
    flags += _placing(config)
    if not settings.mmap:
        flags.append(["--load-mode", "none"])
    if not settings.repack:
        flags.append(["--no-repack"])
    return flags


def _placing(config: SessionConfig) -> list[list[str]]:
    """Who computes what."""
    settings, flags = config.settings, list[list[str]]()
    if settings.device:
        flags.append(["--device", ",".join(settings.device)])
    if settings.workers:
        flags.append(["--rpc", ",".join(addresses_of(settings.workers))])
    if settings.split == "memory":
        flags.append(["--split-mode", "layer"])
    if settings.shares:
        flags.append(["--tensor-split", ",".join(settings.shares)])
    if settings.cpu_moe:
        flags.append(["--n-cpu-moe", str(settings.cpu_moe)])
    return flags


def _speculation(config: SessionConfig) -> list[list[str]]:
    n = str(draft_length(config))
    if head := head_in(config):
        flags = [["--spec-type", SERVER_HEADS[head.method], "--spec-draft-n-max", n]]
        return [*flags, ["--spec-draft-model", str(head.path)]] if head.path else flags
    if draft := draft_of(config):
        return [
            ["--spec-type", "draft-simple", "--spec-draft-n-max", n],
            ["--spec-draft-model", str(draft)],
        ]
    if looks_up(config):
        # The server drafts nothing where it could copy fewer tokens than the n-gram has.
        size = str(max(NGRAM, int(n)))
        return [
            ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", str(NGRAM)],
            ["--spec-ngram-simple-size-m", size],
        ]
    return []


def llama_cpp_python(config: SessionConfig) -> Exported:
    """Python code that loads the model and answers once."""
    settings = config.settings
    arguments = {
        "model_path": repr(str(config.model)),
        "n_ctx": settings.ctx,
        "n_threads": settings.threads,
        "n_threads_batch": settings.threads_batch or settings.threads,
        "n_batch": max(settings.ubatch, 512),
        "n_ubatch": settings.ubatch,
        "n_gpu_layers": settings.gpu_layers,
        "use_mmap": settings.mmap,
        "flash_attn": settings.flash_attn != "off",
        "type_k": cache_type(settings.kv_k).id,
        "type_v": cache_type(settings.kv_v).id,
    }
    imports = "import llama_cpp\n"
    if looks_up(config):
        imports += "from llama_cpp.llama_speculative import LlamaPromptLookupDecoding\n"
        n = draft_length(config)
        arguments["draft_model"] = f"LlamaPromptLookupDecoding(num_pred_tokens={n})"
        arguments["logits_all"] = True
    types = {"type_k": f"  # {settings.kv_k}", "type_v": f"  # {settings.kv_v}"}
    lines = "".join(f"    {n}={value},{types.get(n, '')}\n" for n, value in arguments.items())
    text = (
        f"{imports}\nllm = llama_cpp.Llama(\n{lines})\n"
        'print(llm("The sky is", max_tokens=32)["choices"][0]["text"])\n'
    )
    cannot, notes = not_told(config, _LLAMA_TOLD), tuple[str, ...]()
    if looks_up(config):
        cannot.insert(0, "stop drafting where that does not pay")
        notes = ("lookup needs logits_all=True, which keeps n_ctx x vocabulary floats in memory",)
    if draft_of(config) or head_in(config):
        cannot.insert(0, f"draft with a {'head' if head_in(config) else 'model'}")
    return Exported(text, tuple(cannot), notes)


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
    elif head_in(config):
        found.append("be told to draft with a head")
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
    lines += _ollama_draft(config)
    return Exported("\n".join(lines) + "\n", tuple(_ollama_cannot(config, kind)))


OLLAMA_HEADS = ("mtp", "gemma4-assistant", "dflash")


def _ollama_draft(config: SessionConfig) -> list[str]:
    """A head inside the model's file needs a length and no line of its own."""
    head = head_in(config)
    if head is None or head.method not in OLLAMA_HEADS:
        return []
    file = [f"DRAFT {head.path}"] if head.path else []
    return [*file, f"PARAMETER draft_num_predict {draft_length(config)}"]


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
    head = head_in(config)
    if head:
        is_known = head.method in OLLAMA_HEADS
        lacks = f"draft with a head of the kind {head.method} (only MTP and DFlash)"
        found.append(ADAPTS if is_known else lacks)
    elif draft_of(config):
        found.append("draft with a small model")
    elif drafts(config):
        found.append("draft by prompt lookup")
    return found + not_told(config, USUAL)
