"""Settings for other engines: a command, a file or a program, and what the other cannot do."""

from collections.abc import Callable

from localspec.export.exported import Exported
from localspec.export.llama_cpp_python import llama_cpp_python
from localspec.export.llama_server import llama_server
from localspec.export.lm_studio import lm_studio
from localspec.export.ollama import ollama
from localspec.export.servers import tensorrt_llm, tgi, vllm
from localspec.export.transformers import transformers
from localspec.session.config import SessionConfig

__all__ = ["TARGETS", "Exported"]

TARGETS: dict[str, Callable[[SessionConfig], Exported]] = {
    "llama-server": llama_server,
    "ollama": ollama,
    "lm-studio": lm_studio,
    "llama-cpp-python": llama_cpp_python,
    "vllm": vllm,
    "tgi": tgi,
    "tensorrt-llm": tensorrt_llm,
    "transformers": transformers,
}
"""By the name that `--to` takes. Every field of the configuration that is None must be set."""
