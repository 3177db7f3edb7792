"""The studies' launcher: names are kept, and what goes wrong is a sentence."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from research.engine.report_page import page_of
from research.engine.report_parts import TYPES
from research.studies import STUDIES

RESEARCH = Path(__file__).parent.parent / "scripts" / "research"


def start(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-B", *command],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_without_a_name_all_are_listed_and_nothing_is_set_up() -> None:
    done = start(RESEARCH / "run")
    assert done.returncode == 0, done.stderr
    named = [line.split(maxsplit=1) for line in done.stdout.splitlines()[2:]]
    assert [name for name, _ in named] == list(STUDIES)
    assert all(len(told) > 30 for _, told in named)


def test_an_unknown_name_gets_one_sentence() -> None:
    done = start(RESEARCH / "run", "bench-everything")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "bench-everything" in line


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_has_options(name: str) -> None:
    app = typer.Typer()
    app.command()(import_module(f"research.{STUDIES[name]}").main)
    assert typer.main.get_command(app).params


@pytest.mark.slow
def test_a_wrong_option_is_a_sentence() -> None:
    done = start(RESEARCH, "bench-speculation", "--prompts", "/nowhere", "--settings", "lookup-99")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bench-speculation: setting 'lookup-99' is not known")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_without_llama_bench_its_study_says_so_and_passes() -> None:
    study = "bench-against-llama-bench"
    done = start(RESEARCH, study, PATH="/nowhere", LLAMA_BENCH="")
    assert (done.returncode, done.stdout) == (0, "")
    assert "skipped: llama-bench is not here" in done.stderr


KEPT = {
    "load:smollm2": {
        "date": "2026-01-02", "seconds": 12.3, "others": 0.04,
        "rows": [{"part": "load", "model": "smollm2", "what": "first token", "median_s": 0.5,
                  "least_s": 0.4}],
    },
    "speculation:a,b": {
        "date": "2026-01-03", "seconds": 60.0, "others": 0.0,
        "rows": [
            {"part": "speculation", "model": "a,b", "category": kind, "auto": auto, "plain": 10.0,
             **{f"llama-server {each}": 8.0 for each in TYPES}, "llama-server draft": 20.0}
            for kind, auto in (("math", 40.0), ("math", 10.0), ("qa", 5.0))
        ],
    },
}  # fmt: skip


def test_the_report_replaces_the_tables_of_a_page_and_none_of_its_words() -> None:
    new = page_of(KEPT, ["a,b"], "C", "")
    assert "| 2026-01-02, 2026-01-03 | C |" in new
    assert "| smollm2 | | first token | 0.50 s (least 0.40) |" in new
    assert "math, 2 questions | 2.00 x plain, 1.00 x llama-server draft" in new
    assert "all categories | 1.00 x plain, 0.50 x the best" in new
    assert "| `load:smollm2` | | measured 2026-01-02 in 12 s | others had 4 % of" in new
    written = new.replace("| | Tokens", "Words before a table.\n\n| | Tokens") + "\nA last word.\n"
    stale = written.replace("0.50 s", "9.99 s")
    assert page_of(KEPT, ["a,b"], "C", stale) == written
