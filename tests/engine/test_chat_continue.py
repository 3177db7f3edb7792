"""Nothing is lost: a conversation goes on after it was left, and after kill -9."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from command import ANSWER, localspec, start_with_input, tiny
from talking import ANSWERS, GREEDY, events, going_on, notes, of_kind, piped, talker

from localspec import paths
from localspec.chat.archive import Record, latest
from localspec.chat.conversation import Answered, Asked, Conversation
from localspec.dialogue.transcript import Answer

PLAIN = ("--threads", "1", "--temp", "0", "--spec", "none", "-n", "10")
QUESTIONS = ("Name three colours.", "Which of them do you like best, and why?")


def said(*lines: str, options: tuple[str, ...]) -> list[dict[str, Any]]:
    """Events of a chat with the starter."""
    run = localspec("chat", *options, *PLAIN, "--json-lines", stdin="\n".join(lines).encode())
    assert run.code == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def text_of(found: list[dict[str, Any]]) -> list[str]:
    """Each answer's text."""
    texts, text = [], ""
    for event in found:
        if event["event"] == "text":
            text += event["text"]
        elif event["event"] == "answer":
            texts.append(text)
            text = ""
    return texts


@pytest.fixture
def undisturbed() -> list[dict[str, Any]]:
    """Two questions in one go."""
    return said(*QUESTIONS, options=("starter",))


def kill_in_second_answer() -> None:
    """kill -9 when the second answer has begun."""
    process = start_with_input("chat", "starter", *PLAIN[:-2], "-n", "10", "--json-lines")
    assert process.stdin
    assert process.stdout
    process.stdin.write((QUESTIONS[0] + "\n").encode())
    process.stdin.flush()
    _read_until(process.stdout, "answer")
    process.stdin.write((QUESTIONS[1] + "\n").encode())
    process.stdin.flush()
    _read_until(process.stdout, "text")
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _read_until(lines: Any, kind: str) -> None:
    for line in lines:
        if json.loads(line)["event"] == kind:
            return
    raise AssertionError(f"no {kind} came")


def test_going_on_equals_an_undisturbed_session(undisturbed: list[dict[str, Any]]) -> None:
    """Exactly, with the same tokens evaluated, because the cache came from disk."""
    said(QUESTIONS[0], options=("starter",))
    found = said(QUESTIONS[1], options=("--continue",))
    assert of_kind("loaded", found)[0]["n_restored"] > 0
    assert text_of(found) == text_of(undisturbed)[1:]
    first, second = of_kind("answer", found)[0], of_kind("answer", undisturbed)[1]
    assert first["n_evaluated"] == second["n_evaluated"]
    assert first["n_prompt"] == second["n_prompt"]


def test_after_kill_9_the_unfinished_answer_is_made_again(
    undisturbed: list[dict[str, Any]],
) -> None:
    kill_in_second_answer()
    run = localspec("chat", "--continue", *PLAIN, stdin=b"/regen")
    assert run.code == 0
    assert any(note.startswith("not answered yet: Which of them") for note in notes(run))
    assert run.stdout.rstrip("\n") == text_of(undisturbed)[1].rstrip("\n")


def test_without_the_saved_cache_everything_is_read_again(
    undisturbed: list[dict[str, Any]],
) -> None:
    """The same text while all of it is short."""
    said(QUESTIONS[0], options=("starter",))
    for state in (paths.cache_dir() / "conversations").iterdir():
        state.write_bytes(state.read_bytes()[:-100])
    found = said(QUESTIONS[1], options=("--continue",))
    assert of_kind("loaded", found)[0]["n_restored"] == 0
    answer = of_kind("answer", found)[0]
    assert answer["n_evaluated"] == answer["n_prompt"]
    assert text_of(found) == text_of(undisturbed)[1:]


def test_another_cache_type_is_not_mixed_up(localspec_home: Path) -> None:
    events("tell a")
    found = events("tell b", options=("--continue", "--kv-k", "q8_0"), command=(talker(),))
    assert of_kind("loaded", found)[0]["n_restored"] == 0
    assert text_of(found) == [ANSWERS["b"]]


def test_model_system_prompt_and_settings_go_on() -> None:
    piped("/temp 0.5", "/seed 9", "tell a", options=(*GREEDY, "--system", "Be brief."))
    run = going_on("/system", "/temp", "/seed", "/model", options=("--threads", "1"))
    assert notes(run)[1:] == [
        "system prompt: Be brief.",
        "temperature: 0.5",
        "seed: 9",
        f"model: {talker()}",
    ]
    assert "temperature: 0.2" in notes(going_on("/temp", options=("--temp", "0.2")))


def test_sessions_have_names_and_can_be_gone_on_with() -> None:
    piped("tell a", "/save first")
    piped("tell b", "tell a")
    run = localspec("chat", "--session", "first", *GREEDY, stdin=b"/sessions\n/load nobody")
    assert "1 turn of first" in notes(run)[0]
    assert any(note.startswith("*first ") for note in notes(run))
    wrong = localspec("chat", "--session", "nobody")
    assert (wrong.code, wrong.stdout) == (2, "")
    assert localspec("chat", "--session", "first", "--continue").code == 2


def test_two_chats_do_not_write_into_one_conversation() -> None:
    process = start_with_input("chat", talker(), *GREEDY, "--json-lines")
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"tell a\n")
    process.stdin.flush()
    _read_until(process.stdout, "answer")
    run = localspec("chat", "--continue")
    assert run.code == 2
    assert "open in another chat" in run.stderr
    process.communicate()
    assert localspec("chat", "--continue").code == 0


def test_there_is_nothing_to_go_on_with_at_first() -> None:
    run = localspec("chat", "--continue")
    assert run.code == 2
    assert "no conversation to go on with" in run.stderr


def test_no_save_keeps_nothing() -> None:
    run = piped("tell a", "/save x", options=(*GREEDY, "--no-save"))
    assert any("--no-save" in note for note in notes(run))
    assert list((paths.data_dir() / "sessions").iterdir()) == []
    assert list((paths.cache_dir() / "conversations").glob("*")) == []


def test_a_torn_line_is_cut_off_and_the_rest_stays() -> None:
    piped("tell a", "tell b")
    record = latest()
    assert record
    whole = record.path.read_bytes()
    for n in (1, 7, 30):
        record.path.write_bytes(whole[:-n])
        run = going_on("/stats")
        assert "2 turns" in notes(run)[0], "the question was whole"
        assert record.path.read_bytes().endswith(b"\n")
    assert "not answered yet: tell b" in notes(going_on())[1]


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_time_the_file_is_whole(seed: int) -> None:
    """What was answered before is there, whenever the kill comes."""
    rng = random.Random(seed)
    process = start_with_input("chat", talker(), *GREEDY, "--json-lines")
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"tell a\ntell s\ntell b\ntell s\n")
    process.stdin.flush()
    n_answers = 0
    stop_after = rng.randrange(2, 500)
    for _, line in zip(range(stop_after), process.stdout, strict=False):
        n_answers += json.loads(line)["event"] == "answer"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    record = latest()
    turns = Conversation.of(record.events()).turns if record else ()
    answered = [turn.answer.text for turn in turns if turn.answer]
    assert len(answered) >= n_answers
    asked = ["a", "s", "b", "s"][: len(answered)]
    assert answered == [ANSWERS[letter] for letter in asked]


def test_events_of_a_newer_version_are_passed_over(localspec_home: Path) -> None:
    record = Record.new()
    record.add(Asked("hello"))
    with record.path.open("a") as file:
        file.write('{"event": "telepathy", "thought": 1}\n{"event": "answered"}\n[1]\nnonsense\n')
    record.add(Answered(Answer("hi", (1, 2), "digest")))
    conversation = Conversation.of(record.events())
    assert [turn.answer and turn.answer.text for turn in conversation.turns] == ["hi"]


def test_a_full_disk_is_a_sentence(localspec_home: Path) -> None:
    (paths.data_dir() / "sessions").mkdir()
    (paths.data_dir() / "sessions").rmdir()
    (paths.data_dir() / "sessions").write_text("in the way")
    run = localspec("chat", tiny(), *ANSWER, "-n", "3", stdin=b"aaa")
    assert run.code == 1
    assert "a bug" not in run.stderr
