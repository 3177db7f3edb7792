"""Parts of the conversation: prompts that begin like the last, and drawing that leaves no trace."""

import io
import os
import pty
import random
import re
from pathlib import Path
from typing import ClassVar

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from talking import MARKDOWN, STORY, THOUGHT

from localspec.chat import views
from localspec.chat.answering import reserve, shortage
from localspec.chat.archive import NullRecord
from localspec.chat.chat import Chat
from localspec.chat.conversation import (
    Answered,
    Asked,
    Conversation,
    Dropped,
    Retried,
    Undone,
)
from localspec.chat.editor import TypedBefore
from localspec.chat.frontend import message_of
from localspec.chat.markdown import Blocks
from localspec.chat.tty import ERASE, SHARE, FrameLimiter, Region, Waiting, terminal_size
from localspec.chat.views import THEME, ScreenView
from localspec.dialogue.answer_parser import parts_of
from localspec.dialogue.markers import THINK
from localspec.dialogue.markup import UNOPENED, Markup
from localspec.dialogue.prompts import Prompts
from localspec.dialogue.split import SectionSplitter
from localspec.dialogue.template import ChatTemplate, Message
from localspec.dialogue.transcript import Answer, Transcript, Turn
from localspec.errors import LocalspecError, UserError
from localspec.session.reply_options import reply_options
from localspec.session.session_config import SessionConfig

CHATML = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"
TRIMMING = CHATML.replace("m.content", "m.content | trim")
FORGETTING = CHATML.replace("m.content", "m.content.split('</think>')[-1]")


class Letters:
    """A vocabulary whose tokens are letters, but for "ab", which is one when tokenized at once."""

    n_tokens = 1 << 16
    eog = frozenset[int]()
    specials: ClassVar[dict[str, str]] = {}
    adds_space = False

    def tokenize(self, text: str, **how: bool) -> list[int]:
        return [1 if part == "ab" else ord(part) for part in re.findall("ab|.", text, re.DOTALL)]

    def piece(self, token: int) -> bytes:
        return self.text(token).encode()

    def text(self, token: int) -> str:
        return "ab" if token == 1 else chr(token)


def transcript(template: str | None = CHATML) -> Transcript:
    prompts = Prompts(template and ChatTemplate(template), Letters())
    return Transcript(prompts, "letters", Markup.of(template, Letters()))


@pytest.mark.parametrize("template", [None, CHATML])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_every_door_asks_alike(template: str | None, system: str | None) -> None:
    said = [Message(role="system", content=system)] if system else []
    prompts = Prompts(template and ChatTemplate(template), Letters())
    ids = prompts.of([*said, Message(role="user", content="abc")])
    assert ids == transcript(template).prompt(system, [Turn("abc")])


def turn(question: str, answer: str | None = None) -> Turn:
    """An answer in single letters, which is not how its text would be tokenized."""
    if answer is None:
        return Turn(question)
    parts = parts_of(answer)
    thought = "".join(part.text for part in parts if part.is_thought)
    said = "".join(part.text for part in parts if not part.is_thought)
    return Turn(question, Answer(said, tuple(map(ord, answer)), "letters", thought=thought))


@pytest.mark.parametrize("template", [CHATML, TRIMMING, None])
@pytest.mark.parametrize("answer", ["abc ab", " ab ", "ab\n"])
def test_a_next_prompt_begins_with_the_last_and_the_tokens_of_its_answer(
    template: str | None, answer: str
) -> None:
    asked = transcript(template)
    first = asked.prompt("system", [turn("ab")])
    second = asked.prompt("system", [turn("ab", answer), turn("b")])
    assert second[: len(first) + len(answer)] == [*first, *map(ord, answer)]
    third = asked.prompt("system", [turn("ab", answer), turn("b", answer), turn("c")])
    assert third[: len(second) + len(answer)] == [*second, *map(ord, answer)]


@pytest.mark.parametrize("template", [CHATML, TRIMMING, FORGETTING, None])
def test_a_prompt_depends_on_the_conversation_alone(template: str | None) -> None:
    turns = [turn("ab", "<think>ab</think> ab "), turn("x", "ab"), turn("y")]
    asked = transcript(template)
    for n in (1, 2, 3):
        asked.prompt(None, turns[:n])
    asked.prompt("other", turns[1:])
    assert asked.prompt(None, turns) == transcript(template).prompt(None, turns)


def test_a_template_that_drops_reasoning_is_followed() -> None:
    asked = transcript(FORGETTING)
    tokens = asked.prompt(None, [turn("q", "<think>ab</think>ab"), turn("x")])
    text = b"".join(Letters().piece(token) for token in tokens).decode()
    assert text == "<|user|>q<|end|><|assistant|>ab<|end|><|user|>x<|end|><|assistant|>"


def test_tokens_of_another_tokenizer_are_not_used() -> None:
    foreign = Turn("q", Answer("ab", (7, 8, 9), "another"))
    tokens = transcript().prompt(None, [foreign, turn("x")])
    assert 7 not in tokens
    assert 1 in tokens


events = st.lists(
    st.one_of(
        st.builds(Asked, st.text(min_size=1, max_size=3)),
        st.builds(Answered, st.builds(Answer, st.text(min_size=1, max_size=3))),
        st.just(Retried()),
        st.just(Undone()),
        st.builds(Dropped, st.integers(0, 3)),
    ),
    max_size=20,
)


@given(events)
def test_a_conversation_is_always_in_order(happened: list) -> None:
    conversation = Conversation.of(happened)
    assert all(turn.answer is not None for turn in conversation.turns[:-1])
    assert 0 <= conversation.n_dropped <= len(conversation.turns)
    assert (conversation.pending is not None) == bool(
        conversation.turns and conversation.turns[-1].answer is None
    )


@given(st.lists(st.integers(1, 200), min_size=1, max_size=12), st.integers(16, 1000))
def test_room_is_made_with_the_fewest_turns_and_the_last_stays(
    sizes: list[int], n_ctx: int
) -> None:
    def count(k: int) -> int:
        return 10 + sum(sizes[k:])

    n_reserve = reserve(n_ctx, None)
    found = shortage(count, sizes, n_ctx, n_reserve)
    if found is None:
        assert count(0) + n_reserve <= n_ctx
        return
    assert found.n_droppable < len(sizes)
    assert found.n_after == count(found.n_droppable)
    if found.n_droppable < len(sizes) - 1:
        assert found.n_after + n_reserve <= n_ctx


def pieces(text: str, seed: int) -> list[str]:
    """`text` cut anywhere."""
    rng = random.Random(seed)
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(len(text))))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(st.integers(0, 10_000))
def test_blocks_are_the_same_however_they_come(seed: int) -> None:
    def blocks(parts: list[str]) -> list:
        found = Blocks()
        return [block for part in parts for block in found.feed(part)] + found.finish()

    nested = MARKDOWN + "\n- one\n  - nested\n- two\n    ```\n    code\n    ```\n~~~\nopen"
    assert blocks(pieces(nested, seed)) == blocks([nested])


def draw(
    parts: list[str], monkeypatch: pytest.MonkeyPatch, columns: int = 60, rows: int = 20
) -> str:
    """What a person sees, with every piece drawn at once."""
    monkeypatch.setattr(views.FrameLimiter, "is_due", lambda self: True)
    terminal = pyte.HistoryScreen(columns, rows, history=2000, ratio=0.01)
    stream = pyte.Stream(terminal)
    out = io.StringIO()
    console = Console(file=io.StringIO(), force_terminal=True, theme=THEME, width=columns)
    view = ScreenView(out, lambda: os.terminal_size((columns, rows)), console)
    view.begin(UNOPENED, 1)
    split = SectionSplitter((THINK,), None)
    for part in parts:
        view.write(split.feed(part), None)
        stream.feed(out.getvalue())
        out.truncate(0)
        out.seek(0)
    view.write(split.finish(), None)
    view.end()
    stream.feed(out.getvalue())
    top = ["".join(c.data for _, c in sorted(line.items())) for line in terminal.history.top]
    lines = [line.rstrip() for line in [*top, *terminal.display]]
    return re.sub(r"thought for [\d.]+ s", "thought", "\n".join(lines)).rstrip()


@pytest.mark.parametrize("columns", [24, 60, 120])
@pytest.mark.parametrize("text", [MARKDOWN, THOUGHT, "Wide 漢字 😀 👩 " * 30])
def test_however_an_answer_comes_the_screen_ends_the_same(
    text: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn letter by letter, in pieces, or at once, also where it scrolls."""
    whole = draw([text], monkeypatch, columns)
    assert draw(list(text), monkeypatch, columns) == whole
    for seed in range(3):
        assert draw(pieces(text, seed), monkeypatch, columns) == whole


def test_tags_and_line_ends_are_shown_as_they_were_said(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Use the <br> tag:\nroses are red,\nviolets are <b>blue</b>\n\n<div>\nnot lost\n</div>\n"
    assert draw([text], monkeypatch).splitlines() == text.splitlines()


@pytest.mark.slow
def test_a_paragraph_longer_than_the_screen_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = draw(list(STORY), monkeypatch, columns=40, rows=10)
    assert seen.split() == STORY.split()


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.lists(st.text("ab 漢", max_size=18), max_size=6), st.booleans()),
        max_size=8,
    )
)
def test_a_region_shows_what_it_is_given_last(updates: list[tuple[list[str], bool]]) -> None:
    out = io.StringIO()
    region = Region(out, lambda: os.terminal_size((40, 30)))
    kept: list[str] = []
    shown: list[str] = []
    for lines, is_final in updates:
        if is_final:
            region.commit(lines)
            kept, shown = kept + lines, []
        else:
            region.show(lines)
            shown = lines
    terminal = pyte.Screen(40, 60)
    pyte.Stream(terminal).feed(out.getvalue())
    seen = [line.rstrip() for line in terminal.display]
    expected = [line.rstrip() for line in [*kept, *shown]]
    assert seen[: len(expected)] == expected
    assert not any(seen[len(expected) :])


def test_drawing_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("localspec.chat.tty.perf_counter", lambda: now[0])
    pace, drawn_s = FrameLimiter(), 0.0
    for _ in range(5000):
        now[0] += 0.02
        if pace.is_due():
            started = now[0]
            now[0] += 0.005
            drawn_s += 0.005
            pace.drew(started)
    assert drawn_s / (now[0] - 100.0) < 1.2 * SHARE


def test_a_terminal_that_does_not_know_its_size_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A serial line says 0 x 0, and answers drawn into no lines were not seen."""
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "w") as terminal:
            assert os.get_terminal_size(terminal.fileno()) == (0, 0)
            monkeypatch.setattr("sys.stdout", terminal)
            assert terminal_size() == (80, 24)
    finally:
        os.close(master)


def test_a_programs_object_without_a_message_is_not_sent_as_text() -> None:
    """Its braces would be a question to the model, and the mistake would go unnoticed."""
    assert message_of('{"message": "Hello"}') == message_of('"Hello"') == "Hello"
    assert message_of("{Hello") == "{Hello"
    for line in ('{"text": "Hello"}', '{"message": 3}', "{}"):
        with pytest.raises(UserError, match="message"):
            message_of(line)


def test_a_history_that_cannot_be_written_is_no_traceback(tmp_path: Path) -> None:
    history = TypedBefore(str(tmp_path / "gone" / "history"))
    history.append_string("Hello")
    assert history.get_strings() == ["Hello"]


def test_what_loading_notes_is_told_once_a_model(tmp_path: Path) -> None:
    """Each change of a setting loads again, and would say again what is fastest here."""

    def open_model(where, record, notify, on_progress):
        notify("fastest here: 2 threads")
        raise LocalspecError("nothing loads in this test")

    config = SessionConfig(tmp_path / "a.gguf")
    chat = Chat(open_model, config, reply_options(), NullRecord(tmp_path / "none"), "ask")
    told: list[str] = []
    chat.notify = told.append
    for name in ("a.gguf", "a.gguf", "b.gguf", "a.gguf"):
        chat.where = SessionConfig(tmp_path / name)
        assert chat.loading.wait(10)
        chat.unload()
    assert told == ["fastest here: 2 threads"] * 2


def test_a_note_never_shares_a_line_with_what_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("localspec.chat.tty.DELAY_S", 0)
    monkeypatch.setattr("localspec.chat.tty.INTERVAL_S", 0)
    out = io.StringIO()
    waiting = Waiting(out, lambda: "loading x 0 %")
    while "loading" not in out.getvalue():
        pass
    for _ in range(500):
        waiting.above(lambda: out.write("note\n"))
    waiting.stop()
    assert re.findall(r"(?s).{4}(?=note)", out.getvalue()) == [ERASE] * 500
