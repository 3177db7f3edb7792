"""Which functions of a checkout a reply enters, plainly and with `--spec auto`.

`generate` runs in processes of its own with the checkout's code. What counts is what is called by
the function that returns a `Reply`, and while that is iterated: classes of this name are looked
for, so that it works wherever they stand. Loading, the chat template and printing are left out. A
first run measures the machine; of the next three the union counts, because the adaptive policy
does not do the same each time.
"""

import ast
import importlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ASKED = ("-p", "Why is the sky blue?", "--temp", "0", "-n", "12")
WAYS = {"plain": "none", "auto": "auto"}
"""By the name in the table, what `--spec` is given."""


N_COUNTED = 3


def traced(checkout: Path) -> dict[str, Any]:
    """By way of decoding: files, functions and how many lines these have, by function."""
    with tempfile.TemporaryDirectory() as home:
        return {name: _counted(checkout, spec, Path(home)) for name, spec in WAYS.items()}


def _counted(checkout: Path, spec: str, home: Path) -> dict[str, Any]:
    _run(checkout, spec, home)
    lines: dict[str, int] = {}
    for _ in range(N_COUNTED):
        lines |= _run(checkout, spec, home)
    files = sorted({function.partition(":")[0] for function in lines})
    return {"files": files, "functions": sorted(lines), "lines": sum(lines.values())}


def _run(checkout: Path, spec: str, home: Path) -> dict[str, int]:
    written = home / "trace.json"
    environment = os.environ | {"PYTHONPATH": str(checkout), "LOCALSPEC_HOME": str(home)}
    command = [sys.executable, __file__, checkout, spec, written]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return json.loads(written.read_text(encoding="utf-8"))


class Trace:
    """Functions of a checkout that are entered while a reply is made and while it is iterated."""

    def __init__(self, checkout: Path, replies: tuple[type[Any], ...]) -> None:
        self._folder = f"{checkout}{os.sep}"
        self._replies = replies
        self._called: list[CodeType] = []
        self._begun: list[int] = []
        self._made: set[int] = set()
        self.entered: set[CodeType] = set()
        for kind in replies:
            self._watch(kind)

    def profile(self, frame: FrameType, event: str, value: object) -> None:
        """For `sys.setprofile`: a call that returns a reply has made it."""
        if event == "call":
            self._begun.append(len(self._called))
            self._called.append(frame.f_code)
        elif event == "return" and self._begun:
            start = self._begun.pop()
            if isinstance(value, self._replies) and id(value) not in self._made:
                self._made.add(id(value))  # whoever hands it on did not make it
                self.entered.update(self._called[start:])

    def _watch(self, kind: type[Any]) -> None:
        """Take what iterating a reply calls for its own."""
        name = "by_step" if hasattr(kind, "by_step") else "__iter__"
        original = getattr(kind, name)

        def watched(reply: Any) -> Iterator[Any]:
            start = len(self._called)
            for piece in original(reply):
                self.entered.update(self._called[start:])
                yield piece
                start = len(self._called)
            self.entered.update(self._called[start:])

        setattr(kind, name, watched)

    def document(self) -> dict[str, int]:
        """Lines of each function, by file and qualified name."""
        return {
            f"{code.co_filename.removeprefix(self._folder)}:{code.co_qualname}": _n_lines(code)
            for code in self.entered
            if self._is_ours(code)
        }

    def _is_ours(self, code: CodeType) -> bool:
        """Comprehensions and lambdas are their functions'."""
        return code.co_filename.startswith(self._folder) and not code.co_name.startswith("<")


def _n_lines(code: CodeType) -> int:
    numbers = [number for _, _, number in code.co_lines() if number]
    return max(numbers) - code.co_firstlineno + 1


def _replies(package: Path) -> Iterator[type[Any]]:
    """Every class `Reply` that can be iterated, imported."""
    for path in sorted(package.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == "Reply" and _is_iterable(node):
                parts = path.relative_to(package.parent).with_suffix("").parts
                yield importlib.import_module(".".join(parts)).Reply


def _is_iterable(node: ast.ClassDef) -> bool:
    return any(isinstance(n, ast.FunctionDef) and n.name == "__iter__" for n in node.body)


def _main(checkout: Path, spec: str, written: Path) -> None:
    """In the process that is traced."""
    scripts = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["localspec"].partition(":")
    command = getattr(importlib.import_module(module), function)
    trace = Trace(checkout, tuple(_replies(checkout / "localspec")))
    sys.argv = ["localspec", "generate", *ASKED, "--spec", spec]
    sys.setprofile(trace.profile)
    try:
        command()
    except SystemExit as ending:
        if ending.code:
            raise
    finally:
        sys.setprofile(None)
    written.write_text(json.dumps(trace.document()), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
