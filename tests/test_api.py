"""The front door for Python: what a program may do with a model, and what it is told otherwise."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command import localspec as command
from command import tiny
from talking import talker

import localspec
from localspec import api
from localspec.dialogue.prompts import messages_of
from localspec.errors import UserError
from localspec.session.profile import Profile, TunedFor, save_profile
from localspec.session.reply import AsyncPieces
from localspec.session.reply_options import reply_options

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
HEAVY = ("numpy", "llama_cpp", "typer", "rich", "psutil", "jinja2", "asyncio")
engine = pytest.mark.engine


def in_python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def load(path: Path, **fields: Any) -> api.Model:
    return api.load(path, **({"draft": "none", "spec": "lookup", "threads": 1} | fields))


@pytest.fixture(scope="module")
def model(tested_home: Path) -> Iterator[api.Model]:
    """It answers nonsense, and never ends by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALSPEC_HOME", str(tested_home))
        with load(tiny()) as loaded:
            yield loaded


@pytest.fixture(scope="module")
def speaker(tested_home: Path) -> Iterator[api.Model]:
    """It says known answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALSPEC_HOME", str(tested_home))
        with load(talker()) as loaded:
            yield loaded


# The names


def test_importing_it_loads_nothing_heavy() -> None:
    code = f"import sys, localspec; print([name for name in {HEAVY} if name in sys.modules])"
    assert in_python(code).strip() == "[]"


def test_settings_and_errors_stay_light() -> None:
    code = (
        "import sys, localspec; localspec.Settings(); localspec.UserError;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert in_python(code).strip() == "[]"


def test_weights_load_before_what_predicts_and_computes_is_imported() -> None:
    """Those modules take a tenth of a second, in which libllama can load already."""
    late = (
        "numpy", "importlib.metadata", "localspec.forecast.machine", "localspec.engine.probe",
        "localspec.prediction.efficiency", "localspec.prediction.rates",
    )  # fmt: skip
    code = (
        "import sys, localspec.session.opening;"
        f"print([name for name in {late} if name in sys.modules])"
    )
    assert in_python(code).strip() == "[]"


def test_all_that_is_promised_can_be_imported_and_is_documented() -> None:
    assert localspec.__all__ == sorted(localspec.__all__)
    code = "from localspec import *; import localspec; print(*dir(localspec))"
    assert set(localspec.__all__) <= set(in_python(code).split())
    words = set(re.findall(r"\w+", PAGE))
    for name in localspec.__all__:
        assert name in words, name
        assert (getattr(api, name, None) or getattr(localspec, name)).__doc__, name


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="loda"):
        _ = localspec.loda  # type: ignore[attr-defined]


def test_functions_keep_their_names_whatever_is_imported() -> None:
    code = (
        "import localspec, localspec.cli.main, localspec.tuning.search, localspec.prediction.rates;"
        "print(callable(localspec.predict), callable(localspec.tune))"
    )
    assert in_python(code).split() == ["True", "True"]


# Keywords


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"temprature": 1}, "there is no keyword 'temprature': did you mean 'temperature'?"),
        ({"temperature": -1}, "temperature -1 is not a number from 0 to 100"),
        ({"temperature": float("nan")}, "temperature nan is not a number from 0 to 100"),
        ({"top_k": 1.5}, "top_k 1.5 is not a whole number of at least 0"),
        ({"max_tokens": True}, "max_tokens True is not a whole number of at least 0"),
        ({"seed": "1"}, "seed '1' is not a whole number"),
        ({"stop": 3}, "stop 3 is not a text or several"),
        ({"verify": "both"}, "verify 'both' is not one of auto, match, rejection"),
        ({"ignore_eos": 1}, "ignore_eos 1 is not true or false"),
        ({"sampling": 0.5}, "sampling 0.5 is not Sampling"),
        (
            {"schema": "{"},
            "the schema is no JSON: Expecting property name enclosed in double quotes:"
            " line 1 column 2 (char 1)",
        ),
        (
            {"regex": "("},
            'the regex cannot be kept: at 1(8): invalid regex "(" (in regex): regex parse error:'
            " unclosed group",
        ),
    ],
)
def test_a_wrong_keyword_is_a_sentence(keywords: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        reply_options(**keywords)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([{"role": "user"}], "no text"),
        ([{"role": "clerk", "content": "x"}], "no message"),
        ([{"role": "assistant", "tool_calls": [{}]}], "without a function's name"),
        ([{"role": "assistant", "tool_calls": 3}], "not iterable"),
    ],
)
def test_a_wrong_message_is_a_sentence(asked: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        messages_of(asked)


def test_a_call_and_its_result_go_back_to_the_model() -> None:
    """`Reply.tool_calls` has arguments as JSON; templates read them as an object."""
    function = {"name": "add", "arguments": '{"a": 1}'}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    asked: list[Any] = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "2"},
    ]
    said: list[Any] = list(messages_of(asked))
    assert said[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert said[2] == {"role": "tool", "content": "2"}


def test_settings_are_settings_and_no_draft_may_be_none() -> None:
    with pytest.raises(UserError, match="give its fields by name"):
        api.load(tiny(), settings={"ctx": 512})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--draft none"):
        api.load(tiny(), draft=None, spec="draft")


def test_without_a_seed_replies_differ_and_drafts_are_verified_by_rejection() -> None:
    one, two = reply_options(), reply_options()
    assert one.sampling.seed != two.sampling.seed
    assert (one.verify, reply_options(seed=0).verify) == ("rejection", "match")
    assert reply_options(verify="match").verify == "match"


def test_one_sampling_stands_for_its_keywords() -> None:
    base = localspec.Sampling(temperature=0.5, top_k=3, seed=7)
    assert reply_options(sampling=base).sampling == base
    assert reply_options(sampling=base, top_k=9).sampling == replace(base, top_k=9)
    assert reply_options(sampling=base).verify == "match"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"thread": 2}, ["'thread'", "'threads'"]),
        ({"threads": 0}, ["--threads 0"]),
        ({"spec": "fast"}, ["'fast'", "lookup"]),
        ({"ctx": 1}, ["--ctx 1"]),
        ({"spec": "draft", "draft": "none"}, ["--draft none"]),
    ],
)
def test_a_wrong_setting_is_a_sentence(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        api.load(tiny(), **fields)
    assert all(word in str(error.value) for word in words), error.value


def test_models_that_are_not_there() -> None:
    for name in ("no-such-model", "no/such/file.gguf"):
        with pytest.raises(localspec.LocalspecError, match=name):
            api.load(name)
    with pytest.raises(localspec.LocalspecError, match="no-such-draft"):
        api.load(tiny(), draft="no-such-draft")


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ({"dept": 0}, "there is no keyword 'dept': did you mean 'depth'?"),
        ({"depth": -1}, "depth -1 is not a number of tokens"),
        ({"depth": []}, "depth [] is not a number of tokens"),
        ({"batch": (1, 0)}, "batch 0 is not a number from 1 to 4096, nor 'auto'"),
        ({"accept": 1.5}, "accept 1.5 is not a number from 0 to 1"),
        ({"probe": "on"}, "probe 'on' is not one of auto, again, off"),
        ({"runs": 3}, "runs 3 is no file of results: give a path or several"),
    ],
)
def test_a_wrong_question_is_a_sentence(question: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        api.predict(tiny(), "RTX 4090", **question)
    assert str(error.value) == sentence


def test_a_prediction_is_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    from localspec.cli.main import run

    asked = {"depth": (0, 100), "batch": 2, "accept": 0.5, "kv_k": "q8_0", "ctx": 300}
    forecast = api.predict(tiny(), "RTX 4090", **asked)
    words = (
        "--device", "RTX 4090", "--depth", "0,100", "--batch", "2", "--accept", ".5",
        "--kv-k", "q8_0", "--ctx", "300", "--json",
    )  # fmt: skip
    assert run(["predict", str(tiny()), *words]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row.decode.mid for row in forecast.rows] == [row["decode_tps"]["mid"] for row in rows]
    assert [row.memory.total_bytes for row in forecast.rows] == [r["memory_bytes"] for r in rows]


def test_a_draft_may_be_a_path_as_for_load() -> None:
    by_path = api.predict(tiny(), "RTX 4090", depth=0, draft=tiny())
    by_name = api.predict(tiny(), "RTX 4090", depth=0, draft=str(tiny()))
    assert by_path.speculation
    assert by_path.rows == by_name.rows


def test_an_unknown_device_is_said() -> None:
    with pytest.raises(localspec.LocalspecError, match="RTX 9999"):
        api.predict(tiny(), "RTX 9999")


@pytest.mark.parametrize(
    ("keywords", "word"),
    [
        ({"goal": "beauty"}, "speed"),
        ({"budget": 0.5}, "0.5 s"),
        ({"budget": "long"}, "budget 'long'"),
        ({"max_quality_loss": -1}, "max_quality_loss -1"),
        ({"ctx": 1}, "--ctx 1"),
        ({"draft": 3}, "no model is called '3'"),
        ({"workers": "host:1"}, "--workers 'host:1' is not a list"),
        ({"draft": None, "budget": 0.5}, "0.5 s"),
    ],
)
def test_tuning_for_nothing_is_a_sentence(keywords: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        api.tune(tiny(), **keywords)


# Replies


@engine
def test_a_reply_has_its_text_tokens_and_figures(model: api.Model) -> None:
    reply = model.chat("a b a b", seed=1, max_tokens=12)
    assert (len(reply.tokens), reply.finish_reason) == (12, "length")
    assert reply.text
    assert reply.thought == ""
    assert reply.timings.ttft_s is not None
    assert reply.timings.decode_tps is not None
    assert reply.acceptance is None or 0 <= reply.acceptance <= 1
    assert model.chat("a b a b", seed=1, max_tokens=12).tokens == reply.tokens
    assert model.chat("a b a b", seed=reply.options.sampling.seed + 1, max_tokens=12).text


@engine
def test_the_drawn_seed_repeats_a_reply(model: api.Model) -> None:
    reply = model.chat("a b", max_tokens=12, verify="match")
    assert model.chat("a b", max_tokens=12, seed=reply.options.sampling.seed).text == reply.text


@engine
def test_pieces_are_the_text(speaker: api.Model) -> None:
    reply = speaker.stream("say b", temperature=0)
    pieces = list(reply)
    assert "".join(pieces) == reply.text == "Beta is the second one."
    assert all(pieces)
    assert reply.finish_reason == "stop"
    assert list(reply) == []


@engine
def test_reasoning_is_not_part_of_the_answer(speaker: api.Model) -> None:
    reply = speaker.chat("say t", temperature=0)
    assert reply.text == "It is forty-two."
    assert reply.thought == "First I wonder.\nThen I am sure of it."
    pieces = list(speaker.stream("say t", temperature=0))
    assert "".join(pieces) == reply.text
    whole = speaker.stream("say t", split_thought=False, temperature=0).finish()
    assert whole.text == f"<think>{reply.thought}</think>{reply.text}"
    assert whole.tokens == reply.tokens


@engine
def test_several_prompts_give_as_many_replies(model: api.Model) -> None:
    alone = [model.generate(prompt, seed=3, max_tokens=8).text for prompt in ("abc", "xyz")]
    both = model.generate(["abc", "xyz"], seed=3, max_tokens=8)
    assert [reply.text for reply in both] == alone
    assert model.generate([]) == []


@engine
def test_a_stop_text_and_messages(speaker: api.Model) -> None:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "say a"}]
    assert speaker.chat(messages, temperature=0, stop=" first").text == "Alpha is the"


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ("  ", "empty"),
        ([], "nothing to answer"),
        (3, "nothing to answer"),
        ([{"role": "robot", "content": "x"}], "robot"),
        ([{"role": "user"}], "None is no text"),
        ([{"role": "assistant", "content": "x", "thought": 3}], "the thought 3"),
        ("\ud800", "UTF-8"),
    ],
)
@engine
def test_what_is_no_message_is_a_sentence(model: api.Model, asked: Any, word: str) -> None:
    for ask in (model.chat, model.stream, model.astream):
        with pytest.raises(UserError, match=word):
            ask(asked)


@engine
@pytest.mark.parametrize("path", [tiny, talker], ids=["base model", "with a template"])
def test_the_command_line_gives_the_same_tokens(path: Any) -> None:
    arguments = ("-p", "a b a b", "-n", "24", "--seed", "5", "--threads", "1", "--spec", "lookup")
    document, raw_document = (
        command("generate", path(), *arguments, *more, "--json").document
        for more in ((), ("--raw",))
    )
    with load(path()) as loaded:
        reply = loaded.chat("a b a b", seed=5, max_tokens=24)
        raw = loaded.generate("a b a b", seed=5, max_tokens=24)
    assert reply.tokens == document["tokens"]
    assert raw.tokens == raw_document["tokens"]
    assert document["config"]["verify"] == reply.options.verify


# Leaving, closing, threads


@engine
def test_leaving_a_stream_leaves_the_model_usable(model: api.Model) -> None:
    expected = model.chat("a b", seed=1, max_tokens=8).text
    reply = model.stream("something else", seed=2)
    for _ in reply:
        break
    assert reply.finish_reason == "interrupted"
    assert reply.text
    assert model.chat("a b", seed=1, max_tokens=8).text == expected


@engine
def test_one_reply_at_a_time(model: api.Model) -> None:
    first = iter(model.stream("one", seed=1))
    next(first)
    with pytest.raises(UserError, match="busy with another reply"):
        model.chat("two", max_tokens=2)
    assert next(first)
    del first
    assert model.chat("two", max_tokens=2, ignore_eos=True).finish_reason == "length"


@engine
def test_stop_ends_a_reply_from_another_thread(model: api.Model) -> None:
    reply = model.stream("one", seed=1)
    threading.Timer(0.2, reply.stop).start()
    assert reply.finish().finish_reason == "interrupted"
    assert model.chat("two", max_tokens=2, ignore_eos=True).finish_reason == "length"


@engine
def test_a_thread_may_do_it_all() -> None:
    """Signals belong to the main thread, and nothing here may need them."""
    found: list[Any] = []

    def work() -> None:
        try:
            with load(tiny()) as loaded:
                list(loaded.stream("a", max_tokens=4))
                found.append(loaded.chat("a", max_tokens=4, ignore_eos=True).finish_reason)
        except BaseException as error:  # noqa: BLE001 - compared below
            found.append(error)

    handler = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == ["length"]
    assert signal.getsignal(signal.SIGINT) == handler


@engine
def test_a_stream_that_another_thread_closes_leaves_ctrl_c_alone(model: api.Model) -> None:
    handler = signal.getsignal(signal.SIGINT)
    pieces = iter(model.stream("a", seed=1))
    next(pieces)
    thread = threading.Thread(target=pieces.close)
    thread.start()
    thread.join()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert model.chat("a", max_tokens=2, ignore_eos=True).finish_reason == "length"
    assert signal.getsignal(signal.SIGINT) == handler


@engine
def test_ctrl_c_ends_a_stream_and_raises_in_chat(model: api.Model) -> None:
    reply = model.stream("a", seed=1)
    for n, _ in enumerate(reply):
        if n == 3:
            os.kill(os.getpid(), signal.SIGINT)
    assert reply.finish_reason == "interrupted"
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        model.chat("a", seed=1)
    assert model.chat("a", max_tokens=2, ignore_eos=True).finish_reason == "length"


@engine
def test_closing_twice_and_use_after_it() -> None:
    loaded = load(tiny())
    late, running = loaded.stream("a"), loaded.stream("b", seed=1)
    pieces = iter(running)
    next(pieces)
    loaded.close()
    loaded.close()
    assert list(pieces) == []
    assert running.finish_reason == "interrupted"
    uses = (loaded.chat, loaded.stream, loaded.astream, loaded.generate)
    for use in (*(lambda use=use: use("a") for use in uses), loaded.predict, lambda: list(late)):
        with pytest.raises(UserError, match=r"^the model is closed: load it again$"):
            use()


@engine
def test_closing_waits_for_the_pass_of_another_thread() -> None:
    loaded = load(tiny())
    reply = loaded.stream("a", seed=1)
    thread = threading.Thread(target=reply.finish)
    thread.start()
    while not reply.tokens:
        time.sleep(0.01)
    loaded.close()
    thread.join()
    assert reply.finish_reason == "interrupted"


# asyncio


@engine
def test_pieces_come_while_other_tasks_run(speaker: api.Model) -> None:
    async def main() -> tuple[str, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(tick())
        text = "".join([piece async for piece in speaker.astream("say s", temperature=0)])
        other.cancel()
        return text, ticks

    text, ticks = asyncio.run(main())
    assert text == speaker.chat("say s", temperature=0).text
    assert ticks > 10


@engine
def test_cancelling_a_task_stops_generation(model: api.Model) -> None:
    async def main() -> AsyncPieces:
        pieces = model.astream("a", seed=1)

        async def read() -> None:
            async for _ in pieces:
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        model.chat("at once", max_tokens=1)
        return pieces

    reply = asyncio.run(main()).reply
    n = len(reply.tokens)
    assert reply.finish_reason == "interrupted"
    assert n > 0
    time.sleep(0.1)
    assert len(reply.tokens) == n


@engine
def test_leaving_an_async_loop_leaves_the_model_usable(model: api.Model) -> None:
    async def main() -> str | None:
        async for _ in model.astream("a", seed=1):
            break
        return model.chat("at once", max_tokens=2).finish_reason

    assert asyncio.run(main()) == "length"


@engine
def test_errors_of_the_thread_reach_the_task(model: api.Model) -> None:
    async def main() -> None:
        first = iter(model.stream("a", seed=1))
        next(first)
        with pytest.raises(UserError, match="busy"):
            await anext(model.astream("b"))

    asyncio.run(main())


# Profiles


@engine
def test_what_tune_kept_is_used_but_for_what_is_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    circumstances = TunedFor.now()
    save_profile(
        tiny(),
        Profile("tiny", "2026-01-01", 512, "speed", circumstances, {"kv_k": "q8_0", "ubatch": 64}),
    )
    caplog.set_level("INFO", "localspec")
    settings = localspec.Settings(ubatch=128)
    with load(tiny()) as tuned, load(tiny(), settings=settings) as given:
        found = [model.session.plan.settings for model in (tuned, given)]
        assert [settings.kv_k for settings in found] == ["q8_0", "q8_0"]
        assert [settings.ubatch for settings in found] == [64, 128]
    with load(tiny(), profile=False) as plain, load(tiny(), kv_k="f16") as other:
        assert plain.session.plan.settings.kv_k == other.session.plan.settings.kv_k == "f16"
    assert any("tuned 2026-01-01" in record.message for record in caplog.records)


@engine
def test_tuning_returns_what_it_kept() -> None:
    profile = api.tune(tiny(), budget=3, ctx=256, draft="none")
    low, mid, high = profile.ratio
    assert low <= mid <= high
    assert profile.seconds <= 6
    shown = command("tune", tiny(), "--show", "--json").document
    assert shown["ratio"] == {"low": low, "mid": mid, "high": high}
    assert shown["seconds"] == profile.seconds


@engine
def test_a_model_predicts_its_own_speed(model: api.Model) -> None:
    forecast = model.predict(depth=0, device="RTX 4090")
    (row,) = forecast.rows
    assert (row.cache.kv_k, row.depth) == ("f16", 0)
    assert row.decode.low <= row.decode.mid <= row.decode.high
