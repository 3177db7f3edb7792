"""Servers for data-centre GPUs, proxies before servers, and Hugging Face transformers.

vLLM, SGLang, TGI and TensorRT-LLM run the original weights, so only the context, the draft with its
length, and an 8-bit cache carry over. transformers runs `generate` with an assistant model or
prompt lookup. It unpacks GGUF files of common architectures to floats (`gguf_file`), so memory is
that of the original model.

llama-swap starts servers on demand; LiteLLM shares requests out among those that run, on one
machine or several.

All follow the documentation and were not run here.
"""

import json
import re
import shlex
from collections.abc import Container
from dataclasses import replace

from localspec.engine.graphics import graphics
from localspec.engine.workers import addresses_of
from localspec.export.exported import (
    ADAPTS,
    Exported,
    ExportedHead,
    draft_length,
    draft_of,
    drafts,
    fp8_for,
    head_in,
    looks_up,
    not_told,
)
from localspec.export.llama_cpp import llama_server
from localspec.session.session_config import SessionConfig
from localspec.settings import ROWS

MODEL, DRAFT = "MODEL", "DRAFT"
NGRAM_MAX = 3
_NAMES = (
    f"put the original model's repository in place of {MODEL}"
    f" (and of {DRAFT}): GGUF files are for llama.cpp"
)


def vllm(config: SessionConfig) -> Exported:
    """A command line of `vllm serve`."""
    flags = [["vllm", "serve", MODEL], ["--max-model-len", str(config.settings.ctx)]]
    if (n_gpus := _n_gpus(config)) > 1:
        flags.append(["--tensor-parallel-size", str(n_gpus)])
    if fp8_for(config):
        flags.append(["--kv-cache-dtype", "fp8"])
    if drafts(config):
        flags.append(["--speculative-config", json.dumps(_speculative(config))])
    return Exported(_command(flags), _cannot(config), _notes(config))


def _n_gpus(config: SessionConfig) -> int:
    """The named ones, else all that are here."""
    settings = config.settings
    return len(graphics(settings.device)) if settings.gpu_layers else 0


def _notes(config: SessionConfig) -> tuple[str, ...]:
    if _n_gpus(config) < 2:
        return (_NAMES,)
    return (_NAMES, "the number of GPUs must divide the model's attention heads")


def _speculative(config: SessionConfig) -> dict[str, object]:
    n = {"num_speculative_tokens": draft_length(config)}
    if head := head_in(config):
        method = "mtp" if head.method == "gemma4-assistant" else head.method
        return {"method": method, **({"model": DRAFT} if head.path else {}), **n}
    if draft_of(config):
        return {"method": "draft_model", "model": DRAFT, **n}
    return {"method": "ngram", **n, "prompt_lookup_max": NGRAM_MAX}


SGLANG_HEADS = {"mtp": "NEXTN", "eagle3": "EAGLE3", "dflash": "DFLASH"}


def sglang(config: SessionConfig) -> Exported:
    """A command line of `sglang.launch_server`. MTP heads, which the original weights have inside,
    are its NEXTN; a chain of tokens is drafted, not a tree."""
    command = ["python", "-m", "sglang.launch_server", "--model-path", MODEL]
    flags = [command, ["--context-length", str(config.settings.ctx)]]
    if (n_gpus := _n_gpus(config)) > 1:
        flags.append(["--tp-size", str(n_gpus)])
    if fp8_for(config):
        flags.append(["--kv-cache-dtype", "fp8_e4m3"])
    head = head_in(config)
    if drafts(config) and (head is None or head.method in SGLANG_HEADS):
        flags += _sglang_drafts(config, head)
    return Exported(
        _command(flags), _cannot(config, _kind_beyond(head, SGLANG_HEADS)), _notes(config)
    )


def _sglang_drafts(config: SessionConfig, head: ExportedHead | None) -> list[list[str]]:
    n = draft_length(config)
    tokens = ["--speculative-num-draft-tokens", str(n + 1)]
    steps = ["--speculative-num-steps", str(n), "--speculative-eagle-topk", "1", *tokens]
    if head is None and not draft_of(config):
        return [["--speculative-algorithm", "NGRAM", *tokens]]
    algorithm = SGLANG_HEADS[head.method] if head else "STANDALONE"
    flags = [["--speculative-algorithm", algorithm]]
    if head is None or head.method != "mtp":
        flags.append(["--speculative-draft-model-path", DRAFT])
    return [*flags, tokens if algorithm == "DFLASH" else steps]


def tgi(config: SessionConfig) -> Exported:
    """A command line of `text-generation-launcher`."""
    settings = config.settings
    flags = [
        ["text-generation-launcher", "--model-id", MODEL],
        ["--max-total-tokens", str(settings.ctx)],
        ["--max-input-tokens", str(max(1, (settings.ctx or 2) - 1))],
    ]
    if fp8_for(config):
        flags.append(["--kv-cache-dtype", "fp8_e4m3fn"])
    if looks_up(config):
        flags.append(["--speculate", str(draft_length(config))])
    lacks = _kind_beyond(head_in(config), ())
    if draft_of(config):
        lacks = "draft with a small model (only with lookup or Medusa heads)"
    return Exported(_command(flags), _cannot(config, lacks), (_NAMES,))


def tensorrt_llm(config: SessionConfig) -> Exported:
    """A command line of `trtllm-serve` with the file of options that it reads."""
    options: list[str] = []
    if fp8_for(config):
        options += ["kv_cache_config:", "  dtype: fp8"]
    lacks = _kind_beyond(head_in(config), TENSORRT_HEADS)
    if drafts(config) and not lacks:
        options += ["speculative_config:", *_decoding(config)]
    command = ["trtllm-serve", MODEL, "--max_seq_len", str(config.settings.ctx)]
    text = shlex.join(command)
    if options:
        text = (
            "cat > options.yaml <<'END'\n" + "\n".join(options) + "\nEND\n"
            f"{text} --extra_llm_api_options options.yaml"
        )
    return Exported(text + "\n", _cannot(config, lacks), (_NAMES,))


TENSORRT_HEADS = ("mtp", "eagle3")


def _decoding(config: SessionConfig) -> list[str]:
    length = f"  max_draft_len: {draft_length(config)}"
    if head := head_in(config):
        n_layers = f"  num_nextn_predict_layers: {draft_length(config)}"
        if head.method == "mtp":
            return ["  decoding_type: MTP", n_layers]
        return ["  decoding_type: Eagle", length, f"  speculative_model_dir: {DRAFT}"]
    if draft_of(config):
        return ["  decoding_type: Draft_Target", length, f"  speculative_model: {DRAFT}"]
    return ["  decoding_type: NGram", length, f"  max_matching_ngram_size: {NGRAM_MAX}"]


def _command(flags: list[list[str]]) -> str:
    return " \\\n    ".join(shlex.join(flag) for flag in flags) + "\n"


_TOLD = frozenset(name for name, row in ROWS.items() if row.is_engine)
"""Settings that carry over, or mean nothing to an engine with the original weights on a GPU."""


def _kind_beyond(head: ExportedHead | None, known: Container[str]) -> str:
    """The clause for a head of a kind that an engine does not know; else ""."""
    if head is None or head.method in known:
        return ""
    return f"draft with a head of the kind {head.method}"


def _cannot(config: SessionConfig, lacks: str = "") -> tuple[str, ...]:
    """`lacks`: why nothing is drafted there at all."""
    settings = config.settings
    found: list[str] = []
    if settings.kv_k != settings.kv_v:
        found.append("keep keys and values in different types")
    if fp8_for(config):
        found.append(f"keep {settings.kv_k} keys and {settings.kv_v} values (fp8 stands in)")
    if drafts(config):
        found.append(lacks or ADAPTS)
    return (*found, *not_told(config, _TOLD))


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
    arguments = [f"max_length={config.settings.ctx}"]
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
    bits = BITS.get(config.settings.kv_k)
    if bits is None or _drafts_there(config):  # a quantized cache cannot be rolled back there
        return []
    settings = f'{{"backend": "quanto", "nbits": {bits}}}'
    return ['cache_implementation="quantized"', f"cache_config={settings}"]


def _drafts_there(config: SessionConfig) -> bool:
    return drafts(config) and head_in(config) is None


def _transformers_cannot(config: SessionConfig) -> list[str]:
    settings = config.settings
    found = ["compute with the quantized weights: it unpacks them"]
    if lacks := _kind_beyond(head_in(config), ()):
        found.append(lacks)
    quantized = {settings.kv_k, settings.kv_v} & set(BITS)
    if settings.kv_k != settings.kv_v:
        found.append("keep keys and values in different types")
    if quantized and _drafts_there(config):
        found.append("draft with a quantized cache (the default cache stands in)")
    return found + not_told(config, _TOLD)


PORT = 8080
"""llama-server's own."""
_UNSAFE = re.compile(r"[^\w.-]+")


def llama_swap(config: SessionConfig) -> Exported:
    """A config.yaml with one model, started by its first request."""
    server = llama_server(config)
    command = server.text.replace("llama-server", "llama-server --port ${PORT}", 1)
    lines = "".join(
        f"      {line.strip()}\n" for line in command.replace("\\\n", "\n").splitlines()
    )
    text = f"models:\n  {json.dumps(_name(config))}:\n    cmd: |\n{lines}    ttl: 600\n"
    note = "append the entries of other models under `models:`; each takes the whole machine"
    return replace(server, text=text, notes=(*server.notes, note))


def litellm(config: SessionConfig) -> Exported:
    """A config.yaml with this machine's server, and one more for each worker's machine.

    Each machine answers whole requests, so the model must fit on every one of them.
    """
    hosts = ["127.0.0.1"]
    hosts += [address.rpartition(":")[0] for address in addresses_of(config.settings.workers)]
    server = llama_server(replace(config, settings=replace(config.settings, workers=())))
    command = " ".join(server.text.replace("\\\n", " ").split())
    lines = [f"# On each machine: {command} --host 0.0.0.0 --port {PORT}", "model_list:"]
    for host in dict.fromkeys(hosts):
        lines += [
            f"  - model_name: {json.dumps(_name(config))}",
            "    litellm_params:",
            f"      model: {json.dumps('openai/' + _name(config))}",
            f"      api_base: {json.dumps(f'http://{host}:{PORT}/v1')}",
            '      api_key: "none"',
        ]
    lines += ["router_settings:", "  routing_strategy: least-busy"]
    note = "each machine answers whole requests: the model must fit on every one"
    return Exported("\n".join(lines) + "\n", server.cannot, (note,))


def _name(config: SessionConfig) -> str:
    return _UNSAFE.sub("-", config.model.stem)
