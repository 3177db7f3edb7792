"""llama.cpp's own server. Flags of libllama 0.5.0 (common/arg.cpp).

Since llama.cpp PR 23988 `--model-draft` alone drafts nothing: `--spec-type` turns drafting on, and
`--draft-max` is gone. `scripts/check-export` holds every flag against the server's own --help.
"""

import shlex

from localspec.export.exported import (
    ADAPTS,
    Exported,
    draft_length,
    draft_of,
    drafts,
    looks_up,
)
from localspec.session.config import SessionConfig

NGRAM = 3
"""Tokens that must match before a look-up; the server's default of 12 hardly ever finds any."""


def llama_server(config: SessionConfig) -> Exported:
    """A command line."""
    flags = [*_engine(config), *_speculation(config)]
    lines = [shlex.join(flag) for flag in flags]
    cannot = (ADAPTS,) if drafts(config) else ()
    return Exported(
        text=" \\\n    ".join(["llama-server", *lines]) + "\n",
        cannot=cannot,
        notes=(
            "one slot (--parallel 1) has the whole context, as in localspec",
            "GOMP_SPINCOUNT=1000 in its environment keeps it from stalling beside other programs,"
            " as localspec does",
        ),
    )


def _engine(config: SessionConfig) -> list[list[str]]:
    flags = [
        ["--model", str(config.model)],
        ["--ctx-size", str(config.n_ctx), "--parallel", "1"],
        ["--threads", str(config.n_threads)],
        ["--ubatch-size", str(config.n_batch)],
        ["--flash-attn", config.flash_attn],
        ["--cache-type-k", config.kv_k, "--cache-type-v", config.kv_v],
    ]
    if config.n_threads_batch:
        flags[2] += ["--threads-batch", str(config.n_threads_batch)]
    if config.n_gpu_layers >= 0:
        flags.append(["--n-gpu-layers", str(config.n_gpu_layers)])
    if config.n_cpu_moe:
        flags.append(["--n-cpu-moe", str(config.n_cpu_moe)])
    if not config.use_mmap:
        flags.append(["--load-mode", "none"])
    if not config.repack:
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
        # It drafts nothing where fewer than the n-gram's tokens could be copied.
        size = str(max(NGRAM, int(n)))
        return [
            ["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", str(NGRAM)],
            ["--spec-ngram-simple-size-m", size],
        ]
    return []
