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

from models import named
from research.engine.report_parts import Row

from localspec.engine.timing import there_and_back
from localspec.model.synthetic import Shape, write_random_model

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
N_LARGE = 3
_BARE = """
import ctypes, sys, time
from llama_cpp import llama_cpp as C
silent = C.llama_log_callback(lambda level, text, data: None)
C.llama_log_set(silent, ctypes.c_void_p(0))
C.llama_backend_init()
params = C.llama_model_default_params()
params.use_extra_bufts = sys.argv[2] == "True"
started = time.perf_counter()
assert C.llama_model_load_from_file(sys.argv[1].encode(), params)
print(time.perf_counter() - started)
"""


def large_load_rows(name: str) -> Iterator[Row]:
    """Loading a file of 4 GB to a session that can answer, beside libllama's loading of its weights
    with the same settings; with the file in memory, and without."""
    with tempfile.TemporaryDirectory(prefix="localspec-") as folder:
        path = Path(folder) / "large.gguf"
        write_random_model(path, LARGE, "Q4_0", with_text=True)
        repacks = _large_load(path)[1]  # it is new, so that it is tried and measured first
        for is_cold in (False, True):
            times: dict[str, list[float]] = {"localspec": [], "bare": []}
            for order in there_and_back(list(times), N_LARGE):
                for who in order:
                    if is_cold:
                        _out_of_memory(path)
                    ours = who == "localspec"
                    seconds = _large_load(path)[0] if ours else _bare_load(path, repacks)
                    times[who].append(seconds)
            mid = {who: statistics.median(found) for who, found in times.items()}
            yield {
                "part": "large", "model": name, "is_cold": is_cold, "repack": repacks,
                "bytes": path.stat().st_size, "bare_s": mid["bare"], "load_s": mid["localspec"],
                "ratio": mid["localspec"] / mid["bare"],
            }  # fmt: skip


def _large_load(path: Path) -> tuple[float, bool]:
    """Seconds of loading, and whether weights were repacked."""
    command = [sys.executable, "-m", "localspec", "generate", str(path), "--raw", "-p", "a"]
    done = subprocess.run(
        [*command, "-n", "1", "--json"], capture_output=True, text=True, check=True
    )
    document = json.loads(done.stdout)
    return document["timings"]["load_s"], document["config"]["repack"]


def _bare_load(path: Path, repacks: bool) -> float:
    command = [sys.executable, "-c", _BARE, str(path), str(repacks)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _out_of_memory(path: Path) -> None:
    """Let the system forget the file's pages."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
