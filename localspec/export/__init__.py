"""Settings for other engines: a command, a file or a program, with what the engine cannot do."""

from collections.abc import Callable

from localspec.export.exported import Exported
from localspec.export.llama_cpp import llama_cpp_python, llama_server, lm_studio, ollama
from localspec.export.servers import (
    litellm,
    llama_swap,
    sglang,
    tensorrt_llm,
    tgi,
    transformers,
    vllm,
)
from localspec.session.session_config import SessionConfig

TARGETS: dict[str, Callable[[SessionConfig], Exported]] = {
    "llama-server": llama_server,
    "ollama": ollama,
    "lm-studio": lm_studio,
    "llama-cpp-python": llama_cpp_python,
    "llama-swap": llama_swap,
    "litellm": litellm,
    "vllm": vllm,
    "sglang": sglang,
    "tgi": tgi,
    "tensorrt-llm": tensorrt_llm,
    "transformers": transformers,
}
"""Exports by the name that `--to` takes. They need a configuration without open (None) fields."""
