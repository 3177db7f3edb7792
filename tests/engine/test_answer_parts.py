"""Thought and text of an answer, through the whole program: marks of many models, said by models
that say a script. The templates are ours, and have the marks where the models' own have them."""

import io
import json
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command import folder, localspec, start_with_input
from screens import Terminal
from scripted import Script, write_script
from talking import GREEDY, of_kind

from localspec import paths
from localspec.cli import main

STRICT = (
    "{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no turns') }}"
    "{% endif %}{% if not m.content %}{{ raise_exception('empty') }}{% endif %}"
    "{% for mark in MARKS %}{% if mark in m.content %}{{ raise_exception('a mark') }}{% endif %}"
    "{% endfor %}[{{ m.role }}]"
    "{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
    "{{ m.content }}\n{% endfor %}[assistant]"
)
"""Roles take turns, nothing is empty, no mark is in a message."""
Chatted = Callable[..., list[dict[str, Any]]]
THOUGHT_PIECES = ("They greet", " me.", " So I greet back.")
TEXT_PIECES = ("Hello", " there!")
THOUGHT, TEXT = "".join(THOUGHT_PIECES), "".join(TEXT_PIECES)


@dataclass(frozen=True, slots=True)
class Family:
    """What a kind of models says before its thought, between thought and text, and behind it.

    `asks` ends the prompt; its last token is `start`.
    """

    name: str
    before: tuple[str, ...]
    between: tuple[str, ...]
    behind: tuple[str, ...] = ()
    control: tuple[str, ...] = ()
    user_defined: tuple[str, ...] = ()
    asks: str = "<|gen|>"
    start: str = "<|gen|>"

    @property
    def template(self) -> str:
        marks = ["".join(pieces).strip() for pieces in (self.before, self.between, self.behind)]
        return STRICT.replace("MARKS", repr([mark for mark in marks if mark])) + self.asks

    def says(self, *pieces: str, goes_round: int = 0) -> Script:
        """A model of this kind that says this."""
        kinds = self.control, self.user_defined
        return Script(pieces, self.template, *kinds, self.start, goes_round)

    def thinks(self, *behind: str, goes_round: int = 0) -> Script:
        return self.says(*self.before, *THOUGHT_PIECES, *behind, goes_round=goes_round)


def tagged(name: str, opening: str, closing: str, kind: str = "control") -> Family:
    """One token at either end of the thought."""
    return Family(name, (opening,), (closing,), **{kind: (opening, closing)})


FAMILIES = [
    tagged("think", "<think>", "</think>", "user_defined"),
    tagged("think as control tokens", "<think>", "</think>"),
    Family("think in pieces", ("<th", "ink>", "\n\n"), ("\n\n\n", "</", "think>", "\n \n")),
    Family("think opened", (), ("\n\n", "</think>", "\n\n\n"),
           user_defined=("<think>", "</think>"), asks="<think>", start="<think>"),
    tagged("Magistral", "[THINK]", "[/THINK]"),
    Family("gpt-oss", ("<|channel|>", "analysis", "<|message|>"),
           ("<|end|>", "<|start|>", "assistant", "<|constrain|>", "final"),
           (), ("<|return|>", "<|call|>"),
           ("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>"),
           asks="<|start|>assistant<|gen|>"),
    Family("gpt-oss to its end", ("<|channel|>", "analysis", "<|message|>"),
           ("<|end|>", "<|start|>assistant", "<|channel|>fin", "al<|message|>"),
           control=("<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"),
           asks="<|start|>assistant<|gen|>"),
    Family("Gemma 4", ("<|channel>", "thought", "\n\n"), ("\n\n\n", "<channel|>"),
           control=("<|channel>", "<channel|>")),
    Family("Command A", ("<|START_THINKING|>",), ("<|END_THINKING|>", "<|START_RESPONSE|>"),
           ("<|END_RESPONSE|>",),
           ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")),
    Family("Command A opened", (), ("<|END_THINKING|>", "<|START_TEXT|>"), ("<|END_TEXT|>",),
           ("<|START_THINKING|>", "<|END_THINKING|>", "<|START_TEXT|>", "<|END_TEXT|>"),
           asks="<|START_THINKING|>", start="<|START_THINKING|>"),
    tagged("Seed-OSS", "<seed:think>", "</seed:think>"),
    Family("EXAONE Deep", (), ("\n\n", "</", "thought", ">\n\n"), user_defined=("<thought>",),
           asks="<thought>", start="<thought>"),
    Family("Granite", ("<thi", "nk>"), ("</th", "ink>", "<resp", "onse>"), ("</res", "ponse>")),
    Family("Granite 3.2", ("Here is my ", "thought process:\n\n"),
           ("\n\nHere is", " my response:", "\n\n")),
    tagged("MiniMax-M3", "<mm:think>", "</mm:think>", "user_defined"),
    Family("Apriel", (), ("\n\n[BEGIN FINAL", " RESPONSE]\n\n"), ("\n\n\n[END FINAL RESPONSE]",),
           asks="Here are my reasoning steps:\n\n", start="\n"),
    tagged("Hy3", "<think:opensource>", "</think:opensource>"),
    tagged("Kimi-VL", "◁think▷", "◁/think▷"),
    Family("Kimi-K3", (), ("<|close|>", "think<|s", "ep|>", "<|open|>", "response", "<|se", "p|>"),
           control=("<|open|>", "<|close|>", "<|sep|>"), asks="<|open|>think<|sep|>",
           start="<|sep|>"),
    Family("Solar Open", ("<|think|>",), ("<|end|>", "<|begin|>", "assistant", "<|content|>"),
           control=("<|think|>", "<|end|>", "<|begin|>", "<|content|>", "<|flush|>", "<|calls|>"),
           asks="<|begin|>assistant<|gen|>"),
    Family("recipients", (" to=self", "<|message|>"),
           ("<|eom|>", "<|start|>", "assistant to=user<|message", "|>"),
           control=("<|message|>", "<|eom|>", "<|start|>"), asks="<|start|>assistant<|gen|>"),
]  # fmt: skip


SOME = [family for family in FAMILIES if family.name in ("think opened", "gpt-oss", "Magistral")]


def named(family: Family) -> str:
    return family.name


@cache
def model_of(family: Family) -> Path:
    script = family.thinks(*family.between, *TEXT_PIECES, *family.behind)
    return write_script(folder() / f"parts-{FAMILIES.index(family)}.gguf", script)


@pytest.fixture
def chatted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Chatted:
    """The events of a chat, in this process: it needs no new Python each time."""

    def chatted(*arguments: str | Path, lines: tuple[str, ...]) -> list[dict[str, Any]]:
        given = io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()))
        monkeypatch.setattr(sys, "stdin", given)
        code = main.run(["chat", *map(str, arguments), *GREEDY, "--json-lines"])
        said = capsys.readouterr()
        assert code == 0, said
        return [json.loads(line) for line in said.out.splitlines()]

    return chatted


def answers(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Thought and text of each."""
    said: list[tuple[str, str]] = []
    thought = text = ""
    for event in found:
        if event["event"] == "text" and event["is_thought"]:
            thought += event["text"]
        elif event["event"] == "text":
            text += event["text"]
        elif event["event"] == "answer":
            said.append((thought, text))
            thought = text = ""
    return said


def kept_answers() -> list[dict[str, Any]]:
    """Of the only conversation that was saved."""
    (path,) = (paths.data_dir() / "sessions").glob("*.jsonl")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return [event["answer"] for event in events if event["event"] == "answered"]


@pytest.mark.parametrize("family", FAMILIES, ids=named)
def test_thought_and_text_are_apart_for_three_turns(family: Family, chatted: Chatted) -> None:
    """The third one goes on with what was saved."""
    found = chatted(model_of(family), lines=("hi", "more"))
    found += chatted("--continue", lines=("and more",))
    assert answers(found) == [(THOUGHT, TEXT)] * 3, found
    assert [(kept["thought"], kept["text"].strip()) for kept in kept_answers()] == [
        (THOUGHT, TEXT)
    ] * 3
    assert all(0 < event["n_thought"] < event["n_tokens"] for event in of_kind("answer", found))


@pytest.mark.parametrize("family", FAMILIES, ids=named)
def test_half_a_thought_is_no_answer(family: Family, chatted: Chatted) -> None:
    """It is kept, shown by /think, and no message of the next prompt: the questions go together."""
    n = len(family.before) + 2
    found = chatted(model_of(family), "-n", str(n), lines=("hi", "/think", "more", "yes"))
    half = "".join(THOUGHT_PIECES[:2])
    assert answers(found) == [(half, "")] * 3
    assert [note["text"] for note in of_kind("note", found)] == [half]
    assert [(kept["thought"], kept["text"]) for kept in kept_answers()] == [(half, "")] * 3
    first, second, third = (answer["n_prompt"] for answer in of_kind("answer", found))
    assert second - first == len("\n\nmore")
    assert third - second == len("\n\nyes")


@pytest.mark.parametrize("family", FAMILIES, ids=named)
def test_an_empty_answer_never_ends_the_conversation(
    family: Family, chatted: Chatted, tmp_path: Path
) -> None:
    found = chatted(write_script(tmp_path / "empty.gguf", family.says()), lines=("hi", "more"))
    found += chatted("--continue", lines=("and more",))
    assert answers(found) == [("", "")] * 3
    lengths = [answer["n_prompt"] for answer in of_kind("answer", found)]
    assert [b - a for a, b in pairwise(lengths)] == [len("\n\nmore"), len("\n\nand more")]


@pytest.mark.parametrize("family", SOME, ids=named)
def test_ctrl_c_in_a_thought_keeps_it_apart(family: Family, tmp_path: Path) -> None:
    model = write_script(tmp_path / "thinks.gguf", family.thinks(goes_round=3))
    process = start_with_input("chat", model, *GREEDY, "--json-lines", "--spec", "none")
    assert process.stdin
    assert process.stdout
    found = []
    for line in (b"hi\n", b"more\n"):
        is_interrupted = False  # once: a later one could reach the next question
        process.stdin.write(line)
        process.stdin.flush()
        for event in map(json.loads, process.stdout):
            found.append(event)
            if event["event"] == "text" and not is_interrupted:
                is_interrupted = True
                process.send_signal(signal.SIGINT)
            if event["event"] == "answer":
                break
    process.communicate()
    assert process.returncode == 0
    assert all(text == "" and thought.startswith(THOUGHT[:10]) for thought, text in answers(found))
    first, second = of_kind("answer", found)
    assert (first["finish_reason"], second["finish_reason"]) == ("interrupted", "interrupted")
    assert second["n_prompt"] - first["n_prompt"] == len("\n\nmore")
    assert [kept["text"] for kept in kept_answers()] == ["", ""]


@pytest.mark.parametrize("family", SOME, ids=named)
def test_a_pipe_gets_the_answer_alone(family: Family) -> None:
    chat = localspec("chat", model_of(family), *GREEDY, "--no-save", stdin=b"hi\nmore\n")
    assert (chat.code, chat.stdout) == (0, f"{TEXT}\n{TEXT}\n")
    generate = localspec("generate", model_of(family), *GREEDY, "-p", "hi")
    assert (generate.code, generate.stdout) == (0, TEXT + "\n")
    assert "3 of thought" in generate.stderr
    document = localspec("generate", model_of(family), *GREEDY, "-p", "hi", "--json").document
    assert (document["thought"], document["text"]) == (THOUGHT, TEXT)
    assert document["thought_tokens"] == len(THOUGHT_PIECES)


@pytest.mark.parametrize("family", SOME, ids=named)
def test_a_terminal_folds_the_thought(family: Family) -> None:
    terminal = Terminal("chat", model_of(family), *GREEDY, "--no-save")
    terminal.ready()
    for n, question in enumerate(("hi", "more"), 1):
        terminal.send(question + "\r")
        terminal.ready(n + 1)
    text = terminal.wait(lambda text: text.count(TEXT) == 2)
    assert text.count("▸ thought for ") == 2
    assert "7 words (/think shows them)" in text
    assert THOUGHT not in text
    terminal.send("/think\r")
    terminal.wait(re.escape(THOUGHT))
    assert terminal.leave() == 0
    written = Terminal("generate", model_of(family), *GREEDY, "-p", "hi").wait("ended by stop")
    assert re.search(r"▸ thought for [\d.]+ s, 7 words", written)
    assert TEXT in written
    assert THOUGHT not in written


OLD = {
    "think": f"<think>\n{THOUGHT}\n</think>\n\n{TEXT}",
    "think opened": f"\n{THOUGHT}\n</think>\n\n{TEXT}",
    "gpt-oss": f"<|channel|>analysis<|message|>{THOUGHT}<|end|><|start|>assistant<|channel|>final"
    f"<|message|>{TEXT}",
}


@pytest.mark.parametrize("name", OLD)
def test_a_conversation_of_an_earlier_version_goes_on(name: str, chatted: Chatted) -> None:
    """It has thought and text in one: gpt-oss could not go on with it."""
    family = next(family for family in FAMILIES if family.name == name)
    folder = paths.data_dir() / "sessions"
    folder.mkdir()
    events = (
        {"event": "configured", "settings": {"model": str(model_of(family))}},
        {"event": "asked", "text": "hi", "at": None},
        {"event": "answered", "answer": {"text": OLD[name], "tokens": [1], "tokenizer": "x"}},
    )
    lines = "\n".join(map(json.dumps, events)) + "\n"
    (folder / "2026-01-01-000000-0000.jsonl").write_text(lines)
    assert answers(chatted("--continue", lines=("/think", "more"))) == [(THOUGHT, TEXT)]
    export = folder / "talk.json"
    assert localspec("chat", "--continue", stdin=f"/export {export}".encode()).code == 0
    _, first, *_ = json.loads(export.read_text())["messages"]
    assert first == {"role": "assistant", "content": TEXT, "thought": THOUGHT}


def test_a_tool_call_is_a_part_of_its_own(tmp_path: Path, chatted: Chatted) -> None:
    """Nothing of it vanishes, control tokens inside it neither."""
    family = Family("calls", ("<think>",), ("</think>",), (),
                    ("<tool_call>", "</tool_call>", "<arg>", "<think>", "</think>"))  # fmt: skip
    pieces = ("{{", '"a": 1', "}}", "<arg>", "</tool_call>")
    script = family.thinks("</think>", "I look.\n\n", "<tool_call>", *pieces)
    model = write_script(tmp_path / "calls.gguf", script)
    call = "<tool_call>" + "".join(pieces)
    found = chatted(model, "--no-save", lines=("hi", "more"))
    called = [event["text"] for event in of_kind("text", found) if event.get("is_tool_call")]
    assert "".join(called) == call * 2
    assert answers(found) == [(THOUGHT, f"I look.\n\n{call}")] * 2
    run = localspec("generate", model, *GREEDY, "-p", "hi", "--json").document
    assert (run["text"], run["tool_call"]) == ("I look.\n\n", call)
    assert localspec("generate", model, *GREEDY, "-p", "hi").stdout == f"I look.\n\n{call}\n"


def test_a_message_that_got_no_answer_ends_a_pipe_with_1(tmp_path: Path) -> None:
    """The advice is about what a chat has."""
    refuses = "{% if m.content|length < 4 %}{{ raise_exception('never') }}{% endif %}"
    template = "{% for m in messages %}{{ m.content }}" + refuses + "{% endfor %}<|gen|>"
    model = write_script(tmp_path / "broken.gguf", Script(TEXT_PIECES, template))
    run = localspec("chat", model, *GREEDY, "--no-save", stdin=b"hi\nmore\n")
    assert (run.code, run.stdout) == (1, TEXT + "\n")
    assert "never" in run.stderr
    assert "--raw" not in run.stderr
    assert "/model" in run.stderr
    fine = localspec("chat", model, *GREEDY, "--no-save", stdin=b"/nonsense\nmore\n")
    assert (fine.code, fine.stdout) == (0, TEXT + "\n")
