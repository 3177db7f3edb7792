"""No text of a model, a template, a header or a file gives the terminal an order."""

import io
import json
import os
import random
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from localspec.chat import views
from localspec.chat.frontend import PlainView
from localspec.chat.views import THEME, DraftsView, PlainThoughtView, ScreenView
from localspec.cli.main import _fail
from localspec.cli.output import notify
from localspec.decode.step import Step
from localspec.dialogue.answer_parser import AnswerParser
from localspec.dialogue.markup import EVERY, UNOPENED, AnswerPart
from localspec.display import console, echo, json_line, printable

TITLE = "\x1b]0;mine\x07"
CLIPBOARD = "\x1b]52;c;aGk=\x1b\\"
EIGHT_BIT = "\x9b2J\x9d0;t\x9c"
ORDERS = [TITLE, CLIPBOARD, EIGHT_BIT, "\x1b[2J", "\x1b[31m", "a\rb", "\x08\x7f", "\u202egnp.exe"]
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
OWN = re.compile("\x1b\\[(?:[0-9;]*m|[0-9]*A|K|J|\\?2026[hl])|\r")
"""What localspec itself writes: styles, the way up, erasing, updates at once, new lines."""


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("text", ORDERS)
def test_an_order_is_shown_and_not_obeyed(text: str) -> None:
    assert not HARMFUL.search(printable(text))
    assert not HARMFUL.search(json_line({"text": text}))
    assert json.loads(json_line({"text": text})) == {"text": text}


def test_ordinary_text_is_as_it_was() -> None:
    text = 'a\tb\nünï 漢字 👩‍💻 "quoted" \u200f漢 é ∑ \ue000 \U000f0000'
    assert printable(text) == text
    assert printable("one\r\ntwo\x1b[2J") == "one\ntwo␛[2J"


@given(st.text(), st.integers(0, 20))
def test_it_makes_no_difference_how_a_text_is_cut(text: str, place: int) -> None:
    assert printable(text[:place]) + printable(text[place:]) == printable(text)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_pipe_gets_the_text_itself(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Screen() if is_terminal else io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    echo("a\x1b[2J", end="")
    PlainView(out).write([AnswerPart("\x1bc")], None)  # type: ignore[arg-type]
    assert out.getvalue() == ("a␛[2J␛c" if is_terminal else "a\x1b[2J\x1bc")


def test_a_message_cannot_pose_as_two(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason that a template gives for failing is the file's own text."""
    notify("failed (\x1b[2J\nlocalspec: all is well)")
    assert _fail("failed (\x9b\nlocalspec: all is well)", 1) == 1
    assert capsys.readouterr().err == (
        "localspec: failed (␛[2J\n  localspec: all is well)\n"
        "localspec: failed (\N{REPLACEMENT CHARACTER}\n  localspec: all is well)\n"
    )


@pytest.mark.parametrize("order", ORDERS)
def test_tables_and_markdown_show_names_as_text(order: str) -> None:
    out = Screen()
    screen = console(file=out, force_terminal=True, width=60, color_system=None)
    table = Table(title=f"of {order}")
    table.add_column(order)
    table.add_row(f"[red]{order}[/nothing]")
    for drawn in (table, Markdown(f"# {order}\n&#x202e;`{order}`"), Text(order), order):
        screen.print(drawn)
    assert not HARMFUL.search(OWN.sub("", out.getvalue()))
    assert "[red]" in out.getvalue()


class Bytes:
    """A vocabulary whose tokens are the pieces of a reply."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def piece(self, token: int) -> bytes:
        return self.pieces[token]


def replies(n: int) -> Any:
    """Random bytes and whole escape sequences, cut into tokens anywhere."""
    chance = random.Random(0)
    known = [text.encode() for text in ORDERS] + [
        b"\x1b",
        b"\x9b",
        b"\xc2",
        b"\x9d",
        b"```\n",
        b"<think>",
        b"</think>",
    ]
    for _ in range(n):
        parts = [*chance.choices(known, k=2), chance.randbytes(chance.randrange(12))]
        chance.shuffle(parts)
        data = b"".join(parts)
        size = chance.randrange(1, 5)
        yield [data[i : i + size] for i in range(0, len(data), size)]


def drawn(pieces: list[bytes], kind: str) -> str:
    """What the bytes of a reply bring to a screen."""
    out = Screen()
    screen = console(file=out, force_terminal=True, width=80, theme=THEME)
    size = os.terminal_size((80, 24))

    def parser_of() -> AnswerParser:
        return AnswerParser(EVERY, Bytes(pieces))  # type: ignore[arg-type]

    views: dict[str, Any] = {
        "markdown": lambda: ScreenView(out, lambda: size, screen),
        "plain": lambda: PlainView(out),
        "generate": lambda: PlainThoughtView(out, lambda: size, screen, ""),
        "drafts": lambda: DraftsView(out, screen, lambda opening: parser_of()),
    }
    view, parser = views[kind](), parser_of()
    view.begin(UNOPENED, 1)
    for i in range(len(pieces)):
        view.write(parser.push(i), Step((i,), 0, 0, "none", 1, 0.0, 0.0))
    view.write(parser.finish(), None)
    view.end()
    return out.getvalue()


@pytest.mark.parametrize("n", [60, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["plain", "generate", "drafts", "markdown"])
def test_whatever_a_model_says_the_terminal_only_shows_it(
    kind: str, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(1)
    often = SimpleNamespace(is_due=lambda: chance.random() < 0.1, drew=lambda started: None)
    monkeypatch.setattr(views, "FrameLimiter", lambda: often)
    for pieces in replies(n):
        assert not HARMFUL.search(OWN.sub("", drawn(pieces, kind))), pieces


@pytest.mark.parametrize("kind", ["plain", "generate", "markdown"])
def test_an_answer_ends_its_line_and_adds_nothing_else(kind: str) -> None:
    shown = OWN.sub("", drawn([b"Hello."], kind))
    assert shown.strip() == "Hello."
    assert shown.endswith("\n")
