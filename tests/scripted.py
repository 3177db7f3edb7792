"""Models that say what they are told to: small GGUF files whose every token has one successor.

All weights but two matrices are zero, so what leaves the last layer is the embedding of the last
token, and the output matrix holds that embedding in the row of its successor (the end has many).
The chat template ends with the last letter of the question, which chooses the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from babbling import byte_letters

from localspec.gguf.cursor import ValueType
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, array_of, write_gguf

N_EMBD, N_FF, N_CTX = 256, 32, 4096
SPECIALS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|begin|>", "<|eos|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{% if m.role == 'assistant' %}{{ messages[loop.index0 - 1].content[-1:] }}{% endif %}"
    "{{ m.content }}<|end|>{% endfor %}<|assistant|>{{ messages[-1].content[-1:] }}"
)
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


def write_scripted(path: Path, answers: dict[str, str | Sequence[bytes]]) -> Path:
    """A model that answers a question which ends with a key of `answers` with its text.

    Given as bytes, an answer's tokens are those.
    """
    letters = byte_letters()
    tokens = [*letters, *SPECIALS]
    eos = len(tokens) - 1
    successor = {}
    for key, answer in answers.items():
        pieces = _unique(answer, set(tokens), letters)
        ids = [ord(key), *range(len(tokens), len(tokens) + len(pieces)), eos]
        tokens += pieces
        successor |= dict(pairwise(ids))
    _write(path, tokens, successor, dict.fromkeys(SPECIALS, CONTROL), TEMPLATE)
    return path


@dataclass(frozen=True, slots=True)
class Script:
    """What a model says behind the token `start`, with which its prompts end, token by token.

    A piece that is named in `control` or `user_defined` is such a token. No piece comes twice.
    `goes_round` pieces at the end are said for ever; 0: the answer ends.
    """

    pieces: Sequence[str]
    template: str
    control: Sequence[str] = ()
    user_defined: Sequence[str] = ()
    start: str = "<|gen|>"
    goes_round: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


def write_script(path: Path, script: Script) -> Path:
    """A model that says the same to every question."""
    letters = byte_letters()
    specials = dict.fromkeys(["<|gen|>", *script.control], CONTROL)
    specials |= dict.fromkeys(script.user_defined, USER_DEFINED)
    tokens = [*letters, *specials]
    ids = {token: i for i, token in enumerate(tokens)}
    for piece in script.pieces:
        if piece not in specials:
            coded = _coded(piece, letters)
            assert coded not in ids, f"{piece!r} is a token already"
            ids[piece] = len(tokens)
            tokens.append(coded)
    start = script.start if script.start in specials else _coded(script.start, letters)
    chain = [ids[start], *(ids[piece] for piece in script.pieces)]
    assert len(set(chain)) == len(chain), "a piece comes twice"
    tokens += ["<|bos|>", "<|eos|>"]
    chain.append(chain[-script.goes_round] if script.goes_round else len(tokens) - 1)
    specials |= {"<|bos|>": CONTROL, "<|eos|>": CONTROL}
    _write(path, tokens, dict(pairwise(chain)), specials, script.template, script.metadata)
    return path


def _coded(text: str, letters: list[str]) -> str:
    return "".join(letters[byte] for byte in text.encode())


def _unique(answer: str | Sequence[bytes], known: set[str], letters: list[str]) -> list[str]:
    """Tokens that no other answer has, so that each has one successor."""
    given = not isinstance(answer, str)
    parts = list(answer) if given else [b"%c" % byte for byte in answer.encode()]
    pieces: list[str] = []
    piece = ""
    for part in parts:
        piece += "".join(letters[byte] for byte in part)
        if piece not in known and (given or len(piece) > 3):
            pieces.append(piece)
            known.add(piece)
            piece = ""
        else:
            assert not given, f"{part!r} is a token already"
    if piece:
        last = pieces.pop() if pieces else ""
        pieces.append(last + piece)
        known.add(pieces[-1])
    return pieces


def _write(
    path: Path,
    tokens: list[str],
    successor: dict[int, int],
    specials: dict[str, int],
    template: str,
    more: Mapping[str, Any] | None = None,
) -> None:
    n_vocab, eos = len(tokens), tokens.index("<|eos|>")
    embeddings = np.random.default_rng(0).choice([-1.0, 1.0], (n_vocab, N_EMBD))
    output = np.zeros((n_vocab, N_EMBD))
    for token, following in successor.items():
        output[following] += embeddings[token]
    kinds = [specials.get(token, NORMAL) for token in tokens]
    metadata = {
        "general.architecture": "llama",
        "general.name": "scripted",
        "llama.block_count": 1,
        "llama.context_length": N_CTX,
        "llama.embedding_length": N_EMBD,
        "llama.feed_forward_length": N_FF,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": 64,
        "llama.vocab_size": n_vocab,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": array_of(ValueType.STRING, tokens),
        "tokenizer.ggml.token_type": array_of(ValueType.INT32, kinds),
        "tokenizer.ggml.merges": array_of(ValueType.STRING, ["zz zz"]),
        "tokenizer.ggml.bos_token_id": eos - 1,
        "tokenizer.ggml.eos_token_id": eos,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": template,
        **(more or {}),
    }
    one = np.ones(N_EMBD)
    sizes = {
        "attn_q": (N_EMBD, 256),
        "attn_k": (N_EMBD, 64),
        "attn_v": (N_EMBD, 64),
        "attn_output": (256, N_EMBD),
        "ffn_gate": (N_EMBD, N_FF),
        "ffn_up": (N_EMBD, N_FF),
        "ffn_down": (N_FF, N_EMBD),
    }
    tensors = [
        _tensor("token_embd.weight", embeddings),
        _tensor("output_norm.weight", one),
        _tensor("output.weight", output),
        _tensor("blk.0.attn_norm.weight", one),
        _tensor("blk.0.ffn_norm.weight", one),
        *(
            _tensor(f"blk.0.{name}.weight", np.zeros((n_rows, n_columns)))
            for name, (n_columns, n_rows) in sizes.items()
        ),
    ]
    write_gguf(path, metadata, tensors)


def _tensor(name: str, values: np.ndarray) -> TensorPlan:
    data = values.astype("<f4").tobytes()
    return TensorPlan(name, BY_NAME["F32"], values.shape[::-1], lambda: (data,))
