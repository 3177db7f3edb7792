"""The conversation at a real terminal, as a person sees it."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import LOCALSPEC, mamba
from models import smollm2
from screens import Terminal
from talking import ANSWERS, GREEDY, WIDE_TEXT, second_talker, talker

Open = Callable[..., Terminal]
MARKS_PASTES = 2004 << 5
"""A private mode, as pyte numbers it."""
LONG = "Tell me a long story about a dragon."
BEGUN = r"\n[A-Z][a-z']+ [a-z ,']{12}"
STATUS = r"context [\d,]+ / [\d,]+"


@pytest.fixture
def open_chat() -> Iterator[Open]:
    """A chat in a terminal, by default with the talker and its prompt taking input."""
    opened: list[Terminal] = []

    def open_chat(*options: str | Path, model: Path | None = None, **settings: object) -> Terminal:
        model_arguments = () if "--continue" in options else (model or talker(),)
        opened.append(Terminal("chat", *model_arguments, *GREEDY, *options, **settings))
        if settings.get("TERM") != "dumb":
            opened[-1].ready()
        return opened[-1]

    yield open_chat
    for terminal in opened:
        terminal.child.close(force=True)


@pytest.fixture
def open_shell() -> Iterator[Callable[[], Terminal]]:
    """A shell with job control."""
    opened: list[Terminal] = []

    def open_shell() -> Terminal:
        shell = Terminal("--norc", "-i", program="bash", PS1="$ ")
        opened.append(shell)
        shell.wait(r"\$$")
        return shell

    yield open_shell
    for terminal in opened:
        terminal.child.close(force=True)


def ask(terminal: Terminal, message: str, n: int) -> str:
    """Type a message and wait for the end of the n-th answer and the prompt after it."""
    terminal.send(message + "\r")
    terminal.wait(lambda text: len(re.findall(STATUS, text.rpartition("\n")[0])) >= n)
    return terminal.ready(n + 1)


def test_an_answer_appears_as_markdown(open_chat: Open) -> None:
    terminal = open_chat()
    text = ask(terminal, "tell m", 1)
    assert "**" not in text
    assert "`" not in text
    lines = [line.strip() for line in text.splitlines()]
    assert "Title" in lines
    assert "1 first" in lines
    assert "return x + 1" in lines
    assert any(re.fullmatch(r"name +size", line) for line in lines)
    assert "The end of it." in lines
    assert text.count("The end of it.") == 1
    assert "\x1b[1m" in terminal.raw, "the title and bold words are bold"
    assert terminal.leave() == 0


def test_60_columns_hold_everything(open_chat: Open) -> None:
    """No line is as wide as the screen, and words are not cut."""
    terminal = open_chat(columns=60)
    text = ask(terminal, "tell m", 1)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert "a sentence that is long enough to" in text
    text = ask(terminal, "tell s", 2)
    words = re.findall(r"word\d+", text)
    assert words == ANSWERS["s"].split(), "nothing is lost or repeated when it scrolls"
    terminal.send("/help\r")
    text = terminal.wait("Ctrl-R")
    assert "reg" in text


def test_wide_characters_and_emoji_that_come_in_pieces(open_chat: Open) -> None:
    terminal = open_chat(columns=60)
    ask(terminal, "tell w", 1)
    assert WIDE_TEXT in terminal.raw
    assert "\ufffd" not in terminal.raw


def test_reasoning_is_folded_and_can_be_seen(open_chat: Open) -> None:
    terminal = open_chat()
    text = ask(terminal, "tell t", 1)
    assert "It is forty-two." in text
    assert re.search(r"▸ thought for [\d.]+ s, 9 words", text)
    assert "Then I am sure" not in text
    terminal.send("/think\r")
    terminal.wait("Then I am sure of it.")


def test_several_lines_can_be_typed_and_pasted(open_chat: Open) -> None:
    terminal = open_chat()
    terminal.send("one\x1b\rtwo\\\rthree a")
    terminal.wait(r"> one\n\. two\n\. three a")
    text = ask(terminal, "", 1)
    assert ANSWERS["a"] in text
    terminal.send('"""quoted\rwithout end')
    terminal.wait(r"\. without end")
    text = ask(terminal, ' b"""', 2)
    assert ANSWERS["b"] in text
    terminal.send("\x1b[200~pasted\nlines a\x1b[201~")
    terminal.wait(r"> pasted\n\. lines a")
    ask(terminal, "", 3)


def test_history_and_completion(open_chat: Open, tmp_path: Path) -> None:
    (tmp_path / "notes-file.txt").write_text("hello")
    terminal = open_chat()
    ask(terminal, "tell a", 1)
    terminal.send("\x1b[A")
    terminal.wait(r"> tell a\s*\n(.*\n)*.*> tell a")
    terminal.send("\x03/sess")
    terminal.wait("list saved conversations")
    terminal.send("\t\r")
    terminal.wait(r"1 turn +tell a")
    terminal.send(f"/file {tmp_path}/notes-\t")
    terminal.wait(r"notes-file\.txt")
    terminal.send("\x03")
    assert terminal.leave() == 0


def test_ctrl_c_stops_an_answer_keeps_it_and_the_chat_goes_on(open_chat: Open) -> None:
    terminal = open_chat(model=smollm2())
    terminal.send(LONG + "\r")
    terminal.wait(BEGUN)
    terminal.send("\x03")
    terminal.wait("interrupted")
    terminal.ready(2)
    terminal.send("/stats\r")
    terminal.wait("ended by +interrupted")
    terminal.send("/regen\r")
    terminal.wait(lambda text: len(re.findall(BEGUN, text)) == 2)
    terminal.send("\x03")
    terminal.wait(lambda text: text.count("interrupted") == 3)
    terminal.send("\x03\x03")
    assert terminal.end() == 0


def test_ctrl_c_while_the_prompt_is_read(open_chat: Open) -> None:
    """A message of 3,000 tokens takes a real model some seconds here."""
    terminal = open_chat(model=smollm2())
    terminal.send("\x1b[200~" + "the quick brown fox " * 700 + "\x1b[201~")
    terminal.send("\r")
    terminal.wait("reading the conversation")
    terminal.send("\x03")
    terminal.wait("/regen asks again")
    terminal.ready(2)
    assert terminal.leave() == 0


def test_ctrl_c_at_the_prompt_clears_the_line_and_twice_leaves(open_chat: Open) -> None:
    terminal = open_chat()
    terminal.send("not sent")
    terminal.wait("> not sent")
    terminal.send("\x03")
    ask(terminal, "tell a", 1)
    terminal.send("\x03")
    terminal.wait("Ctrl-C again leaves")
    terminal.send("\x03")
    assert terminal.end() == 0


def test_what_is_typed_during_an_answer_waits_for_the_prompt(open_chat: Open) -> None:
    terminal = open_chat("-n", "120", model=smollm2())
    terminal.send(LONG + "\r")
    terminal.wait(BEGUN)
    terminal.send("typed ahead")
    terminal.wait("stopped at the limit")
    text = terminal.wait("> typed ahead")
    assert text.count("typed ahead") == 1


def test_what_is_pasted_during_an_answer_is_one_message(open_chat: Open) -> None:
    """A terminal marks a paste where it was asked to: else each of its lines would be sent."""
    terminal = open_chat("-n", "120", model=smollm2())
    terminal.send(LONG + "\r")
    terminal.wait(BEGUN)
    assert MARKS_PASTES in terminal.screen.mode
    terminal.send("\x1b[200~first line\rsecond line\x1b[201~")
    terminal.wait("stopped at the limit")
    terminal.wait(r"> first line\n\. second line")


def test_resized_while_it_comes(open_chat: Open) -> None:
    terminal = open_chat("-n", "90", model=smollm2())
    terminal.send(LONG + "\r")
    terminal.wait(BEGUN)
    terminal.resize(60)
    length = len(terminal.text())
    terminal.wait(lambda text: len(text) > length + 60)
    terminal.resize(120)
    terminal.wait("stopped at the limit")
    terminal.send("/help\r")
    terminal.wait("Ctrl-R")
    assert terminal.leave() == 0


def test_suspended_and_resumed(open_shell: Callable[[], Terminal]) -> None:
    """By a shell, at the prompt and in an answer; the pause is not the engine's time."""
    terminal = open_shell()
    options = " ".join(map(str, (smollm2(), *GREEDY, "-n", "80", "--spec", "none")))
    terminal.send(f"{LOCALSPEC} chat {options}\r")
    terminal.wait(r"\n>$")
    terminal.ready()
    terminal.send("\x1a")
    terminal.wait(r"Stopped")
    terminal.send("fg\r")
    terminal.wait(r"Stopped(.*\n)*.*\n>$")
    began = time.monotonic()
    terminal.send(LONG + "\r")
    terminal.wait(BEGUN)
    terminal.send("\x1a")
    terminal.wait(lambda text: text.count("Stopped") == 2)
    terminal.send("echo shell is back\r")
    terminal.wait(r"\nshell is back")
    time.sleep(1.5)
    terminal.send("fg\r")
    text = terminal.wait("stopped at the limit")
    took_s = time.monotonic() - began
    speed = re.search(r"([\d.]+) tok/s", text)
    assert speed
    assert 80 / float(speed[1]) < took_s - 1.0
    terminal.send("\x04")
    terminal.wait(r"\$$")


def test_every_command_works_at_a_terminal(open_chat: Open, tmp_path: Path) -> None:
    terminal = open_chat()
    ask(terminal, "tell a", 1)
    (tmp_path / "notes.txt").write_text("some text")
    for command, answer in (
        ("/stats", r"ended by +stop"),
        ("/system Be brief.", "the system prompt is set"),
        ("/temp 0", "temperature 0"),
        ("/seed 7", "seed 7"),
        ("/spec none", "speculation none"),
        ("/kv f16 f16", "cache f16/f16"),
        ("/draft none", "speculation none, cache"),
        (f"/model {second_talker()}", "second.gguf, spec"),
        (f"/file {tmp_path}/notes.txt", "goes with the next message"),
        ("/save first-talk", "saved as first-talk"),
        (f"/export {tmp_path}/talk.md", "written: "),
        ("/load first-talk", "this is that conversation"),
        ("/undo", "forgotten: tell a"),
        ("/sessions", "no conversation|turn"),
        ("/full drop", "the oldest turns go"),
        ("/clear", "a new conversation"),
        ("/tune 1", "/tune takes 2 to 3600 seconds"),
    ):
        terminal.send(command + "\r")
        terminal.wait(answer)
    ask(terminal, "again a", 2)
    terminal.send("/regen\r")
    terminal.wait(lambda text: text.count("Aleph, in my opinion.") >= 2)
    terminal.send("/edit\r")
    terminal.wait(r"> again a\s*\n(.*\n)*.*> again a")
    terminal.send("\x03/quit\r")
    assert terminal.end() == 0


def test_a_full_context_asks_what_to_do(open_chat: Open) -> None:
    terminal = open_chat("--ctx", "64")
    for n in (1, 2):
        ask(terminal, "tell a", n)
    terminal.send("tell a tell a\r")
    terminal.wait("drop the oldest [12] turns")
    terminal.send("d\r")
    terminal.wait("no longer sees the oldest")
    terminal.wait(lambda text: text.count(ANSWERS["a"]) == 3)
    terminal.ready(4)
    terminal.send("tell a tell a tell a tell a\r")
    terminal.wait(lambda text: text.count("cancel, and keep") == 2)
    terminal.send("c\r")
    terminal.wait(r"\?.*c\n(.*\n)*.*> tell a tell a tell a tell a")


def test_a_message_sent_while_the_model_loads_is_answered(open_chat: Open) -> None:
    terminal = open_chat("-n", "4", model=smollm2())
    terminal.send("Hi\r")
    terminal.wait(STATUS)
    assert terminal.leave() == 0 or terminal.child.exitstatus == 0


def test_a_model_that_does_not_load_ends_the_chat(open_chat: Open, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(talker().read_bytes()[:-5000])
    terminal = Terminal("chat", path, *GREEDY)
    assert terminal.end() == 1


def test_no_color_and_plain_and_dumb(open_chat: Open) -> None:
    terminal = open_chat(NO_COLOR="1")
    ask(terminal, "tell m", 1)
    assert not re.search(r"\x1b\[[\d;]*3\d", terminal.raw)
    plain = open_chat("--plain")
    text = ask(plain, "tell m", 1)
    assert "**bold**" in text
    dumb = open_chat(TERM="dumb")
    dumb.wait(r"\n>$")
    dumb.send("tell m\r")
    text = dumb.wait("context ")
    assert "**bold**" in text
    assert "\x1b[" not in dumb.raw


def test_drafted_tokens_have_colours(open_chat: Open) -> None:
    terminal = open_chat("--show-draft", "--draft-max", "3")
    text = ask(terminal, "tell a and say Alpha is the first letter. a", 1)
    assert "drafted by lookup or draft" in text
    assert ANSWERS["a"] in text.replace("\n", "")


def test_a_note_is_not_written_into_the_prompt(open_chat: Open) -> None:
    terminal = open_chat(model=mamba())
    terminal.wait(r"speculation is off: .*\(its memory is recurrent\)")
    assert terminal.leave() == 0


def test_keys_typed_ahead_are_in_the_line_alone(open_chat: Open) -> None:
    """Whenever they come: while it answers, and between the answer and the prompt."""
    terminal = open_chat()
    terminal.send("tell s\r")
    typed = ""
    while len(re.findall(STATUS, terminal.text().rpartition("\n")[0])) < 1 or len(typed) < 20:
        typed += "xyz"[len(typed) % 3]
        terminal.send(typed[-1])
        terminal.wait(lambda text: True)
        time.sleep(0.01)
    text = terminal.wait(lambda text: f"> {typed}" in text.replace("\n", ""))
    above = text.rpartition("> ")[0]
    assert not re.search("xyz|yzx|zxy", above)


def test_the_line_at_the_bottom_counts_as_the_line_below_the_answer(open_chat: Open) -> None:
    terminal = open_chat(PROMPT_TOOLKIT_NO_CPR="")
    for n, message in enumerate(("tell a", "tell b"), 1):
        ask(terminal, message, n)
        text = terminal.wait(rf"{STATUS}(.|\n)*{STATUS} · /help$")
        below, bottom = re.findall(STATUS, text)[-2:]
        assert below == bottom
