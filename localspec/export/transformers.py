"""Hugging Face transformers: `generate` with an assistant model or prompt look-up.

It reads GGUF files of common architectures by unpacking them to floats (`gguf_file`), so memory is
that of the original model. Written from its documentation; not run here.
"""

from localspec.export.exported import (
    Exported,
    draft_length,
    draft_of,
    drafts,
    looks_up,
)
from localspec.session.config import SessionConfig

BITS = {"q8_0": 8, "q4_0": 4, "q4_1": 4, "iq4_nl": 4, "q5_0": 4, "q5_1": 4}


def transformers(config: SessionConfig) -> Exported:
    """Python code that answers once."""
    draft = draft_of(config)
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        *_loading("", config.model.parent, config.model.name),
    ]
    if draft:
        lines += _loading("draft_", draft.parent, draft.name)
    arguments = [f"max_length={config.n_ctx}"]
    if draft:
        lines.append(f"draft_model.generation_config.num_assistant_tokens = {draft_length(config)}")
        arguments.append("assistant_model=draft_model")
    elif looks_up(config):
        arguments.append(f"prompt_lookup_num_tokens={draft_length(config)}")
    arguments += _cache(config)
    lines += [
        'inputs = tokenizer("The sky is", return_tensors="pt")',
        f"output = model.generate(**inputs, {', '.join(arguments)})",
        "print(tokenizer.decode(output[0]))",
    ]
    return Exported("\n".join(lines) + "\n", tuple(_transformers_cannot(config)))


def _loading(prefix: str, folder: object, name: str) -> list[str]:
    where = f"{str(folder)!r}, gguf_file={name!r}"
    found = [f"{prefix}model = AutoModelForCausalLM.from_pretrained({where})"]
    if not prefix:
        found.append(f"tokenizer = AutoTokenizer.from_pretrained({where})")
    return found


def _cache(config: SessionConfig) -> list[str]:
    bits = BITS.get(config.kv_k)
    if bits is None or drafts(config):  # a quantized cache cannot be rolled back there
        return []
    settings = f'{{"backend": "quanto", "nbits": {bits}}}'
    return ['cache_implementation="quantized"', f"cache_config={settings}"]


def _transformers_cannot(config: SessionConfig) -> list[str]:
    found = ["compute with the quantized weights: it unpacks them"]
    quantized = {config.kv_k, config.kv_v} & set(BITS)
    if config.kv_k != config.kv_v:
        found.append("keep keys and values in different types")
    if quantized and drafts(config):
        found.append("draft with a quantized cache: the cache stays as it is")
    return found
