"""The conversation, through a pipe and through a terminal."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from _models import smollm2
from command import ANSWER, LOCALSPEC, Run, clean_environment, localspec, mamba, tiny

PROMPT, SENT = "\x1b\\[\\?2004h", "\x1b\\[\\?2004l"
"""What a line editor sends when it begins and when it ends to edit: bracketed paste on and off."""


def chat(*lines: str, options: tuple[str, ...] = ANSWER) -> Run:
    """Pipe lines into a chat with the tiny model, whose answers are 12 tokens long."""
    data = "\n".join(lines).encode(errors="surrogateescape")
    run = localspec("chat", tiny(), *options, "-n", "12", stdin=data)
    assert run.code == 0, run.stderr
    return run


def notes(run: Run) -> list[str]:
    """What was said on stderr after the greeting."""
    greeting, *rest = run.stderr.splitlines()
    assert greeting.startswith("localspec: tiny.gguf, context ")
    return rest


def seeds(run: Run) -> list[str]:
    return [note.split("seed ")[1].split()[0] for note in notes(run)]


def test_each_line_gets_an_answer_that_knows_the_ones_before() -> None:
    run = chat("aaa", "", "bbb")
    assert len(notes(run)) == 2
    assert all(note.startswith("12 tokens") for note in notes(run))
    first = chat("aaa").stdout
    assert run.stdout.startswith(first)
    assert run.stdout.removeprefix(first) != chat("bbb").stdout


def test_clear_forgets() -> None:
    run = chat("aaa", "/clear", "bbb")
    assert notes(run)[1] == "a new conversation"
    assert run.stdout == chat("aaa").stdout + chat("bbb").stdout


def test_regen_answers_again_and_otherwise() -> None:
    """With the same seed it would give the same answer, as often as it is asked."""
    options = ("--threads", "1", "--temp", "1", "--seed", "3")
    run = chat("aaa", "/regen", "/regen", options=options)
    assert seeds(run) == ["3", "4", "5"]
    first = chat("aaa", options=options).stdout
    second = chat("aaa", options=(*options[:-1], "4")).stdout
    assert run.stdout.startswith(first + second)
    assert first != second


def test_regen_has_nothing_to_answer_at_first() -> None:
    run = chat("/regen", "/quit", "never asked")
    assert notes(run) == ["there is nothing to answer again"]
    assert run.stdout == ""


def test_an_unknown_command_is_not_sent_to_the_model() -> None:
    run = chat("/nonsense", "/help")
    unknown, *commands = notes(run)
    assert unknown == "there is no command /nonsense"
    assert commands[: len(commands) // 2] == commands[len(commands) // 2 :]
    assert run.stdout == ""


def test_a_line_that_is_no_text_does_not_end_the_chat() -> None:
    run = chat("aaa", "\udcff", "bbb")
    assert "not UTF-8" in notes(run)[1]
    assert run.stdout == chat("aaa", "bbb").stdout


def test_a_conversation_that_outgrows_the_context_can_start_anew() -> None:
    run = chat("a" * 20, "b" * 20, "/clear", "c", options=(*ANSWER, "--ctx", "48"))
    assert notes(run)[1].endswith("use a larger --ctx; /clear starts a new conversation")
    assert notes(run)[3].startswith("12 tokens")


Terminal = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A chat in a terminal of 100 columns."""
    children = []

    def chat(model: Path, **variables: str) -> "pexpect.spawn[str]":
        environment = clean_environment() | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        child = pexpect.spawn(
            str(LOCALSPEC),
            ["chat", str(model), *ANSWER, "-n", "200"],
            env=environment | variables,
            encoding="utf-8",
            timeout=60,
            dimensions=(24, 100),
        )
        children.append(child)
        return child

    yield chat
    for child in children:
        child.close(force=True)


def leave(child: "pexpect.spawn[str]") -> None:
    """Press Ctrl-D, which ends it in peace."""
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def ask(child: "pexpect.spawn[str]", line: str) -> None:
    child.expect(PROMPT)
    child.send(line + "\r")
    child.expect(SENT)


def stop_answer(child: "pexpect.spawn[str]") -> None:
    """Press Ctrl-C when the answer has begun."""
    child.expect("[a-z]{3} [a-z]{2}")
    child.sendintr()
    sent = time.monotonic()
    child.expect("ended by interrupted")
    assert time.monotonic() - sent < 2


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on(terminal: Terminal) -> None:
    child = terminal(smollm2())
    ask(child, "Tell me a long story about a dragon.")
    stop_answer(child)
    ask(child, "/regen")
    stop_answer(child)
    ask(child, "/clear")
    child.expect("a new conversation")
    ask(child, "Say hi")
    child.expect("ended by stop")
    child.expect(PROMPT)
    child.send("not sent\x03")
    ask(child, "/nonsense")
    child.expect("there is no command /nonsense")
    child.expect(PROMPT)
    leave(child)


def test_a_note_is_not_written_into_the_progress_bar(terminal: Terminal) -> None:
    child = terminal(mamba())
    child.expect("loading.*\x1b\\[2K(localspec: speculation is off: [^\r]*)\r\n")
    assert child.match[1].endswith("(its memory is recurrent)")
    child.expect(PROMPT)
    leave(child)


def test_a_dumb_terminal_gets_plain_text(terminal: Terminal) -> None:
    child = terminal(tiny(), TERM="dumb")
    child.expect("lists the commands")
    assert "\x1b" not in child.before
    child.expect("> ")
    child.send("/nonsense\r")
    child.expect("Ctrl-C stops an answer")
    assert "\x1b[2m" not in child.before
    child.expect("> ")
    child.send("/quit\r")
    child.expect(pexpect.EOF)
