"""The suites and clients that others wrote, against `localspec serve` with the starter.

What is not installed is skipped: llm-comply, schemathesis, langchain-openai and llm from Python's
index; openai, @anthropic-ai/sdk, ai, @ai-sdk/openai and @ai-sdk/openai-compatible in the folder
NODE_MODULES.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import LOCALSPEC

HERE = Path(__file__).parent
FORMATS = ("openai-chat", "open-responses", "anthropic")
CHECKS = "not_a_server_error,content_type_conformance"
SERVED = "^/(chat/completions|completions|responses|models)$"
FUZZED_S = 150
MODEL = "any"
BRIEF = ("--default", "temperature=0", "--default", "repeat_penalty=1.1")
"""Else the starter may repeat itself until its context is full, and its reply counts as cut."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def strict_url() -> Iterator[str]:
    """Of a server that wants its model named, as OpenAI's does."""
    with serving("--strict-model", "--alias", MODEL) as made:
        yield made


@contextmanager
def serving(*more: str) -> Iterator[str]:
    command = [LOCALSPEC, "serve", "--port", "0", "--parallel", "4", "--ctx", "2048",
               *BRIEF, *more]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        ready = next(line for line in server.stderr if "answers at" in line)
        yield "http://127.0.0.1:" + ready.partition("127.0.0.1:")[2].partition("/")[0]
        server.terminate()
        server.stderr.read()


def program(name: str) -> str:
    """Of this environment, or of the path."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*words: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=seconds, check=False)


@pytest.mark.parametrize("name", FORMATS)
def test_llm_comply(strict_url: str, name: str) -> None:
    """All tests of a format but the image input, and what it skips itself."""
    words = [
        "-u",
        f"{strict_url}/v1",
        "-k",
        "none",
        "-m",
        MODEL,
        "--format",
        name,
        "--timeout",
        "120",
    ]
    done = run(program("llm-comply"), *words, "--json")
    results = json.loads(done.stdout)["results"]
    failed = {each["id"]: each for each in results if each["status"] == "failed"}
    print(name, {each["id"]: each["status"] for each in results})
    pictures = {id_ for id_ in failed if "image" in id_}
    assert failed.keys() == pictures, failed
    assert all("HTTP 400" in failed[id_]["errors"][0] for id_ in pictures)


def test_requests_made_from_openais_specification(url: str) -> None:
    """Whatever is sent, no answer is a server error, and each is JSON or a stream."""
    found = importlib.util.find_spec("llm_comply")
    if found is None or found.origin is None:
        pytest.skip("llm-comply, which carries the specification, is not installed")
    specification = Path(found.origin).parent / "specs" / "openai_chat.json"
    done = run(
        program("schemathesis"), "run", str(specification), "-u", f"{url}/v1",
        "--include-path-regex", SERVED, "-c", CHECKS,
        "--max-time", str(FUZZED_S), "--continue-on-failure", "--suppress-health-check", "all",
        "--request-timeout", "60", seconds=4 * FUZZED_S,
    )  # fmt: skip
    print(done.stdout[-1500:])
    assert done.returncode == 0


def test_javascript(url: str) -> None:
    """OpenAI's, Anthropic's and Vercel's clients: chat, stream, schema, errors."""
    folder = os.environ.get("NODE_MODULES")
    if folder is None or not Path(folder).is_dir():
        pytest.skip("NODE_MODULES is no folder with these clients")
    done = run(program("node"), str(HERE / "clients.mjs"), url)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_python_programs(url: str) -> None:
    """LangChain and llm: chat, stream, schema, a tool by name."""
    if not all(map(importlib.util.find_spec, ("langchain_openai", "llm"))):
        pytest.skip("langchain-openai and llm are not installed")
    done = run(sys.executable, str(HERE / "clients.py"), url)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
