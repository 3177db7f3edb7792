"""Models with random weights: what self-test and probe measure with must load and answer."""

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from babbling import EOS, write_babbling_model
from hybrids import MambaShape, write_random_mamba

from localspec.gguf.reader import read_header
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, write_gguf
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import WEIGHT_TYPES, RandomTensors, Shape, write_random_model
from localspec.model.usable import check_usable

SMALL = Shape(n_layers=2, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=512)

# Run apart: a build of libllama that crashes fails one test, not the run. One thread and no
# repacked weights: this asks whether the files are right, not whether the build is.
CHILD = """
import ctypes, json, sys
import llama_cpp.llama_cpp as C
import numpy as np

quiet = C.llama_log_callback(lambda level, text, data: None)
C.llama_log_set(quiet, None)
C.llama_backend_init()

def steps(context, model, sizes):
    n_vocab = C.llama_vocab_n_tokens(C.llama_model_get_vocab(model))
    past = 0
    for n in sizes:
        batch = C.llama_batch_init(n, 0, 1)
        batch.n_tokens = n
        for i in range(n):
            batch.token[i], batch.pos[i] = (7 * (past + i)) % n_vocab, past + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        code = C.llama_decode(context, batch)
        past += n
        rows = [np.ctypeslib.as_array(C.llama_get_logits_ith(context, i), (n_vocab,)).copy()
                for i in range(n)] if code == 0 else [np.zeros(1)]
        yield {"code": code, "finite": bool(np.isfinite(rows).all()),
               "spread": float(np.std(rows)), "best": [int(row.argmax()) for row in rows]}
        C.llama_batch_free(batch)

def text(model):
    vocab = C.llama_model_get_vocab(model)
    said = "Hello, w\\u00f6rld \\U0001f642\\n\\u65e5\\u672c".encode()
    ids = (ctypes.c_int32 * 200)()
    n = C.llama_tokenize(vocab, said, len(said), ids, 200, True, False)
    piece, back = ctypes.create_string_buffer(64), b""
    for i in ids[1:n]:
        length = C.llama_token_to_piece(vocab, i, piece, 64, 0, False)
        back += piece.raw[:length]
    eos = C.llama_vocab_eos(vocab)
    return {"same": back == said, "bos": ids[0] == C.llama_vocab_bos(vocab),
            "eos": eos, "eog": bool(C.llama_vocab_is_eog(vocab, eos))}

results = []
for path in sys.argv[1:]:
    params = C.llama_model_default_params()
    params.use_extra_bufts, params.n_gpu_layers = False, 0
    model = C.llama_model_load_from_file(path.encode(), params)
    settings = C.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 256, 1, 1
    context = C.llama_init_from_model(model, settings)
    result = {"steps": list(steps(context, model, (1, 2, 8, 32))),
              "recurrent": bool(C.llama_model_is_recurrent(model)),
              "bytes": C.llama_model_size(model), "params": C.llama_model_n_params(model)}
    result["state_bytes"] = C.llama_state_seq_get_size(context, 0)
    memory = C.llama_get_memory(context)
    result["rolls_back"] = bool(C.llama_memory_seq_rm(memory, 0, 40, -1))
    if C.llama_vocab_type(C.llama_model_get_vocab(model)) != 0:
        result["text"] = text(model)
    results.append(result)
    C.llama_free(context)
    C.llama_model_free(model)
print(json.dumps(results))
"""


def in_libllama(*paths: Path) -> list[dict]:
    """What libllama makes of models, one result each."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, paths)],
        capture_output=True,
        check=False,
        env=environment,
        timeout=120,
    )
    assert child.returncode == 0, child.stderr.decode()[-2000:]
    return json.loads(child.stdout)


@pytest.mark.engine
def test_every_type_answers(tmp_path: Path):
    """The self-test of an engine build believes that a crash or a NaN is the engine's fault."""
    paths = [tmp_path / f"{kind.name}.gguf" for kind in WEIGHT_TYPES]
    for path, kind in zip(paths, WEIGHT_TYPES, strict=True):
        write_random_model(path, SMALL, kind.name)
        check_usable(read_header(path))
    for path, result in zip(paths, in_libllama(*paths), strict=True):
        for step in result["steps"]:
            assert (step["code"], step["finite"]) == (0, True), path.name
            assert 0.5 < step["spread"] < 2, path.name
        best = [token for step in result["steps"] for token in step["best"]]
        assert len(set(best)) > 10, f"{path.name}: the same answer to everything"
        assert not result["recurrent"]
        assert result["rolls_back"]
        facts = ModelFacts.of(read_header(path))
        assert (facts.weight_bytes, facts.n_params) == (result["bytes"], result["params"])


@pytest.mark.engine
def test_byte_tokenizer_and_mamba(tmp_path: Path):
    """Any text goes in and comes out; the recurrent model cannot forget its last tokens."""
    llama, mamba = tmp_path / "llama.gguf", tmp_path / "mamba.gguf"
    write_babbling_model(llama, SMALL, "Q8_0")
    write_random_mamba(mamba, MambaShape(), "Q8_0")
    for path, result in zip((llama, mamba), in_libllama(llama, mamba), strict=True):
        header = read_header(path)
        check_usable(header)
        eos = (header.strings("tokenizer.ggml.tokens") or []).index(EOS)
        assert result["text"] == {"same": True, "bos": True, "eos": eos, "eog": True}
        assert all(step["code"] == 0 and step["finite"] for step in result["steps"])
        assert result["recurrent"] == (path == mamba)
        assert result["rolls_back"] == (path == llama)
    state_bytes = ModelFacts.of(read_header(mamba)).state_bytes
    assert state_bytes is not None
    assert state_bytes <= result["state_bytes"] < state_bytes + 1000  # and what frames it


@pytest.mark.engine
def test_a_mixture_of_experts_answers(tmp_path: Path):
    """What a probe of experts would measure with; their share is what is predicted from."""
    path = tmp_path / "moe.gguf"
    write_random_model(path, replace(SMALL, n_experts=8, n_experts_used=2), "Q4_K")
    check_usable(read_header(path))
    [result] = in_libllama(path)
    assert all(step["code"] == 0 and step["finite"] for step in result["steps"])
    facts = ModelFacts.of(read_header(path))
    assert (facts.weight_bytes, facts.n_params) == (result["bytes"], result["params"])
    assert facts.expert_bytes == 2 * 8 * 3 * 256 * 512 * 144 // 256
    (used,) = (part.n_bytes for part in facts.streamed(1) if part.role == "experts")
    assert used * 4 == facts.expert_bytes


@pytest.mark.parametrize("kind", WEIGHT_TYPES, ids=lambda kind: kind.name)
def test_weights_have_mean_0_and_the_wanted_spread(tmp_path: Path, kind):
    """A wrong place or factor of a scale gives activations that vanish or overflow."""
    path = tmp_path / "m.gguf"
    write_gguf(path, {}, [RandomTensors(kind, 3).matrix("w", 1024, 512)])
    tensor = gguf.GGUFReader(path).tensors[0]
    weights = gguf.dequantize(tensor.data, tensor.tensor_type) * np.sqrt(1024)
    assert np.isfinite(weights).all()
    assert weights.std() == pytest.approx(1, abs=0.03)
    assert weights.mean() == pytest.approx(0, abs=0.03)
    assert len(np.unique(weights[0])) > 3


def test_seed_decides(tmp_path: Path):
    paths = [tmp_path / f"{i}.gguf" for i in range(3)]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        write_random_model(path, SMALL, "Q4_0", seed)
    first, same, other = (path.read_bytes() for path in paths)
    assert first == same != other


def test_one_token_streams_every_byte(tmp_path: Path):
    """The probe divides bytes by seconds: the output matrix must be the embedding table."""
    path = tmp_path / "m.gguf"
    write_random_model(path, SMALL, "Q4_K")
    assert "output.weight" not in {tensor.name for tensor in read_header(path).tensors}


def test_large_models_take_little_memory(tmp_path: Path):
    """Bounded: a 40 GB model may be written on a machine with 16."""
    path = tmp_path / "m.gguf"
    shape = Shape(n_layers=4, n_embd=1024, n_heads=8, n_ff=2048, n_vocab=4096)
    tracemalloc.start()
    try:
        write_random_model(path, shape, "F16")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 60 << 20
    assert peak_bytes < 12 << 20


def test_whole_files_or_none(tmp_path: Path):
    """A disk that fills up must not leave half a model under its name, nor spoil the one there."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"before")

    def fail() -> list[bytes]:
        raise OSError(28, "No space left on device")

    plan = TensorPlan("w", BY_NAME["F32"], (8,), fail)
    with pytest.raises(OSError, match="No space"):
        write_gguf(path, {}, [plan])
    assert path.read_bytes() == b"before"
    assert list(tmp_path.glob("m.gguf*")) == [path]
