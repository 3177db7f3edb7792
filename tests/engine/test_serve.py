"""The server on a real model: company changes no answer, and who leaves makes room."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from command import LOCALSPEC
from hybrids import LIMITED, write_random_limited
from models import smollm2
from scripted import Script, write_script
from serving import Served, events_of, served

from localspec.decode.generation import Generation
from localspec.engine.base import EngineConfig, hold, rows_of, shared_prefix
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.sampling import Purpose, Sampling, truncated, uniform
from localspec.model.synthetic import Shape, write_random_model
from localspec.serve.messages import END, Done, Event, Wishes
from localspec.serve.order import Orders
from localspec.serve.server import engine_thread_of
from localspec.session.session import Session
from localspec.session.session_config import USUAL_DEPTH, Depths, SessionConfig

PROMPTS = [
    "Name three colours.",
    "Repeat this list: apple, pear, plum, apple, pear, plum, apple, pear, plum.",
    "Why is the sky blue?",
    "Count from one to ten.",
]
GREEDY = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory, tested_home: Path) -> Iterator[Served]:
    """Four users with speculation by cost. What it learns of speed is its own."""
    home = tmp_path_factory.mktemp("served") / "home"
    shutil.copytree(tested_home, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALSPEC_HOME", str(home))
        config = SessionConfig.of(smollm2(), ctx=1024, n_sequences=4, kv_unified=True)
        with Session.open(config) as session, served(session, engine_thread_of(session)) as made:
            yield made


def answers(server: Served, bodies: list[dict[str, Any]]) -> list[Generation]:
    """The replies to requests that run at once."""
    orders = Orders(server.session)
    generations: list[Generation] = []
    ends = SimpleQueue[Event]()
    for body in bodies:
        order = orders.chat(body) if "messages" in body else orders.completion(body)
        choice = order.choices[0]
        generations.append(choice.generation)
        server.engine_thread.submit(
            choice.submit(server.engine_thread.new_id(), None, Wishes()),
            lambda event: ends.put(event) if isinstance(event, END) else None,
        )
    assert all(isinstance(ends.get(timeout=120), Done) for _ in bodies)
    return generations


def is_near_tie(server: Served, one: Generation, other: Generation) -> bool:
    """Whether two answers part where the choice is nearer than passes of other widths are.

    One row, a few and, from 64 on, libllama's flash attention take different kernels.
    """
    n, sampling = shared_prefix(one.history, other.history), one._sampling
    ways = [scored(server, one.history[:n], n_strangers) for n_strangers in (0, 3, 64)]
    if sampling.is_greedy:
        best = np.sort(ways[0][-1])[-2:]
        return bool(best[1] - best[0] <= 2 * spread(ways))
    curves = [[cumulative(row, sampling) for row in rows] for rows in ways]
    low, high = sorted((one.history[n], other.history[n]))
    borders = curves[0][-1][low:high]
    number = uniform(sampling.seed, n, Purpose.TOKEN)
    return bool(np.abs(borders - number).min() <= 2 * spread(curves))


def scored(server: Served, text: list[int], n_strangers: int) -> list[np.ndarray]:
    """The logits after each of the last tokens, read one a pass beside strangers' rows."""
    engine = server.engine.sibling(server.engine.config.with_settings(n_sequences=2))
    try:
        context, stranger = engine.context(), engine.context()
        hold(context, text[:-N_SCORED], 0)
        rows = []
        for token in text[-N_SCORED:]:
            company = [(stranger, [7] * n_strangers, 0)] if n_strangers else []
            passed = engine.decode([(context, [token], 1), *company])
            rows.append(rows_of(passed[0]).row(0).copy())
        return rows
    finally:
        engine.close()


N_SCORED = 8


def spread(ways: list[list[np.ndarray]]) -> float:
    """The most by which two ways to score the same tokens differ."""
    steps = [np.stack(step) for step in zip(*ways, strict=True)]
    return max(float(np.ptp(step, axis=0).max()) for step in steps)


def cumulative(row: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Of all ids in order."""
    found = truncated(row, sampling)
    chances = np.zeros(len(row))
    chances[found.ids] = found.probabilities
    return chances.cumsum()


def asked(text: str, **how: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **how}


@pytest.mark.parametrize("n_users", [2, 4])
@pytest.mark.parametrize("how", [GREEDY, {"temperature": 0.7, "seed": 11, "max_tokens": 24}])
def test_company_changes_no_answer(starter: Served, n_users: int, how: dict[str, Any]) -> None:
    """By the rule of the same answer: they part only where rounding decides."""
    bodies = [asked(prompt, **how) for prompt in PROMPTS[:n_users]]
    alone = [answers(starter, [body])[0] for body in bodies]
    together = answers(starter, bodies)
    assert len({tuple(each.tokens) for each in alone}) == n_users
    for a, b in zip(alone, together, strict=True):
        assert a.tokens == b.tokens or is_near_tie(starter, a, b)


def test_the_next_turn_reads_its_new_tokens_only(starter: Served) -> None:
    said = [{"role": "user", "content": "Tell me a long story about a fox. " * 8}]
    first = starter.post("/chat/completions", messages=said, **GREEDY)[1]
    answer = first["choices"][0]["message"]["content"]
    said += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Go on."}]
    second = starter.post("/chat/completions", messages=said, **GREEDY)[1]
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached >= first["usage"]["prompt_tokens"]
    assert second["timings"]["prompt_n"] == second["usage"]["prompt_tokens"] - cached


def test_drafts_are_accounted_for(starter: Served) -> None:
    """Copying is where lookups pay; whatever was decided, the figures agree."""
    timings = starter.chat(PROMPTS[1], **GREEDY)["timings"]
    assert 0 <= timings["draft_n_accepted"] <= timings["draft_n"]
    n_said = timings["predicted_n"]
    assert timings["passes"] >= n_said - timings["draft_n_accepted"]


def test_who_leaves_makes_room(starter: Served) -> None:
    """A hundred clients that hang up must leave no sequence behind."""
    body = json.dumps({"messages": [{"role": "user", "content": "Tell a story."}], "stream": True})
    for i in range(24):
        connection = http.client.HTTPConnection("127.0.0.1", starter.port, timeout=30)
        connection.request("POST", "/chat/completions", body)
        if i % 3:
            connection.getresponse().read1(64)
        connection.close()
    starter.wait_until_idle()
    assert starter.engine_thread.scheduler._prefixes.n_free == 4
    engine = starter.engine_thread.scheduler._engine
    for context in engine._contexts:
        assert engine.memory.length(context.sequence) == len(context.tokens)
    assert starter.chat(PROMPTS[0], **GREEDY)


def test_openais_own_client_reads_it(starter: Served) -> None:
    openai = pytest.importorskip("openai", reason="OpenAI's client is not installed")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{starter.port}/v1", api_key="none") as client:
        said: Any = [{"role": "user", "content": PROMPTS[0]}]
        whole = client.chat.completions.create(model="any", messages=said, **GREEDY)
        parts = client.chat.completions.create(
            model="any", messages=said, stream=True, stream_options={"include_usage": True},
            **GREEDY,
        )  # fmt: skip
        chunks = list(parts)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage or chunks[-1].usage.total_tokens > 0
        assert [model.id for model in client.models.list()] == ["tiny"]
        done = client.completions.create(model="any", prompt="The sky is", **GREEDY)
        assert done.choices[0].text
        with pytest.raises(openai.BadRequestError, match="temperature"):
            client.chat.completions.create(model="any", messages=said, temperature=-1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaEngine]:
    path = tmp_path_factory.mktemp("models") / "random.gguf"
    write_random_model(path, Shape(), "F16")
    config = EngineConfig.of(path, 8, ctx=256, threads=1, n_sequences=3, kv_unified=True, ubatch=64)
    made = LlamaEngine(config)
    yield made
    made.close()


def test_forked_sequences_share_what_they_hold_and_go_their_own_ways(engine: LlamaEngine) -> None:
    """A shared system prompt is read once; what one forgets or adds is nobody else's."""
    first, second = engine.context(), engine.context()
    text = list(range(5, 45))
    hold(first, text, 1)
    n_before = engine.busy_s
    second.fork(first, 30)
    assert engine.busy_s == n_before, "nothing was evaluated"
    assert second.tokens == text[:30]
    forked = hold(second, [*text[:30], 9, 8, 7], 1).row(0).copy()
    first.go_back(10)
    after = hold(second, [*text[:30], 9, 8, 7, 6], 1).row(0).copy()
    fresh = engine.context()
    assert np.abs(hold(fresh, [*text[:30], 9, 8, 7], 1).row(0) - forked).max() < 0.1
    assert np.abs(hold(fresh, [*text[:30], 9, 8, 7, 6], 1).row(0) - after).max() < 0.1
    assert first.tokens == text[:10]


def test_uneven_widths_beside_a_prompt_are_one_pass(engine: LlamaEngine) -> None:
    contexts = engine._contexts
    for context in contexts:
        context.go_back(0)
    engine.decode([(context, [1, 2, 3], 1) for context in contexts])
    before = engine.memory.n_flushes
    widths = [(4, 4), (1, 1), (20, 0)]
    engine.decode([(c, [5] * n, wanted) for c, (n, wanted) in zip(contexts, widths, strict=True)])
    assert engine.memory.n_flushes == before + 1


@pytest.mark.parametrize("name", LIMITED)
def test_memories_that_cannot_roll_back_freely_serve_several_users(
    name: str, tmp_path: Path
) -> None:
    """Recurrent, hybrid and windowed models take chunks, drafts and turns of many, too."""
    path = write_random_limited(tmp_path / "model.gguf", name)
    config = SessionConfig.of(path, ctx=512, spec="lookup", n_sequences=3, kv_unified=True)
    with Session.open(config) as session, served(session, engine_thread_of(session)) as server:
        asked_ = [{"prompt": prompt, **GREEDY} for prompt in ("the cat", "1 2 3 1 2 3 1", "x" * 70)]
        assert all(_text(server, body) for body in asked_)
        alone = [answers(server, [body])[0] for body in asked_]
        for one, other in zip(alone, answers(server, asked_), strict=True):
            assert one.tokens == other.tokens or is_near_tie(server, one, other)
        again = {**asked_[2], "prompt": asked_[2]["prompt"] + " and on"}
        assert _text(server, again) == _text(server, again)
        server.wait_until_idle()


def _text(server: Served, body: dict[str, Any]) -> str:
    status, document = server.post("/v1/completions", **body)
    assert status == 200, document
    return document["choices"][0]["text"]


def test_thoughts_and_tool_calls_are_fields_of_their_own(tmp_path: Path) -> None:
    """Front ends fold thoughts and run calls; a call that nobody asked for is text."""
    template = (
        "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}{# <think> <tool_call> #}<|gen|>"
    )
    pieces = [
        "<think>", "hm ", "well", "</think>", "\n\nLook:\n", "<tool_call>", '\n{"name": ',
        '"get_weather", ', '"arguments": {', '"city": "Paris"}}', "\n</tool_call>",
    ]  # fmt: skip
    path = write_script(tmp_path / "tools.gguf", Script(pieces, template))
    config = SessionConfig.of(path, ctx=512, n_sequences=2, kv_unified=True)
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
    with Session.open(config) as session, served(session, engine_thread_of(session)) as server:
        choice = server.chat("x", tools=tools, temperature=0)["choices"][0]
        message = choice["message"]
        assert message["reasoning_content"] == "hm well"
        assert message["content"].strip() == "Look:"
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"]
        assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}
        assert choice["finish_reason"] == "tool_calls"
        body = {"messages": [{"role": "user", "content": "x"}], "tools": tools, "stream": True}
        chunks = events_of(server.ask("POST", "/chat/completions", body)[1])
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "hm well"
        (called,) = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
        assert (called["index"], called["function"]["name"]) == (0, "get_weather")
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
        plain = server.chat("x", temperature=0)["choices"][0]
        assert "<tool_call>" in plain["message"]["content"]
        assert plain["finish_reason"] == "stop"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_command_serves_until_it_is_told_to_stop(localspec_home: Path, number: int) -> None:
    """The line that says it is ready is what scripts wait for; each signal lets a stream end."""
    command = [LOCALSPEC, "serve", "--port", "0", "--parallel", "2", "--ctx", "512",
               "--spec", "none", "--alias", "mine"]  # fmt: skip
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ.copy()
    ) as server:
        assert server.stderr
        assert server.stdout
        ready = next(line for line in server.stderr if "answers at" in line)
        assert "mine answers at http://127.0.0.1:" in ready
        port = int(ready.partition("127.0.0.1:")[2].partition("/")[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        body = {"messages": [{"role": "user", "content": PROMPTS[2]}], "stream": True, **GREEDY}
        connection.request("POST", "/chat/completions", json.dumps(body))
        answer = connection.getresponse()
        server.send_signal(number)
        time.sleep(0.05)
        chunks = events_of(answer.read().decode())
        assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        connection.close()
        assert "closing" in server.stderr.read()
        assert server.stdout.read() == ""
        assert server.wait(30) == 0
    depths = Depths.kept(smollm2()).load()
    assert depths
    assert depths.n_tokens >= 24
    assert depths.expected(1).depth < USUAL_DEPTH


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"enum": ["red"]}}}},
        {"json_schema": {"type": "integer", "minimum": 1, "maximum": 9}},
        {"grammar": 'root ::= "[" [0-9] "]"'},
        {"regex": "true|false"},
    ],
    ids=str,
)
def test_answers_keep_what_was_asked_for(starter: Served, asked: dict[str, Any]) -> None:
    """Also in company of one that is free."""
    free = {"messages": [{"role": "user", "content": PROMPTS[1]}], **GREEDY}
    bound = {"messages": [{"role": "user", "content": "Answer in JSON."}], **asked}
    replies = answers(starter, [free, {**bound, "max_tokens": 200, "seed": 1}, free])
    text = b"".join(map(starter.session.target.vocabulary.piece, replies[1].tokens))
    if replies[1].finish_reason == "stop":
        json.loads(text)
    assert text
    assert replies[0].finish_reason in {"stop", "length"}


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted on Linux")
def test_the_thread_that_loaded_keeps_no_workers(tested_home: Path) -> None:
    """Else the server's own thread and its workers would be more than cores, and slow."""
    code = f"""
from os import listdir
from pathlib import Path
from localspec.session.session_config import SessionConfig
from localspec.session.reply_options import reply_options
from localspec.session.session import Session
config = SessionConfig.of(Path({str(smollm2())!r}), ctx=256, threads=2, spec="none", gpu_layers=0)
with Session.open(config) as session:
    session.reply(session.raw_prompt("a"), reply_options(max_tokens=2)).finish()
    n = len(listdir("/proc/self/task"))
    session.leave_thread()
    print(n - len(listdir("/proc/self/task")))
"""
    environment = {**os.environ, "LOCALSPEC_HOME": str(tested_home)}
    words = [sys.executable, "-c", code]
    found = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"


def test_a_model_whose_template_knows_no_tools_calls_them(starter: Served) -> None:
    function = {"name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"],
    }}  # fmt: skip
    how = {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    (choice,) = starter.chat("What is the weather in Rome?", temperature=0, **how)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")


def test_an_answer_that_was_begun_goes_on(starter: Served) -> None:
    """A whole answer, and what goes on behind its beginning, are the same text."""
    asked = {"role": "user", "content": PROMPTS[0]}
    whole = starter.chat(PROMPTS[0], **GREEDY)["choices"][0]["message"]["content"]
    begun = whole[: whole.index(" ", 8)]
    body = {"model": "x", "messages": [asked, {"role": "assistant", "content": begun}], **GREEDY}
    status, document = starter.post("/v1/chat/completions", **body)
    rest = document["choices"][0]["message"]["content"]
    assert (status, (begun + rest).startswith(whole[: len(begun) + 12])) == (200, True)
