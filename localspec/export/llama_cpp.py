"""llama.cpp's own server, and llama-cpp-python's `Llama` as a program.

The flags are those of libllama 0.5.0 (common/arg.cpp). Since llama.cpp PR 23988 `--model-draft`
alone drafts nothing: `--spec-type` turns drafting on, and `--draft-max` is gone.
`scripts/test --acceptance export` holds every flag against the server's own --help.

llama-cpp-python 0.3.36 has no names for some cache types, so ggml's numbers stand for them.
"""

import shlex

from localspec.engine.workers import addresses_of
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
from localspec.model.kv import cache_type
from localspec.session.config import SessionConfig

NGRAM = 3
"""Tokens that must match before lookup drafts; the server's default of 12 rarely does."""

_LLAMA_TOLD = USUAL | {"threads_batch"}
_SERVER_TOLD = _LLAMA_TOLD | {"cpu_moe", "repack", "device", "workers"}


def llama_server(config: SessionConfig) -> Exported:
    """A command line."""
    flags = [*_engine(config), *_speculation(config)]
    lines = [shlex.join(flag) for flag in flags]
    cannot = [*([ADAPTS] if drafts(config) else []), *not_told(config, _SERVER_TOLD)]
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
    if settings.device:
        flags.append(["--device", ",".join(settings.device)])
    if settings.workers:
        flags.append(["--rpc", ",".join(addresses_of(settings.workers))])
    if settings.cpu_moe:
        flags.append(["--n-cpu-moe", str(settings.cpu_moe)])
    if not settings.mmap:
        flags.append(["--load-mode", "none"])
    if not settings.repack:
        flags.append(["--no-repack"])
    return flags


def _speculation(config: SessionConfig) -> list[list[str]]:
    n = str(draft_length(config))
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
    return Exported(text, tuple(_cannot(config)), tuple(_notes(config)))


def _cannot(config: SessionConfig) -> list[str]:
    found: list[str] = []
    if draft_of(config):
        found.append("draft with a model")
    if looks_up(config):
        found.append("stop drafting where that does not pay")
    return found + not_told(config, _LLAMA_TOLD)


def _notes(config: SessionConfig) -> list[str]:
    if not looks_up(config):
        return []
    return ["lookup needs logits_all=True, which keeps n_ctx x vocabulary floats in memory"]
