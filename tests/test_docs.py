"""The README tells the truth about commands, folders and scripts."""

import re
from pathlib import Path

import pytest

from localspec.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_command_is_in_the_readme() -> None:
    assert [name for name in COMMANDS if f"localspec {name}" not in README] == []


def test_every_folder_and_module_of_the_package_is_on_the_map() -> None:
    known = {"__init__.py", "__main__.py", "__pycache__", "py.typed"}
    entries = {path.name for path in (ROOT / "localspec").iterdir()} - known
    missing = [name for name in sorted(entries) if not re.search(rf"^ +{name}/? ", README, re.M)]
    assert missing == []


@pytest.mark.parametrize(
    "name",
    [
        "setup",
        "demo",
        "test",
        "compare-answers",
        "bench-overhead",
        "bench-speculation",
        "simulate-speculation",
        "replay-speculation",
        "bench-widths",
        "fit-efficiency",
        "validate-predictions",
        "check-probe",
        "check-quality",
        "check-export",
        "check-tune",
        "check-resume",
        "bench-against-llama-bench",
        "check-compare",
        "bench-chat",
    ],
)
def test_every_script_can_be_run_and_is_named(name: str) -> None:
    script = ROOT / "scripts" / name
    assert script.stat().st_mode & 0o111
    assert name in README


def test_documents_exist_where_others_name_them() -> None:
    texts = [README, *(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))]
    named = {name for text in texts for name in re.findall(r"docs/([\w-]+\.md)", text)}
    linked = {name for text in texts[1:] for name in re.findall(r"\]\(([\w-]+\.md)\)", text)}
    assert named
    assert [name for name in named | linked if not (ROOT / "docs" / name).exists()] == []


def test_no_number_was_left_to_be_filled_in() -> None:
    texts = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert re.findall(r"\b(?:TODO|TBD|FIXME|CHECK_\w+)\b", texts) == []
