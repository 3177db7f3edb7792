"""A model for tests that were written for the tinyllamas (stories260K), where those cannot be had.

Like those it is a small llama with SentencePiece's vocabulary, a token at the beginning of texts,
no sense in what it says, and replies that end at their limit. Its weights are random, and its
vocabulary is that of Llama 2, which llama.cpp's sources carry. It has their default template.
Tests of the stories' own words and of their vocabulary's counts of tokens fail with it.
"""

from pathlib import Path

from localspec.gguf.cursor import FileSource
from localspec.gguf.header import parse
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import write_gguf
from localspec.model.synthetic import RandomTensors, Shape, llama_metadata, llama_tensors

VOCABULARY = Path("models") / "ggml-vocab-llama-spm.gguf"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def stand_in(source: Path, path: Path) -> Path:
    """Write it; `source` is a source tree of llama.cpp."""
    vocabulary = FileSource(source / VOCABULARY)
    try:
        found = parse(vocabulary).metadata
        tokenizer = {k: v for k, v in found.items() if k.startswith("tokenizer.")}
    finally:
        vocabulary.close()
    shape = Shape(n_layers=3, n_embd=64, n_heads=8, n_kv_heads=4, n_ff=192, n_vocab=32000)
    metadata = llama_metadata(shape) | tokenizer | {"tokenizer.chat_template": CHATML}
    tensors = RandomTensors(BY_NAME["F16"], 0)
    # With the embedding table as output matrix it would say its last token again and again.
    output = tensors.matrix("output.weight", shape.n_embd, shape.n_vocab)
    write_gguf(path, metadata, [*llama_tensors(shape, tensors), output])
    return path
