"""Answers are split into thought, text and tool calls, however their tokens fall."""

import os
import random
from collections.abc import Mapping, Sequence
from itertools import groupby, permutations
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localspec.dialogue.answer_parser import AnswerParser, parts_of, splitter
from localspec.dialogue.markers import SECTIONS
from localspec.dialogue.markup import FRAME, UNOPENED, AnswerPart, Markup, Opening
from localspec.dialogue.template import ChatTemplate, Message, TemplateError

EVERY_SOURCE = "".join(section.opening + "".join(section.evidence) for section in SECTIONS)
"""A template that names every mark, but those of a frame."""
FRAMED = "<|start|>assistant<|message|>"
LLAMA_CPP = "LOCALSPEC_LLAMA_CPP"
"""The folder of llama.cpp's sources: vendor/llama.cpp of llama-cpp-python's source archive."""


class Pieces:
    """A vocabulary of these tokens; those without bytes have a name."""

    eog = frozenset[int]()
    adds_space = False
    specials: Mapping[str, str] = {}

    def __init__(self, pieces: Sequence[str | bytes], control: Sequence[str] = ()) -> None:
        self._pieces = [p if isinstance(p, bytes) else p.encode() for p in pieces]
        self._control = list(control)
        self.n_tokens = len(self._pieces) + len(self._control)

    def tokenize(self, text: str, **how: bool) -> list[int]:
        if text in self._control:
            return [len(self._pieces) + self._control.index(text)]
        return [0] * len(text.encode())

    def piece(self, token: int) -> bytes:
        return self._pieces[token] if token < len(self._pieces) else b""

    def text(self, token: int) -> str:
        return self._control[token - len(self._pieces)] if token >= len(self._pieces) else ""


def merged(parts: Sequence[AnswerPart]) -> list[tuple[str, str]]:
    grouped = groupby(parts, lambda part: part.kind)
    return [(kind, "".join(part.text for part in group)) for kind, group in grouped]


def split(source: str, text: str, prompt: str = "") -> list[tuple[str, str]]:
    """The parts of a text that comes at once."""
    markup = Markup.of(source, Pieces(()))
    whole = splitter(markup, markup.opening(prompt))
    return merged(whole.feed(text) + whole.finish())


def parsed(
    source: str, pieces: Sequence[str | bytes], prompt: str = "", stop: Sequence[str] = ()
) -> tuple[list[tuple[str, str]], AnswerParser]:
    """The parts of these tokens."""
    vocabulary = Pieces(pieces)
    markup = Markup.of(source, vocabulary)
    parser = AnswerParser(markup, vocabulary, stop, markup.opening(prompt))
    parts = [part for token in range(len(pieces)) for part in parser.push(token)]
    return merged(parts + parser.finish()), parser


THOUGHT_AND_TEXT = [("thought", "why"), ("text", "yes")]
HEADER = "<|start|>assistant"
CASES = [
    ("", "", "<think>\nwhy\n</think>\n\nyes"),
    ("", "<think>\n", "why\n</think>\n\nyes"),
    ("", "<think>\n", "<think>why</think>yes"),
    ("<response>", "", "<think>why</think><response>yes\n</response>\n"),
    ("<answer>", "", "<think>\nwhy\n</think>\n<answer>\nyes\n</answer>"),
    ("[THINK]", "", "[THINK]why[/THINK]yes"),
    ("<|channel>", "", "<|channel>thought\nwhy\n<channel|>yes"),
    ("<|START_THINKING|><|START_RESPONSE|>", "",
     "<|START_THINKING|>why<|END_THINKING|><|START_RESPONSE|>yes<|END_RESPONSE|>"),
    ("<|open|><|close|><|sep|>", "<|open|>think<|sep|>",
     "why<|close|>think<|sep|><|open|>response<|sep|>yes<|close|>response<|sep|><|close|>message<|sep|>"),
    ("<|think|><|content|>", "<|begin|>assistant",
     "<|think|>why<|end|><|begin|>assistant<|content|>yes<|end|>"),
    ("[BEGIN FINAL RESPONSE]", "Here are my reasoning steps:\n",
     "why\n[BEGIN FINAL RESPONSE]\nyes\n[END FINAL RESPONSE]\n"),
    ("Here is my thought process: Here is my response:", "",
     "Here is my thought process: why Here is my response: yes"),
    (FRAMED, HEADER, "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final"
     "<|message|>yes"),
    (FRAMED, HEADER, "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final"
     " <|constrain|>json<|message|>yes<|return|>"),
    (FRAMED, HEADER, "<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final"
     "yes"),
    (FRAMED, HEADER, " to=self<|message|>why<|eom|><|start|>assistant to=user<|message|>yes"),
    (FRAMED, HEADER, "<|channel|>commentary<|message|>why<|end|><|start|>assistant<|message|>yes"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "prompt", "text"), CASES)
def test_a_thought_and_its_answer_are_apart(source: str, prompt: str, text: str) -> None:
    assert split(source, text, prompt) == THOUGHT_AND_TEXT


@given(st.sampled_from(CASES), st.integers(0, 100_000))
def test_parts_do_not_depend_on_tokens(case: tuple[str, str, str], seed: int) -> None:
    """Cut anywhere, within marks and within characters."""
    source, prompt, text = case
    data = text.replace("why", "wh\u00fd \U0001f642").encode()
    rng = random.Random(seed)
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(len(data))))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    found, _ = parsed(source, pieces, prompt)
    assert found == [("thought", "wh\u00fd \U0001f642"), ("text", "yes")]


BITS = [
    *(mark for section in SECTIONS for mark in section.marks),
    "a",
    "\n",
    " b ",
    "<",
    "</",
    "\n\n",
]


def in_pieces(text: str, seed: int) -> list[str]:
    rng = random.Random(seed)
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(len(text) + 1)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(BITS), max_size=12), st.integers(0, 100_000))
def test_any_text_has_the_same_parts_however_it_comes(bits: list[str], seed: int) -> None:
    """Nothing but marks and spaces is lost, whatever a model writes."""
    text = "".join(bits)
    found, _ = parsed(EVERY_SOURCE, in_pieces(text, seed))
    assert found == split(EVERY_SOURCE, text)
    said = "".join(part for _, part in found)
    assert said.count("a") >= sum(bit == "a" for bit in bits)
    assert said.count("b") >= sum(bit == " b " for bit in bits)


SAID = "¡Yes, I do!"
FRAME_BITS = [*FRAME.marks, "assistant", " to=f.x", "analysis", "final", SAID, "json", "\n"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(FRAME_BITS), max_size=12), st.integers(0, 100_000))
def test_messages_with_headers_have_the_same_parts_too(bits: list[str], seed: int) -> None:
    text = "".join(bits)
    found, _ = parsed(FRAMED, in_pieces(text, seed), HEADER)
    assert found == split(FRAMED, text, HEADER)
    assert "".join(part for _, part in found).count(SAID) == bits.count(SAID)


@pytest.mark.parametrize("text", [
    "Tags: <think>a</think> are old.",
    "A `<tool_call>` in a sentence.",
    "An answer in <response>tags</response>.",
    "<thin> air, and 1 < 2",
    "They say: Here is my response: no",
    " \n leading space",
])  # fmt: skip
def test_text_about_marks_is_text(text: str) -> None:
    assert split(EVERY_SOURCE, text) == [("text", text)]


def test_a_mark_that_is_a_token_counts_anywhere() -> None:
    """Gemma 4 may think again behind its answer; control tokens have no bytes."""
    control = ("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", '<|"|>')
    vocabulary = Pieces(("thought\n", "why", "yes", "no", " call:f{x:"), control)
    markup = Markup.of("x", vocabulary)
    parser = AnswerParser(markup, vocabulary)
    opened, closed, called, ended, quoted = range(5, 10)
    said = (2, opened, 0, 1, closed, 3, called, 4, quoted, 1, quoted, ended)
    parts = [part for token in said for part in parser.push(token)] + parser.finish()
    assert merged(parts) == [
        ("text", "yes"),
        ("thought", "why"),
        ("text", "\n\nno"),
        ("tool_call", '<|tool_call> call:f{x:<|"|>why<|"|><tool_call|>'),
    ]
    assert parser.n_tokens == {"text": 2, "thought": 1, "tool_call": 6}


def test_calls_of_tools_keep_their_marks() -> None:
    """More than one, with text before and behind."""
    call = '<tool_call>\n{"a": 1}\n</tool_call>'
    found = split("<tool_call>", f"<think>why</think>I look.\n{call}\n{call}\nDone.")
    assert found == [
        ("thought", "why"),
        ("text", "I look.\n"),
        ("tool_call", f"{call}\n\n{call}"),
        ("text", "\n\nDone."),
    ]
    addressed = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}"
    analysis = "<|channel|>analysis<|message|>why<|end|><|start|>assistant"
    assert split(FRAMED, analysis + addressed, HEADER)[1:] == [("tool_call", addressed)]
    assert split(FRAMED, " to=f<|channel|>commentary json<|message|>{}", HEADER) == [
        ("tool_call", "to=f<|channel|>commentary json<|message|>{}")
    ]


def test_a_stop_text_stops_in_a_thought_and_at_a_mark() -> None:
    found, parser = parsed("", ["<think>", "wh", "y", "\n", "</th", "ink>", "yes"], stop=["y\n"])
    assert (found, parser.is_stopped) == ([("thought", "wh")], True)
    found, parser = parsed("", ["<think>", "why", "</think>", "yes"], stop=["</think>"])
    assert (found, parser.is_stopped) == ([("thought", "why")], True)
    found, parser = parsed(
        "", ["<think>", "why", "</think>", "yes", " STO", "P", "!"], stop=["STOP"]
    )
    assert (found, parser.is_stopped) == ([("thought", "why"), ("text", "yes ")], True)


def test_tokens_are_counted_by_what_they_say() -> None:
    thought = ["<think>", "\n", " First", " this", ".", "\n", "</think>", "\n\n"]
    pieces = [*thought, "\nIt", " is", b"\xf0\x9f", b"\x99\x82"]
    found, parser = parsed("", pieces)
    assert found == [("thought", "First this."), ("text", "It is\U0001f642")]
    assert parser.n_tokens == {"thought": 3, "text": 4}


def test_a_model_without_marks_and_a_base_model_write_text() -> None:
    assert split("", "<|unknown|>why<|/unknown|>yes") == [("text", "<|unknown|>why<|/unknown|>yes")]
    plain = AnswerParser(Markup.of(None, Pieces(())), Pieces(["<think>", "a", "</think>"]))
    parts = [part for token in range(3) for part in plain.push(token)] + plain.finish()
    assert merged(parts) == [("text", "<think>a</think>")]


def test_no_mark_begins_another_one() -> None:
    """Else an answer that ends with it would be held back for nothing."""
    marks = {mark for section in SECTIONS for mark in section.marks}
    assert not [(a, b) for a, b in permutations(marks, 2) if b.startswith(a)]


def test_old_answers_are_read_whoever_wrote_them() -> None:
    assert merged(parts_of("<think>why</think>yes")) == THOUGHT_AND_TEXT
    assert merged(parts_of("why\n</think>\n\nyes")) == THOUGHT_AND_TEXT
    assert merged(parts_of("why[/THINK]\nyes")) == THOUGHT_AND_TEXT
    for text in ("plain", "use </think> after it", " a\n", "<b>bold</b>"):
        assert merged(parts_of(text)) == [("text", text)]


@pytest.mark.parametrize("source", [EVERY_SOURCE, FRAMED], ids=["sections", "frame"])
def test_a_token_costs_less_than_20_microseconds(source: str) -> None:
    """Prose, code and brackets; 3.0 to 4.4 were measured on one core of a Xeon (AMX)."""
    words = [" the", "\n", " <div>", "</", "div", ">", "[0]", " a <", " b:", " Here", " is", "\n\n"]
    rng = random.Random(0)
    pieces = ["<think>", *rng.choices(words, k=500), "</think>", *rng.choices(words, k=500)]

    def seconds() -> float:
        started = process_time()
        parsed(source, pieces, HEADER, stop=("STOP", "\nUser:"))
        return (process_time() - started) / len(pieces)

    assert min(seconds() for _ in range(3)) < 20e-6


def sources() -> list[Path]:
    """Chat templates of public models, where they are."""
    folder = os.environ.get(LLAMA_CPP)
    return sorted(Path(folder, "models", "templates").glob("*.jinja")) if folder else []


THOUGHT, ANSWER = "Reason.", "Answer."


@pytest.mark.slow
@pytest.mark.skipif(not sources(), reason=f"{LLAMA_CPP} names no folder of llama.cpp's sources")
def test_what_templates_write_is_split_where_they_say() -> None:
    """What a template makes of thought and text is what its model was taught to write."""
    thinking = dict.fromkeys(("enable_thinking", "thinking", "reasoning"), True)
    asked = [Message(role="user", content="Quest?")]
    said = Message(role="assistant", content=ANSWER, thought=THOUGHT)
    n_thinking = 0
    for path in sources():
        template = ChatTemplate(path.read_text(), "<BOS>", "<EOS>", thinking)
        try:
            prompt = template.render(asked)
            whole = template.render([*asked, said], add_generation_prompt=False)
        except TemplateError:
            continue
        begin = prompt if whole.startswith(prompt) else whole[: whole.index(ANSWER)]
        if THOUGHT in whole and THOUGHT not in begin:
            n_thinking += 1
            found = split(template.source, whole.removeprefix(begin), begin)
            assert found[0] == ("thought", THOUGHT), path.name
            assert found[1][1].startswith(ANSWER), path.name
        assert split(template.source, ANSWER, "")[-1] == ("text", ANSWER), path.name
    assert n_thinking >= 25


def test_an_answer_begins_where_the_prompt_says() -> None:
    markup = Markup.of("<seed:think>", Pieces(()))
    assert markup.opening("[user]hi[assistant]") == UNOPENED
    opened = markup.opening("[user]hi[assistant]<seed:think>\n").section
    assert opened is not None
    assert opened.closings == ("</seed:think>",)
    assert markup.opening("<think>\n\n</think>\n\n") == Opening()


def test_a_question_about_a_mark_opens_nothing() -> None:
    """Where the template's own end is known, its words behind the mark do not close a section."""
    markup = Markup.of("<seed:think>", Pieces(()))
    assert markup.opening("[user]What is <think>", "") == UNOPENED
    for asking in ("<think>", "[a]<think>\nOkay,", "<think>\n<|begin|>", "</think><think>"):
        assert markup.opening("[user]hi" + asking, asking).section is not None
    for asking in ("[a]", "<think>\n\n</think>\n\n", "</think>"):
        assert markup.opening("[user]<think>" + asking, asking) == UNOPENED
