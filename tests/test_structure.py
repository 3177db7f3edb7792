"""The rules of the house that a linter does not know: names say one thing, and rooms stay small."""

import ast
import re
from collections import Counter
from pathlib import Path

import localspec

PACKAGE = Path(localspec.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 300
POLICY = {"policy.py": 250, "costs.py": 200, "chances.py": 150}
"""The rule of drafts is to be read at one sitting."""


def test_no_class_name_stands_in_two_modules() -> None:
    names = Counter(
        node.name
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, n in names.items() if n > 1] == []


def test_no_file_name_stands_in_three_folders() -> None:
    names = Counter(path.name for path in MODULES if path.name != "__init__.py")
    assert [name for name, n in names.items() if n > 2] == []


def test_no_module_is_longer_than_a_reader_bears() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in MODULES}
    limits = {PACKAGE / "decode" / name: limit for name, limit in POLICY.items()}
    long = [path.name for path, n in lines.items() if n > limits.get(path, LONGEST)]
    assert long == []


def test_modules_that_comments_name_are_there() -> None:
    """A reader who follows `package.module` must arrive."""
    packages = "|".join(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    named = re.compile(rf"`((?:{packages})(?:\.(?!py`)[a-z_]+)+)`")
    for path in MODULES:
        for name in named.findall(path.read_text()):
            place = PACKAGE.joinpath(*name.split("."))
            holders = place, place.with_suffix(".py"), place.parent.with_suffix(".py")
            assert any(each.exists() for each in holders), f"{path.name} names {name}"
