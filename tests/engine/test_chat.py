"""The conversation through a pipe: what is said, which commands do what, and what is evaluated."""

import json
from pathlib import Path

import pytest
from command import ANSWER, localspec, mamba, tiny
from talking import ANSWERS, GREEDY, THOUGHT, events, notes, of_kind, piped, second_talker, talker


def evaluated(found: list[dict]) -> list[int]:
    return [answer["n_evaluated"] for answer in of_kind("answer", found)]


def prompts(found: list[dict]) -> list[int]:
    return [answer["n_prompt"] for answer in of_kind("answer", found)]


def test_each_line_gets_an_answer_below_the_ones_before() -> None:
    run = piped("tell a", "", "tell b")
    assert run.stdout == ANSWERS["a"] + "\n" + ANSWERS["b"] + "\n"
    assert len(notes(run)) == 3
    assert all("context " in note for note in notes(run)[1:])


def test_an_answer_knows_the_ones_before() -> None:
    both = piped("aaa", "bbb", model=tiny(), options=(*ANSWER, "-n", "12")).stdout
    first = piped("aaa", model=tiny(), options=(*ANSWER, "-n", "12")).stdout
    second = piped("bbb", model=tiny(), options=(*ANSWER, "-n", "12")).stdout
    assert both.startswith(first)
    assert both.removeprefix(first) != second


def test_a_next_turn_evaluates_only_what_is_new() -> None:
    """2,000 tokens first; then the question, what the template adds, and the answer's last token,
    which had not been evaluated yet."""
    filler = "x" * 1950
    found = events(f"{filler} a", "tell b", "and a")
    new = ["<|end|>", "<|user|>", *"tell b", "<|end|>", "<|assistant|>", "b"]
    assert prompts(found)[0] > 1950
    assert evaluated(found)[0] == prompts(found)[0]
    assert evaluated(found)[1] in (len(new), len(new) + 1)
    assert evaluated(found)[2] <= len(new) + 1


def test_regen_and_undo_evaluate_nothing_old() -> None:
    found = events("x" * 500 + " a", "/regen", "tell b", "/undo", "what b")
    again, _, after_undo = evaluated(found)[1:]
    assert again == 1
    assert after_undo <= len("what b") + 6


def test_a_real_model_reuses_its_own_words() -> None:
    """Its template is rendered anew every turn, and its answers would be tokenized otherwise."""
    found = events(
        "Name three colours.", "Which one is the first?", "Why?",
        options=("-n", "9"), command=("starter",),
    )  # fmt: skip
    n_prompt, n_evaluated = prompts(found), evaluated(found)
    for i in (1, 2):
        n_before = n_prompt[i - 1] + of_kind("answer", found)[i - 1]["n_tokens"]
        assert n_evaluated[i] <= n_prompt[i] - n_before + 1


def test_clear_forgets_and_keeps_the_old_conversation() -> None:
    run = piped("aaa", "/clear", "bbb", "/sessions", model=tiny(), options=(*ANSWER, "-n", "5"))
    alone = piped("bbb", model=tiny(), options=(*ANSWER, "-n", "5"))
    assert run.stdout.endswith(alone.stdout)
    assert "a new conversation" in notes(run)
    assert sum("1 turn " in note for note in notes(run)) == 2


def test_regen_answers_again_and_otherwise() -> None:
    """With the same seed it would give the same answer, as often as it is asked."""
    options = ("--threads", "1", "--temp", "1", "-n", "12", "--seed")
    run = piped("aaa", "/regen", "/regen", model=tiny(), options=(*options, "3"))
    assert [note for note in notes(run) if note.startswith("again")] == [
        "again, with seed 4",
        "again, with seed 5",
    ]
    first = piped("aaa", model=tiny(), options=(*options, "3")).stdout
    second = piped("aaa", model=tiny(), options=(*options, "4")).stdout
    assert run.stdout.startswith(first + second)
    assert first != second


WRONG = [
    ("/regen", "nothing to answer again"),
    ("/undo", "nothing to undo"),
    ("/edit", "no message to edit"),
    ("/stats", "no answer yet"),
    ("/think", "no reasoning"),
    ("/nonsense", "there is no command /nonsense: /help lists them"),
    ("/hepl", "did you mean /help?"),
    ("/file", "name a text file"),
    ("/file no-such-file", "cannot be read"),
    ("/file /dev/null", "/dev/null is not a regular file"),
    ("/load nobody", "no conversation 'nobody'"),
    ("/export", "name a file"),
    ("/export talk.doc", ".md or .json"),
    ("/temp hot", "a number, not 'hot'"),
    ("/temp -1", "between 0 and 100"),
    ("/temp nan", "finite"),
    ("/seed 1.5", "whole number"),
    ("/seed inf", "whole number"),
    ("/spec fast", "/spec is one of auto, none, lookup, draft"),
    ("/spec draft", "needs a draft model"),
    ("/kv q9", "q9"),
    ("/kv f16 f16 f16", "one type for both, or K and V"),
    ("/model no-such-model", "no-such-model"),
    ("/draft no-such-model", "no-such-model"),
    ("/full maybe", "/full is one of ask, drop, stop"),
]


def test_a_wrong_command_is_one_sentence_and_the_chat_goes_on() -> None:
    run = piped(*(line for line, _ in WRONG), "tell a")
    said = notes(run)[1:]
    assert len(said) == len(WRONG) + 1
    for (_, sentence), note in zip(WRONG, said, strict=False):
        assert sentence in note
    assert run.stdout == ANSWERS["a"] + "\n"


def test_a_large_seed_is_kept_to_its_last_digit() -> None:
    assert "seed 9007199254740993" in notes(piped("/seed 9007199254740993"))


def test_help_lists_every_command_and_fits_60_columns() -> None:
    lines = notes(piped("/help"))[1:]
    named = "help model draft spec kv system temp seed regen edit undo file save load sessions "
    for name in (named + "export stats tune clear quit").split():
        assert any(line.startswith(f"/{name}") for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_commands_say_what_is_set() -> None:
    lines = notes(piped("/model", "/draft", "/spec", "/kv", "/system", "/temp", "/seed", "/full"))
    assert lines[1:] == [
        f"model: {talker()}",
        "draft: none",
        *(line for line in lines if line.startswith("speculation: auto")),
        "cache types: K f16, V f16",
        "system prompt: none",
        "temperature: 0",
        lines[7],
        "where the context is full, you are asked",
    ]
    assert lines[7].startswith("seed: ")


def test_undo_edit_and_system_change_what_the_model_sees() -> None:
    run = piped("tell a", "/edit tell b", "/undo", "/system Be brief.", "tell a", "/system none")
    assert run.stdout == "".join(ANSWERS[x] + "\n" for x in "aba")
    assert "forgotten: tell b" in notes(run)
    assert "the system prompt is set" in notes(run)
    with_system = events("/system Be brief.", "tell a")
    assert prompts(with_system)[0] == prompts(events("tell a"))[0] + len("Be brief.") + 2


def test_a_message_can_begin_with_a_slash() -> None:
    assert piped("//etc/hosts is a").stdout == ANSWERS["a"] + "\n"


def test_another_model_goes_on_with_the_conversation() -> None:
    found = events("tell a", f"/model {second_talker()}", "again a", "/model starter-or-not")
    texts = "".join(event["text"] for event in of_kind("text", found))
    assert texts == ANSWERS["a"] + "Aleph, in my opinion."
    first, second = prompts(found)
    assert second > first + len("again a")
    assert of_kind("note", found)[0]["text"].startswith("second.gguf, speculation ")


def test_settings_change_without_losing_the_conversation() -> None:
    found = events("tell a", "/spec none", "tell b", "/kv q8_0", "again a", "/draft none")
    texts = "".join(event["text"] for event in of_kind("text", found))
    assert texts == ANSWERS["a"] + ANSWERS["b"] + ANSWERS["a"]
    assert evaluated(found)[1] < prompts(found)[1], "the same cache is used after /spec"
    assert evaluated(found)[2] == prompts(found)[2], "another type's cache is not"


def test_a_setting_that_fails_leaves_the_old_one() -> None:
    run = piped("tell a", "/kv nonsense", "/kv", "tell b")
    assert run.stdout == ANSWERS["a"] + "\n" + ANSWERS["b"] + "\n"
    assert "cache types: K f16, V f16" in notes(run)


def test_a_file_goes_with_the_next_message(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("a fence ``` in it\n")
    found = events(f"/file {path}", "what is in it a", "and b", "/export x.json")
    assert of_kind("note", found)[0]["text"].startswith("notes.txt (")
    (tmp_path / "data.bin").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in of_kind("note", events(f"/file {tmp_path / 'data.bin'}"))[0]["text"]
    Path("x.json").unlink()


def test_export_is_markdown_or_json(tmp_path: Path) -> None:
    markdown, document = tmp_path / "talk.md", tmp_path / "talk.json"
    piped("tell a", f"/export {markdown}", f"/export {document}", f"/export {document}")
    assert markdown.read_text() == (
        f"# Conversation\n\n## You\n\ntell a\n\n## Model\n\n{ANSWERS['a']}\n"
    )
    assert json.loads(document.read_text())["messages"] == [
        {"role": "user", "content": "tell a"},
        {"role": "assistant", "content": ANSWERS["a"]},
    ]


def test_stats_itemise_the_last_answer() -> None:
    lines = notes(piped("tell a", "/stats"))
    names = [line.split("  ")[0] for line in lines[2:]]
    assert names[:4] == ["prompt", "first token", "answer", "decoding"]
    assert {"predicted", "roofline", "context", "seed", "ended by", "saved in"} <= set(names)


def test_a_full_context_is_seen_before_it_happens() -> None:
    """Every turn costs some 40 tokens here; the reserve is a quarter of the context."""
    options = (*GREEDY, "--ctx", "128")
    lines = notes(piped(*["tell a"] * 9, options=(*options, "--when-full", "stop"), code=1))
    warned = next(i for i, note in enumerate(lines) if note.startswith("the context is nearly"))
    refused = [note for note in lines if "/undo or /clear" in note]
    assert refused
    assert lines.index(refused[0]) > warned


def test_old_turns_go_and_the_system_prompt_stays() -> None:
    options = ("--ctx", "160", "--when-full", "drop", "--system", "Be brief.")
    found = events(*["tell a"] * 9, options=options)
    texts = "".join(event["text"] for event in of_kind("text", found))
    assert texts == ANSWERS["a"] * 9
    told = [note["text"] for note in of_kind("note", found)]
    assert told
    assert all("no longer sees the oldest" in text for text in told)
    assert max(prompts(found)) <= 160
    assert min(prompts(found)) >= len("Be brief.")


def test_an_answer_that_outgrows_the_context_goes_on_without_old_turns() -> None:
    """Nothing of it is lost or said twice."""
    found = events("tell a", "tell b", "tell m", options=("--ctx", "256", "--when-full", "drop"))
    texts = "".join(event["text"] for event in of_kind("text", found))
    assert texts == ANSWERS["a"] + ANSWERS["b"] + ANSWERS["m"]


def test_a_line_that_is_no_text_does_not_end_the_chat() -> None:
    run = piped("tell a", "\udcff", "tell b", code=1)
    assert any("not UTF-8" in note for note in notes(run))
    assert run.stdout == ANSWERS["a"] + "\n" + ANSWERS["b"] + "\n"


def test_one_prompt_is_answered_and_that_is_all() -> None:
    run = localspec("chat", talker(), *GREEDY, "-p", "tell a")
    assert (run.code, run.stdout) == (0, ANSWERS["a"] + "\n")
    run = localspec("chat", talker(), *GREEDY, "-p", "-", stdin=b"several\nlines\nb")
    assert (run.code, run.stdout) == (0, ANSWERS["b"] + "\n")
    assert localspec("chat", talker(), "-p", " ").code == 2
    run = localspec("chat", talker(), *GREEDY, "--ctx", "32", "-p", "x" * 64)
    assert run.code == 2
    assert run.stdout == ""


def test_events_for_programs() -> None:
    found = events('{"message": "two\\nlines a"}', '"tell t"', "tell b", "/nonsense", "/help")
    kinds = [event["event"] for event in found]
    assert kinds[0] == "loaded"
    assert kinds[-2:] == ["note", "table"]
    thoughts = [event["text"] for event in of_kind("text", found) if event["is_thought"]]
    said = [event["text"] for event in of_kind("text", found) if not event["is_thought"]]
    assert "".join(thoughts) == THOUGHT[len("<think>") : THOUGHT.index("</think>")]
    assert "".join(said) == ANSWERS["a"] + "It is forty-two." + ANSWERS["b"]
    answer = of_kind("answer", found)[0]
    assert answer["finish_reason"] == "stop"
    assert answer["n_context"] == answer["n_prompt"] + answer["n_tokens"]


def test_a_recurrent_model_can_talk_too() -> None:
    run = piped("aaa", "bbb", "/regen", model=mamba(), options=(*ANSWER, "-n", "4"))
    assert len(run.stdout.splitlines()) >= 3


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_generate_and_chat_ask_a_base_model_alike(system: str | None) -> None:
    """Paragraphs, each with an empty line behind it; `--raw` adds nothing."""
    asked = ("-p", "abc", "--temp", "0", "-n", "6", *(("--system", system) if system else ()))
    generated = localspec("generate", tiny(), *asked, "--json").document
    chatted = localspec("chat", tiny(), *asked, "--json-lines")
    lines = [json.loads(line) for line in chatted.stdout.splitlines()]
    text = "".join(event["text"] for event in of_kind("text", lines))
    answer = of_kind("answer", lines)[0]
    assert answer["n_prompt"] == generated["prompt_tokens"]
    assert text == generated["text"]
    if system is None:
        raw = localspec("generate", tiny(), *asked, "--raw", "--json").document
        spelled = localspec("generate", tiny(), *asked[2:], "-p", "abc\n\n", "--raw", "--json")
        assert raw["prompt_tokens"] == generated["prompt_tokens"] - 2
        assert spelled.document["tokens"] == generated["tokens"]
