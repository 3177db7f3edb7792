"""The clients that others wrote: every field, whole and streamed, and errors as their classes."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from serving import Served, fake_server

openai = pytest.importorskip("openai", reason="OpenAI's client is not installed")
anthropic = pytest.importorskip("anthropic", reason="Anthropic's client is not installed")
pytestmark = pytest.mark.slow

HELLO: Any = [{"role": "user", "content": "Hello"}]
EVERY_FIELD: dict[str, Any] = {
    "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["zz"], "n": 2, "max_completion_tokens": 5,
    "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "logprobs": False,
    "top_logprobs": 0, "response_format": {"type": "text"}, "tools": [], "tool_choice": "none",
    "parallel_tool_calls": True, "reasoning_effort": "low", "user": "me", "metadata": {"a": "b"},
    "store": False, "service_tier": "auto", "prompt_cache_key": "k", "safety_identifier": "s",
    "verbosity": "low", "modalities": ["text"],
    "extra_body": {
        "top_k": 20, "min_p": 0.1, "repeat_penalty": 1.1, "repetition_penalty": 1.1, "n_predict": 5,
        "chat_template_kwargs": {"enable_thinking": False}, "ignore_eos": True, "min_tokens": 0,
        "cache_prompt": False, "id_slot": -1, "n_probs": 0, "return_progress": False,
        "timings_per_token": True,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with fake_server(n_waiting=16) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="k") as made:
        yield made


@pytest.fixture(scope="module")
def claude(server: Served) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key="k") as made:
        yield made


def test_openais_chat_takes_every_field_whole_and_streamed(client: Any) -> None:
    whole = client.chat.completions.create(model="any", messages=HELLO, **EVERY_FIELD)
    assert [choice.finish_reason for choice in whole.choices] == ["length", "length"]
    assert whole.usage.completion_tokens == 10
    parts = client.chat.completions.create(
        model="any", messages=HELLO, stream=True, stream_options={"include_usage": True},
        **EVERY_FIELD,
    )  # fmt: skip
    texts, last = ["", ""], None
    for chunk in parts:
        last = chunk
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            assert "timings" in chunk.model_extra or not choice.delta.content
    assert texts == [choice.message.content for choice in whole.choices]
    assert last is not None
    assert last.usage.completion_tokens == 10


def test_openais_helpers_read_streams_and_schemas(client: Any) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    how: Any = {"model": "any", "messages": HELLO, "temperature": 0}
    whole = client.chat.completions.create(**how, max_tokens=9).choices[0].message.content
    with client.chat.completions.stream(**how, stop=[whole[4:6]]) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == whole[: whole.index(whole[4:6])]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            model="any", messages=HELLO, response_format={**schema, "type": "xml"}
        )


def test_openais_completions_and_models(client: Any) -> None:
    done = client.completions.create(
        model="any", prompt=["ab", "cd"], max_tokens=3, temperature=0, echo=True, n=1,
        best_of=1, logprobs=None, suffix=None,
    )  # fmt: skip
    assert [len(choice.text) for choice in done.choices] == [5, 5]
    parts = client.completions.create(model="any", prompt="ab", max_tokens=3, stream=True)
    assert len("".join(chunk.choices[0].text for chunk in parts)) == 3
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_openais_responses_whole_and_streamed(client: Any) -> None:
    how = {"model": "any", "input": "Hello", "max_output_tokens": 4, "temperature": 0}
    more: Any = {"metadata": {"a": "b"}, "store": False, "reasoning": {"effort": "low"}}
    whole = client.responses.create(**how, instructions="Be brief.", **more)
    assert (len(whole.output_text), whole.status) == (4, "incomplete")
    assert whole.usage.output_tokens == 4
    with client.responses.stream(**how, instructions="Be brief.") as stream:
        said = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
    assert said == whole.output_text
    again: Any = [{"role": "user", "content": "Hello"}, *whole.output, *HELLO]
    assert client.responses.create(**{**how, "input": again}).output_text


def test_errors_are_the_classes_of_the_clients(client: Any, claude: Any, server: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="any", messages=HELLO, temperature=-1)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with pytest.raises(openai.BadRequestError, match="keeps no responses"):
        client.responses.create(model="any", input="x", previous_response_id="resp_1")
    with pytest.raises(openai.InternalServerError, match="no embeddings"):
        client.with_options(max_retries=0).embeddings.create(model="any", input="x")
    image = {"type": "base64", "media_type": "image/png", "data": "eA=="}
    said: Any = [{"role": "user", "content": [{"type": "image", "source": image}]}]
    with pytest.raises(anthropic.BadRequestError, match="image"):
        claude.messages.create(model="any", max_tokens=4, messages=said)
    with fake_server(keys=("secret",)) as closed:
        url = f"http://127.0.0.1:{closed.port}"
        with (
            pytest.raises(openai.AuthenticationError),
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong") as stranger,
        ):
            stranger.models.list()
        with (
            pytest.raises(anthropic.AuthenticationError),
            anthropic.Anthropic(base_url=url, api_key="wrong") as stranger,
        ):
            stranger.messages.create(model="any", max_tokens=4, messages=HELLO)


def test_anthropics_messages_whole_and_streamed(claude: Any) -> None:
    how: dict[str, Any] = {
        "model": "any", "max_tokens": 5, "messages": HELLO,
        "extra_body": {"temperature": 0, "top_k": 20, "top_p": 0.9},
        "system": [{"type": "text", "text": "Be brief."}], "stop_sequences": ["zz"],
        "metadata": {"user_id": "me"}, "thinking": {"type": "disabled"}, "service_tier": "auto",
        "tool_choice": {"type": "none"}, "cache_control": {"type": "ephemeral"},
    }  # fmt: skip
    whole = claude.messages.create(**how)
    assert (whole.content[0].type, whole.stop_reason) == ("text", "max_tokens")
    with claude.messages.stream(**how) as stream:
        said = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert said == whole.content[0].text == final.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens == 5
    counted = claude.messages.count_tokens(model="any", messages=HELLO, system=how["system"])
    n_prompt = whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    assert counted.input_tokens == n_prompt
    history = [*HELLO, {"role": "assistant", "content": whole.content}, *HELLO]
    assert claude.messages.create(**{**how, "messages": history}).content


def test_a_client_that_is_refused_comes_again(server: Served) -> None:
    """OpenAI's client obeys Retry-After, so a full queue costs its user time and no error."""
    with fake_server(n_sequences=1, n_waiting=0, pass_s=0.01) as full:
        with openai.OpenAI(base_url=f"http://127.0.0.1:{full.port}/v1", api_key="k") as client:
            how: Any = {"model": "any", "messages": HELLO, "max_tokens": 40}
            first = client.chat.completions.create(**how, stream=True)
            iterator = iter(first)
            next(iterator)
            whole = client.chat.completions.create(**how)
            assert len(whole.choices[0].message.content) == 40
            list(iterator)
            assert full.engine_thread.metrics.n_refused >= 1
        assert json.dumps(full.ask("GET", "/health")[1])
