"""The report's parts on loading: to the first token, a long text read twice, and a large file."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, time_ns

from babbling import write_babbling_model
from models import named
from research.engine.report_parts import Row

from localspec.engine.timing import there_and_back
from localspec.model.synthetic import Shape

PROMPT = "Write one sentence about the sea."
N_LOADS = 5


def load_rows(model: str) -> Iterator[Row]:
    """From the command to its first token, and the bare loading of the same file."""
    path = str(named(model))
    command = [sys.executable, "-m", "localspec", "generate", path, "-p", PROMPT, "-n", "1"]
    bare = (
        "import sys; from llama_cpp import llama_cpp as C; C.llama_backend_init();"
        "C.llama_model_load_from_file(sys.argv[1].encode(), C.llama_model_default_params())"
    )
    ways: dict[str, list[str]] = {
        "first token": command,
        "first token, --spec none": [*command, "--spec", "none"],
        "bare loading": [sys.executable, "-c", bare, path],
        "localspec --version": [sys.executable, "-m", "localspec", "--version"],
    }
    yield from question_rows(model)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for order in there_and_back(list(ways), N_LOADS + 1):
        for name in order:
            times[name].append(_seconds(ways[name], to_first="first token" in name))
    for name, found in times.items():
        known = found[1:]  # the first fills caches
        yield {
            "part": "load", "model": model, "what": name, "median_s": statistics.median(known),
            "least_s": min(known),
        }  # fmt: skip


def question_rows(model: str) -> Iterator[Row]:
    """Two questions on one text of some 1,500 tokens, each in a process of its own."""
    path, log = str(named(model)), time_ns()  # nobody has read this text before
    text = " ".join(
        [f"Log {log}.", *(f"Ship {i} sailed to port {i * 7 % 31}." for i in range(130))]
    )
    for number, question in enumerate(("Which port came first?", "How many ships are there?")):
        command = [sys.executable, "-m", "localspec", "generate", path, "-n", "1", "--json"]
        done = subprocess.run(
            [*command, "-p", f"{text} {question}"], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        seconds, n = found["timings"]["prefill_s"], found["prompt_tokens"]
        what = f"reading question {number + 1} on a text of {n:,} tokens"
        yield {
            "part": "load",
            "model": model,
            "what": what,
            "median_s": seconds,
            "least_s": seconds,
        }


def _seconds(command: list[str], *, to_first: bool) -> float:
    """Until the command has written its first letter, or has ended."""
    started = perf_counter()
    # As users run it: what was compiled once is there the next time.
    own = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=own
    ) as child:
        assert child.stdout
        if to_first:
            child.stdout.read(1)
            seconds = perf_counter() - started
        child.stdout.read()
    if child.returncode:
        sys.exit(f"{command[1:4]} failed")
    return seconds if to_first else perf_counter() - started


LARGE = Shape(n_layers=33, n_embd=4096, n_heads=32, n_kv_heads=8, n_ff=14336)
"""4 GB with 4.5 bits a weight."""
N_WARM, N_COLD = 8, 3
"""Turns there and back. Warm runs scatter most: the host of a virtual machine gives memory late."""
_BARE = """
import ctypes, sys, time
from llama_cpp import llama_cpp as C
silent = C.llama_log_callback(lambda level, text, data: None)
C.llama_log_set(silent, ctypes.c_void_p(0))
C.llama_backend_init()
params = C.llama_model_default_params()
params.use_extra_bufts = sys.argv[2] == "True"
started = time.perf_counter()
model = C.llama_model_load_from_file(sys.argv[1].encode(), params)
loaded_s = time.perf_counter() - started
context = C.llama_context_default_params()
context.n_ctx, context.n_batch, context.n_ubatch = 2048, 512, 512
context.n_threads = context.n_threads_batch = int(sys.argv[3])
context = C.llama_init_from_model(model, context)
tokens = (C.llama_token * 2)(0, 1)
assert C.llama_decode(context, C.llama_batch_get_one(tokens, 2)) == 0
C.llama_synchronize(context)
print(loaded_s, flush=True)
"""
"""Loading, and as many tokens read as localspec reads before its first one."""


def large_load_rows(name: str) -> Iterator[Row]:
    """From the command to the first token of a file of 4 GB, beside libllama alone from Python with
    the same settings: its weights loaded, and as many tokens read. With the file in memory, and
    without."""
    with tempfile.TemporaryDirectory(prefix="localspec-") as folder:
        path = Path(folder) / "large.gguf"
        write_babbling_model(path, LARGE, "Q4_0")
        command = [sys.executable, "-m", "localspec", "generate", str(path), "--raw", "-p", "a"]
        repacks, n = _settings_of([*command, "-n", "1", "--json"])  # it is new, and tried first
        bare = [sys.executable, "-c", _BARE, str(path), str(repacks), str(n)]
        ways = {"localspec": [*command, "-n", "1"], "bare": bare}
        for is_cold in (False, True):
            times: dict[str, list[float]] = {who: [] for who in ways}
            for order in there_and_back(list(ways), N_COLD if is_cold else N_WARM):
                for who in order:
                    if is_cold:
                        _out_of_memory(path)
                    times[who].append(_seconds(ways[who], to_first=True))
            mid = {who: statistics.median(found) for who, found in times.items()}
            yield {
                "part": "large", "model": name, "is_cold": is_cold, "repack": repacks,
                "bytes": path.stat().st_size, "bare_s": mid["bare"],
                "first_token_s": mid["localspec"], "ratio": mid["localspec"] / mid["bare"],
            }  # fmt: skip


def _settings_of(command: list[str]) -> tuple[bool, int]:
    """Whether weights were repacked, and threads."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    config = json.loads(done.stdout)["config"]
    return config["repack"], config["threads"]


def _out_of_memory(path: Path) -> None:
    """Let the system forget the file's pages."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
