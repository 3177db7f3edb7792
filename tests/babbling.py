"""Random models that text goes into and comes out of.

Their vocabulary is a byte-level BPE (GPT-2's) of the 256 bytes and a few pairs.
"""

from pathlib import Path

from localspec.gguf.cursor import Value, ValueType
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import array_of, write_gguf
from localspec.model.synthetic import RandomTensors, Shape, llama_metadata, llama_tensors

BOS, EOS = "<|begin|>", "<|end_of_text|>"
_MERGES = ("Ġ t", "h e", "i n", "Ġ a", "e r", "o n")
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5  # of enum llama_token_type


def byte_vocabulary(n_vocab: int) -> dict[str, Value]:
    """Metadata of a tokenizer with `n_vocab` tokens; those beyond the first 264 are never used."""
    pairs = [merge.replace(" ", "") for merge in _MERGES]
    tokens = [*byte_letters(), *pairs, BOS, EOS]
    n_used = len(tokens)
    assert n_vocab >= n_used, f"{n_vocab} tokens are fewer than the {n_used} that are needed"
    kinds = [_NORMAL] * (n_used - 2) + [_CONTROL] * 2 + [_UNUSED] * (n_vocab - n_used)
    tokens += [f"[UNUSED_{i}]" for i in range(n_used, n_vocab)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": array_of(ValueType.STRING, tokens),
        "tokenizer.ggml.token_type": array_of(ValueType.INT32, kinds),
        "tokenizer.ggml.merges": array_of(ValueType.STRING, _MERGES),
        "tokenizer.ggml.bos_token_id": n_used - 2,
        "tokenizer.ggml.eos_token_id": n_used - 1,
        "tokenizer.ggml.add_bos_token": True,
    }


def byte_letters() -> list[str]:
    """GPT-2's letter for each byte: printable Latin-1 is itself, the rest follows from U+0100."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def write_babbling_model(path: Path, shape: Shape, weight_type: str = "F16", seed: int = 0) -> None:
    """As `write_random_model`."""
    tensors = llama_tensors(shape, RandomTensors(BY_NAME[weight_type], seed))
    write_gguf(path, llama_metadata(shape) | byte_vocabulary(shape.n_vocab), list(tensors))
