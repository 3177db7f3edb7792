"""llama-cpp-python's `Llama`, version 0.3.36, as a program.

It has no names for some cache types, so they are given by ggml's numbers.
"""

from localspec.export.exported import Exported, draft_length, draft_of, looks_up
from localspec.model.facts import cache_type
from localspec.session.config import SessionConfig


def llama_cpp_python(config: SessionConfig) -> Exported:
    """Python code that loads the model and answers once."""
    arguments = {
        "model_path": repr(str(config.model)),
        "n_ctx": config.n_ctx,
        "n_threads": config.n_threads,
        "n_threads_batch": config.n_threads_batch or config.n_threads,
        "n_batch": max(config.n_batch, 512),
        "n_ubatch": config.n_batch,
        "n_gpu_layers": config.n_gpu_layers,
        "use_mmap": config.use_mmap,
        "flash_attn": config.flash_attn != "off",
        "type_k": cache_type(config.kv_k).id,
        "type_v": cache_type(config.kv_v).id,
    }
    imports = "import llama_cpp\n"
    if looks_up(config):
        imports += "from llama_cpp.llama_speculative import LlamaPromptLookupDecoding\n"
        n = draft_length(config)
        arguments["draft_model"] = f"LlamaPromptLookupDecoding(num_pred_tokens={n})"
        arguments["logits_all"] = True
    types = {"type_k": f"  # {config.kv_k}", "type_v": f"  # {config.kv_v}"}
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
    if not config.repack:
        found.append("leave weights unpacked by an argument of `Llama`")
    if config.n_cpu_moe:
        found.append("keep only experts on the CPU")
    return found


def _notes(config: SessionConfig) -> list[str]:
    if not looks_up(config):
        return []
    return ["logits_all=True is needed with look-up, and keeps n_ctx x vocabulary floats in memory"]
