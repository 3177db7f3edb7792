"""What Windows lacks is asked for only where it is used: the first step to running there."""

import os
import subprocess
from pathlib import Path

import pytest
from command import LOCALSPEC, clean_environment, tiny

pytestmark = pytest.mark.engine
HIDDEN = ("fcntl", "termios", "resource")
HIDE = f"""
import importlib.abc, sys
import psutil  # knows each system by itself, and asks for these on this one
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in {HIDDEN}:
            raise ModuleNotFoundError(f"no module named {{name!r}} here", name=name)
for name in {HIDDEN}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
"""


def run(
    folder: Path, *arguments: str | Path, stdin: str = ""
) -> "subprocess.CompletedProcess[str]":
    """A command in a Python without the modules, which come with Unix alone."""
    (folder / "sitecustomize.py").write_text(HIDE)
    return subprocess.run(
        [LOCALSPEC, *arguments],
        env=clean_environment() | {"PYTHONPATH": str(folder)},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_they_are_hidden(tmp_path: Path) -> None:
    """Else the tests below would show nothing."""
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    for name in HIDDEN:
        child = subprocess.run(
            [LOCALSPEC.with_name("python"), "-c", f"import {name}"],
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"no module named {name!r} here" in child.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (("--help",), "", "Usage"),
        (("predict", "MODEL", "--device", "RTX 3090", "--depth", "0"), "", "tok/s"),
        (("list",), "", "starter"),
        (("generate", "MODEL", "-p", "the", "-n", "4", "--temp", "0"), "", ""),
        (("chat", "MODEL", "-n", "4", "--temp", "0"), "Hello\n/sessions\n", ""),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_commands_work_without(
    tmp_path: Path, arguments: tuple[str, ...], stdin: str, expected: str
) -> None:
    words = (tiny() if word == "MODEL" else word for word in arguments)
    done = run(tmp_path, *words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert done.stdout
    assert "a bug in localspec" not in done.stderr


def test_a_conversation_goes_on_without(tmp_path: Path) -> None:
    """It is locked another way."""
    assert run(tmp_path, "chat", tiny(), "-n", "4", stdin="Hello\n").returncode == 0
    done = run(tmp_path, "chat", tiny(), "-n", "4", "--continue", stdin="Again\n")
    assert done.returncode == 0, done.stderr
