"""llama.cpp's own tests of its server, run against `localspec serve` through a shim of flags.

    scripts/research/run judge-server --source .../vendor/llama.cpp [--model smollm2] [--only NAME]

`--source` is a source tree of llama.cpp, as llama-cpp-python's source archive has it. Its tests are
copied into a temporary folder. Their download of models is left out: every test runs on the random
model of `stand_in.py`, or on `--model`, and those that look for the words of the stories fail. A
program that stands for llama-server maps its flags. Printed is a line for each file: passed,
failed, and the name of what this server does not do where a file is about that.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import typer
from models import named

from .stand_in import stand_in

OUT_OF_SCOPE = {
    "test_embedding": "embeddings", "test_rerank": "reranking", "test_lora": "LoRA",
    "test_mcp_servers": "MCP", "test_router": "router", "test_vision_api": "images",
    "test_tools_builtin": "built-in tools", "test_proxy": "proxy",
    "test_compat_gcp": "Vertex AI",
}  # fmt: skip
RAN = (0, 1)
"""What pytest ends with where all passed, and where some failed."""
CONFTEST = """
import os

import pytest
import utils
from utils import *

utils.download_file = lambda url, output_file_path=None: os.environ["STAND_IN"]


@pytest.fixture(autouse=True)
def stop_server_after_each_test():
    yield
    for server in set(server_instances):
        server.stop()
"""
SHIM = """#!{python}
import os, sys

sys.path.insert(0, {folder!r})
from serve.llama_flags import command

words = command(sys.argv[1:], {model!r}, {localspec!r})
os.execv(words[0], words)
"""


def main(
    source: Annotated[Path, typer.Option(help="A source tree of llama.cpp.")],
    model: Annotated[str, typer.Option(help="The model of all tests. Default: random.")] = "",
    only: Annotated[str, typer.Option(help="The file test_NAME.py alone.")] = "",
    keyword: Annotated[str, typer.Option("-k", help="Of tests, as pytest has it.")] = "",
    seconds: Annotated[int, typer.Option(help="For each file.")] = 300,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Run the files one by one, each with a limit of time."""
    tests = source / "tools" / "server" / "tests"
    if not tests.is_dir():
        raise SystemExit(f"{tests} is no folder: give the source tree of llama.cpp")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "tools" / "server" / "tests"
        shutil.copytree(tests, copy)
        (copy / "conftest.py").write_text(CONFTEST)
        templates = Path(folder) / "models" / "templates"
        shutil.copytree(source / "models" / "templates", templates)
        given = named(model) if model else stand_in(source, Path(folder) / "stand-in.gguf")
        place = _Place(_shim(Path(folder), given), given, seconds, keyword)
        paths = sorted(copy.glob(f"unit/test_{only or '*'}.py"))
        rows = [_row(path, place) for path in paths]
    _print(rows, as_json=as_json)


def _shim(folder: Path, model: Path) -> Path:
    path = folder / "llama-server"
    localspec = str(Path(sys.executable).parent / "localspec")
    here = str(Path(__file__).parent.parent)
    path.write_text(
        SHIM.format(python=sys.executable, folder=here, model=str(model), localspec=localspec)
    )
    path.chmod(0o755)
    return path


def _row(path: Path, place: "_Place") -> dict[str, object]:
    """The verdicts of one file by test. What was not reached in time counts as failed."""
    reason = OUT_OF_SCOPE.get(path.stem)
    n_all = path.read_text().count("\ndef test_") + path.read_text().count("\nasync def test_")
    row: dict[str, object] = {"file": path.stem, "functions": n_all, "out_of_scope": reason}
    if reason:
        return row
    report = path.with_suffix(".xml")
    row["note"] = place.run(path, report)
    return {**row, "verdicts": _verdicts(report) if report.exists() else {}}


@dataclass(frozen=True, slots=True)
class _Place:
    """What stands for llama-server, its model, and the seconds that a file may take."""

    shim: Path
    model: Path
    seconds: int
    keyword: str

    def run(self, path: Path, report: Path) -> str:
        """Run the tests of a file, and what is to be said of that. Their servers end with them."""
        words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=",
                 "-m", "not slow",
                 f"--junitxml={report}", "-k", self.keyword, str(path)]  # fmt: skip
        environment = {
            **os.environ,
            "LLAMA_SERVER_BIN_PATH": str(self.shim),
            "STAND_IN": str(self.model),
            "PORT": os.environ.get("PORT", "18480"),
        }
        talk = path.with_suffix(".log")
        with talk.open("wb") as out:
            tests = subprocess.Popen(
                words, cwd=path.parent.parent, env=environment, start_new_session=True,
                stdout=out, stderr=out,
            )  # fmt: skip
        try:
            tests.wait(self.seconds)
        except subprocess.TimeoutExpired:
            tests.send_signal(signal.SIGINT)  # its report has what it has run
            with suppress(subprocess.TimeoutExpired):
                tests.wait(20)
            return "ran out of time"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(tests.pid, signal.SIGKILL)
        if tests.returncode in RAN:
            return ""
        return f"pytest could not run them: {talk.read_text(errors='replace').strip()[-600:]}"


def _verdicts(report: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        verdict = "failed" if kinds & {"failure", "error"} else "passed"
        message = next((child.get("message", "") for child in case), "")
        verdict = "skipped" if "skipped" in kinds else verdict
        found[case.get("name", "")] = f"{verdict}: {message[:400]}" if message else verdict
    return found


def _print(rows: list[dict[str, object]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    totals = Counter[str]()
    for row in rows:
        functions = _functions(row.get("verdicts", {}))  # type: ignore[arg-type]
        counts = Counter(functions.values())
        totals += counts
        totals["functions"] += int(str(row["functions"]))
        reason = row["out_of_scope"] or row.get("note", "")
        print(f"{row['file']:30} {row['functions']!s:>4} {dict(counts)} {reason}")
    print(dict(totals))


def _functions(verdicts: dict[str, str]) -> dict[str, str]:
    """By function: passed where each of its cases did."""
    found: dict[str, str] = {}
    for name, verdict in verdicts.items():
        function, kind = name.partition("[")[0], verdict.partition(":")[0]
        before = found.get(function, kind)
        found[function] = "failed" if "failed" in (before, kind) else kind
    return found


if __name__ == "__main__":
    typer.run(main)
