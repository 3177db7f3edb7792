"""The pages tell the truth about links, commands, options, fields, studies and the map."""

import json
import re
import runpy
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from command import tiny
from typer.main import get_command

import localspec
from localspec.cli.main import app, run

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
MEASUREMENTS = ROOT / "docs" / "measurements"
README_LINES = 90
SHARED_OPTIONS = {"--help", "-h"}
REPLACED = {
    "look-up": "lookup", "ledger": "budget", "stood": "accepted", "parked": "not used now",
    "the day before": "the latest figure alone", "TODO": "the text", "TBD": "the number",
}  # fmt: skip
"""Words that the pages no longer use, by what they say instead."""
DRAFTERS = {"suffix", "lookup", "model"}
"""Keys that are data in `by_source`."""
CLI = get_command(app())
COMMANDS: dict[str, Any] = CLI.commands  # type: ignore[attr-defined]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages."""
    pattern = rf"^```({'|'.join(languages)})\n(.*?)^```$"
    return [found[1] for found in re.findall(pattern, text_of(page), re.M | re.S)]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def sections(page: Path) -> dict[str, str]:
    """What stands under each heading of the second level, by the heading."""
    _, *parts = re.split(r"^## ", text_of(page), flags=re.M)
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in parts}


def options_of(command: Any) -> set[str]:
    """All spellings that a user may type."""
    shown = (p for p in command.params if p.param_type_name == "option" and not p.hidden)
    return {name for p in shown for name in (*p.opts, *p.secondary_opts)}


def named_options(text: str) -> set[str]:
    """Options in the first column of a section's tables."""
    cells = re.findall(r"^\| (`-.*?) \|(?! *-)", text.replace(r"\|", "/"), re.M)
    return {name for cell in cells for name in re.findall(r"`(--?[\w-]+)", cell)}


def documented_options(command: str) -> set[str]:
    """Of a command's section, and of the shared tables to which it leads."""
    found = sections(ROOT / "docs" / "reference" / "cli.md")
    intro = found[command].partition("\n| ")[0]
    shared = re.findall(r"\(#(\w+)-options\)", intro)
    texts = [found[command], *(found[f"{name.capitalize()} options"] for name in shared)]
    return set().union(*map(named_options, texts))


def typed_commands(page: Path) -> Iterator[list[str]]:
    """The words of every `localspec ...` line that a reader may copy."""
    for block in blocks(page, "sh", "console"):
        for line in block.splitlines():
            shown = re.match(r"(?:\$ )?(?:.*\| )?localspec (.*)", line)
            if shown:
                yield shlex.split(shown[1], comments=True)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page))
    for target in targets:
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    found, left = set[Path](), [ROOT / "README.md"]
    while left:
        page = left.pop()
        found.add(page)
        links = re.findall(r"\]\((?!https?:)([^)\s#]+\.md)", prose(page))
        left += [to for link in links if (to := (page.parent / link).resolve()) not in found]
    assert [name_of(page) for page in PAGES if page not in found] == []


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(text_of(ROOT / "README.md").splitlines()) <= README_LINES


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_names_its_language(page: Path) -> None:
    fences = re.findall(r"^```(.*)$", text_of(page), re.M)
    assert all(fences[::2])
    assert not any(fences[1::2])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_use_the_fields_words(page: Path) -> None:
    found = {old: new for old, new in REPLACED.items() if re.search(rf"\b{old}\b", prose(page))}
    assert found == {}


def test_the_readme_leads_to_every_command() -> None:
    missing = [name for name in COMMANDS if f"cli.md#{name})" not in text_of(ROOT / "README.md")]
    assert missing == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_has_the_options_of_every_command_and_no_others(name: str) -> None:
    assert documented_options(name) == options_of(COMMANDS[name]) - SHARED_OPTIONS


def test_the_reference_has_the_options_before_a_command() -> None:
    page = text_of(ROOT / "docs" / "reference" / "cli.md")
    assert [name for name in options_of(CLI) if not re.search(rf"{name}\b", page)] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_that_can_be_copied_exist_with_their_options(page: Path) -> None:
    for words in typed_commands(page):
        known = options_of(COMMANDS[words[0]]) | SHARED_OPTIONS
        given = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
        assert given <= known, words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_studies_goals_and_scripts_that_pages_name_exist(page: Path) -> None:
    studies = runpy.run_path(str(ROOT / "scripts" / "research" / "studies.py"))["STUDIES"]
    named = set(re.findall(r"scripts/research/run ([a-z][\w-]+)", text_of(page)))
    assert named <= set(studies)
    for goal in re.findall(r"scripts/test --acceptance (\w+)", text_of(page)):
        assert goal == "NAME" or (ROOT / "tests" / "acceptance" / f"test_{goal}.py").exists(), goal
    for script in re.findall(r"\bscripts/[\w/.-]*\w", text_of(page)):
        assert (ROOT / script).exists(), script


def test_contributors_find_every_study_and_goal() -> None:
    page = text_of(ROOT / "CONTRIBUTING.md")
    studies = runpy.run_path(str(ROOT / "scripts" / "research" / "studies.py"))["STUDIES"]
    goals = [path.stem.removeprefix("test_") for path in ROOT.glob("tests/acceptance/test_*.py")]
    assert [name for name in (*studies, *goals) if f"`{name}`" not in page] == []


def test_every_package_and_module_is_on_the_map() -> None:
    known = {"__init__.py", "__main__.py", "__pycache__", "py.typed"}
    entries = {path.name for path in (ROOT / "localspec").iterdir()} - known
    lines = re.findall(r"^ {6}(\w[\w./ ]*?) {3,}\S", text_of(ROOT / "CONTRIBUTING.md"), re.M)
    on_map = {name.rstrip("/") for line in lines for name in line.split()}
    assert entries - on_map == set()
    assert on_map - entries - known == set()


def test_every_measurement_has_one_date_machine_and_command_and_is_listed() -> None:
    index = text_of(MEASUREMENTS / "README.md")
    for page in sorted(MEASUREMENTS.glob("*.md")):
        if page.name == "README.md":
            continue
        tables = re.findall(r"^\|.*\n\|[-|]+\|$", text_of(page), re.M)
        assert len(tables) == 2, page.name
        assert tables[0].startswith("| Date | Machine | Command |"), page.name
        assert re.search(r"^\| 20\d\d-\d\d-\d\d.* \| .+ \| .+ \|$", text_of(page), re.M), page.name
        assert f"({page.name})" in index


def keys_of(document: Any) -> set[str]:
    """Names of fields at any depth; keys that are data (types, acceptances, lengths) are none."""
    if isinstance(document, list):
        return set().union(*map(keys_of, document))
    if not isinstance(document, dict):
        return set()
    names = {key for key in document if re.fullmatch(r"[a-z][a-z0-9_]*", key)}
    return names.union(*map(keys_of, document.values()))


def undocumented(section: str, printed: str) -> list[str]:
    text = sections(ROOT / "docs" / "reference" / "json.md")[section]
    interval = {"low", "mid", "high"}
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text)))) | interval
    return sorted(keys_of(json.loads(printed)) - words)


@pytest.mark.parametrize(
    ("section", "arguments"),
    [
        ("predict", ["predict", "MODEL", "--draft", "MODEL", "--device", "RTX 4090", "--quants"]),
        ("recommend", ["recommend", "--device", "RTX 4090"]),
        ("list", ["list"]),
        ("list", ["list", "--known"]),
        ("tune", ["tune", "MODEL", "--show"]),
    ],
    ids=["predict", "recommend", "list", "list --known", "tune"],
)
def test_the_reference_has_every_field_that_is_printed(
    section: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tiny())
    assert run([model if word == "MODEL" else word for word in arguments] + ["--json"]) == 0
    assert undocumented(section, capsys.readouterr().out) == []


@pytest.mark.engine
@pytest.mark.parametrize(
    ("section", "arguments"),
    [
        ("generate", ["generate", "MODEL", "-p", "a b a b", "-n", "8", "--spec", "lookup"]),
        ("bench and report", ["bench", "MODEL", "-p", "8", "-n", "4", "-r", "1", "--rounds", "1"]),
        ("export", ["export", "MODEL", "--to", "llama-server"]),
        ("doctor", ["doctor"]),
    ],
    ids=["generate", "bench", "export", "doctor"],
)
def test_the_reference_has_every_field_that_an_engine_brings(
    section: str, arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    model = str(tiny())
    words = [model if word == "MODEL" else word for word in arguments] + ["--json"]
    assert run([*words, "--probe", "off"] if words[0] == "bench" else words) == 0
    assert set(undocumented(section, capfd.readouterr().out)) <= DRAFTERS


PYTHON = [
    pytest.param(block, id=f"{name_of(page)} {number}")
    for page in (ROOT / "README.md", ROOT / "docs" / "reference" / "python.md")
    for number, block in enumerate(blocks(page, "python"), 1)
]


@pytest.mark.engine
@pytest.mark.parametrize("block", PYTHON)
def test_python_that_can_be_copied_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(block, "a page", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


def rounded(decode: Any) -> str:
    """An interval, as the README's table of models has it."""
    return f"{decode.mid:.0f} ({decode.low:.0f} to {decode.high:.0f})"


def test_the_readme_predicts_what_the_command_predicts() -> None:
    row = r"^\| [^|]*GB, (.*?) \|.*\| `localspec pull (\S+)` \| (.*?) \|$"
    models = re.findall(row, text_of(ROOT / "README.md"), re.M)
    assert models
    for device, model, shown in models:
        forecast = localspec.predict(model, device, depth=0)
        assert shown == rounded(forecast.rows[0].decode), (model, device)


SHOWN = [
    pytest.param(command, shown, id=f"{name_of(page)} {command}")
    for page in PAGES
    for block in blocks(page, "console")
    for command, shown in re.findall(
        r"^\$ localspec (predict .*|recommend .*)\n((?:(?!\$ ).*\n)*)", block, re.M
    )
]


@pytest.mark.parametrize(("command", "shown"), SHOWN)
def test_a_shown_prediction_is_what_the_command_prints(
    command: str, shown: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(shlex.split(command)) == 0
    printed = re.sub(r"\s+", " ", capfd.readouterr().out)
    for part in shown.split("\n...\n"):
        assert re.sub(r"\s+", " ", part).strip() in printed
