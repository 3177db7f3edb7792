"""llama.cpp's addresses, and completions without a template: what its clients send and read."""

from collections.abc import Iterator
from typing import Any

import pytest
from fakes import FakeVocabulary
from serving import Served, data_of, events_of, fake_server

from localspec.decode.logprobs import TokenLogprobs
from localspec.engine.vocabulary import FimTokens
from localspec.serve.protocols import TokenTexts

FEW = {"n_predict": 6, "temperature": 0}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with fake_server() as made:
        yield made


def test_a_completion_says_how_it_was_made_and_why_it_stopped(server: Served) -> None:
    status, whole = server.post("/completion", prompt="abc", return_tokens=True, seed=5, **FEW)
    assert status == 200
    assert (len(whole["content"]), len(whole["tokens"])) == (6, 6)
    assert (whole["stop"], whole["stop_type"], whole["truncated"]) == (True, "limit", False)
    assert whole["generation_settings"]["n_predict"] == 6
    assert whole["generation_settings"]["seed"] == 5
    assert (whole["tokens_evaluated"], whole["tokens_predicted"]) == (3, 6)
    text = whole["content"]
    cut = server.post("/completion", prompt="abc", stop=[text[3:5]], **FEW)[1]
    assert (cut["stop_type"], cut["stopping_word"]) == ("word", text[3:5])
    assert cut["content"] == text[: text.index(text[3:5])]
    assert server.post("/completions", prompt="abc", **FEW)[1]["content"] == text
    assert server.post("/completions", prompt="abc", max_tokens=1, model="any")[1]["choices"]
    assert "content" in server.post("/completions", prompt="abc", max_tokens=1)[1]


def test_a_reply_that_fills_the_context_says_that_it_was_cut(server: Served) -> None:
    whole = server.post("/completion", prompt=[1] * 500, temperature=0)[1]
    assert (whole["truncated"], whole["stop_type"]) == (True, "limit")
    assert whole["tokens_predicted"] == 512 - 500 + 1


def test_chances_behind_all_filters_are_those_that_the_token_was_drawn_by(server: Served) -> None:
    how = {"prompt": "abc", "n_predict": 4, "n_probs": 9, "seed": 3, "top_k": 3, "min_p": 0}
    drawn = server.post("/completion", **how, post_sampling_probs=True)[1]
    own = server.post("/completion", **how)[1]
    assert drawn["content"] == own["content"]
    for each, plain in zip(drawn["completion_probabilities"], own["completion_probabilities"],
                           strict=True):  # fmt: skip
        assert len(each["top_probs"]) <= 3 < len(plain["top_logprobs"])
        assert sum(top["prob"] for top in each["top_probs"]) == pytest.approx(1)
        assert each["prob"] in [top["prob"] for top in each["top_probs"]]


def test_end_tokens_that_are_never_chosen_are_told_as_such(server: Served) -> None:
    found = server.post("/completion", prompt="abc", ignore_eos=True, logit_bias=[[3, 0.5]], **FEW)
    biases = found[1]["generation_settings"]["logit_bias"]
    assert {"token": 3, "bias": 0.5} in biases
    assert [each["bias"] for each in biases].count(None) == len(server.engine.vocabulary.eog)
    plain = server.post("/completion", prompt="abc", **FEW)[1]
    assert plain["generation_settings"]["logit_bias"] == []


@pytest.mark.parametrize("stream", [False, True])
def test_the_prompt_as_the_model_read_it_is_told_on_request(server: Served, stream: bool) -> None:
    said = {"messages": [{"role": "user", "content": "abc"}], "max_tokens": 2, "stream": stream}
    for verbose in (True, False):
        text = server.ask("POST", "/chat/completions", {**said, "verbose": verbose})[1]
        last = events_of(text)[-1] if stream else text
        assert ("__verbose" in last) == verbose
        if verbose:
            seen = last["__verbose"]
            assert len(seen["prompt"]) == seen["tokens_evaluated"], "a letter each"
            assert seen["generation_settings"]["n_predict"] == 2


def test_a_stream_of_it_tells_tokens_and_ends_with_the_whole(server: Served) -> None:
    body = {"prompt": "abc", "stream": True, "timings_per_token": True, **FEW}
    *parts, end = data_of(server.ask("POST", "/completion", body)[1])
    whole = server.post("/completion", prompt="abc", return_tokens=True, **FEW)[1]
    assert "".join(part["content"] for part in parts) == whole["content"]
    assert [token for part in parts for token in part["tokens"]] == whole["tokens"]
    assert [part["timings"]["predicted_n"] for part in parts] == [1, 2, 3, 4, 5, 6]
    assert (end["stop"], end["content"], end["stop_type"]) == (True, "", "limit")


def test_several_prompts_have_a_list_of_answers(server: Served) -> None:
    prompts = ["ab", [1, 2], [1, "b"], {"prompt_string": "ab"}]
    found = server.post("/completion", prompt=prompts, **FEW)[1]
    assert [each["index"] for each in found] == [0, 1, 2, 3]
    assert found[0]["content"] == found[3]["content"]
    only = server.post("/completion", prompt="ab", response_fields=["content", "timings/cache_n"],
                       **FEW)[1]  # fmt: skip
    assert only.keys() == {"content", "timings/cache_n"}


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_is_the_prompt_before_the_answer(server: Served, stream: bool) -> None:
    how = {"prompt": [0, 1, 2], "max_tokens": 4, "temperature": 0}
    plain = server.post("/v1/completions", **how)[1]["choices"][0]["text"]
    if stream:
        events = events_of(
            server.ask("POST", "/v1/completions", {**how, "echo": True, "stream": True})[1]
        )
        text = "".join(event["choices"][0]["text"] for event in events)
    else:
        text = server.post("/v1/completions", echo=True, **how)[1]["choices"][0]["text"]
    assert text == "abc" + plain
    status, document = server.post("/v1/completions", echo=True, logprobs=1, **how)
    assert status == 400, "who asks for a prompt's chances must not take the reply's for them"
    assert "logprobs" in document["error"]["message"]


def test_how_a_prompt_is_read_is_told_on_request(server: Served) -> None:
    body = {"prompt": "b" * 200, "stream": True, "max_tokens": 2, "temperature": 0}
    wanted = {**body, "return_progress": True, "cache_prompt": False}
    events = events_of(server.ask("POST", "/v1/completions", wanted)[1])
    told = [event["prompt_progress"] for event in events if "prompt_progress" in event]
    assert [(each["processed"], each["total"]) for each in told] == [
        (0, 200), (64, 200), (128, 200), (192, 200), (200, 200)
    ]  # fmt: skip
    times = [each["time_ms"] for each in told]
    assert times == sorted(times)
    again = events_of(server.ask("POST", "/v1/completions", {**body, "return_progress": True})[1])
    first = again[0]["prompt_progress"]
    assert first["cache"] == first["processed"] == 199, "the last token is evaluated in any case"
    assert "prompt_progress" not in str(events_of(server.ask("POST", "/v1/completions", body)[1]))


def test_a_prompt_is_read_anew_where_that_is_wanted(server: Served) -> None:
    how = {"prompt": "c" * 50, "max_tokens": 1}
    server.post("/v1/completions", **how)
    assert server.post("/v1/completions", **how)[1]["timings"]["cache_n"] == 49
    whole = server.post("/v1/completions", cache_prompt=False, **how)[1]
    assert (whole["timings"]["cache_n"], whole["timings"]["prompt_n"]) == (0, 50)


def test_a_middle_is_asked_for_with_the_marks_of_the_model(server: Served) -> None:
    body = {"input_prefix": "ab", "input_suffix": "cd", "prompt": "e", **FEW}
    status, document = server.post("/infill", **body)
    assert (status, "no tokens for filling" in document["error"]["message"]) == (400, True)
    status, document = server.post("/v1/completions", prompt="ab", suffix="cd", max_tokens=2)
    assert (status, document["error"]["param"]) == (400, "suffix")
    server.engine.vocabulary.fim = FimTokens(5, 6, 7, 3, 4)
    try:
        # Marks are the letters f, g and h; d is a repository's, e a file's.
        around = ["f", *_letters("ab"), "g", *_letters("cd"), "h"]
        plain = server.post("/infill", **body)[1]["prompt"]
        assert plain == "".join([*around, *_letters("e")])
        extra = [{"filename": "b", "text": "a"}]
        whole = server.post("/infill", input_extra=extra, **body)[1]["prompt"]
        files = ["d", *_letters("project\n"), "e", *_letters("b\na"), "e", *_letters("file\n")]
        assert whole == "".join([*files, plain])
        done = server.post("/v1/completions", prompt="ab", suffix="cd", echo=True, max_tokens=0)
        assert done[1]["choices"][0]["text"] == "".join(around)
        for wrong in ({}, {"filename": "ok"}, {"filename": 1, "text": "a"}, {"text": 5}):
            status, document = server.post("/infill", **{**body, "input_extra": [wrong]})
            assert (status, "input_extra[0]" in document["error"]["message"]) == (400, True)
    finally:
        server.engine.vocabulary.fim = None


def _letters(text: str) -> str:
    """A text as the fake's vocabulary of eight letters says it."""
    return "".join(chr(97 + ord(c) % 8) for c in text)


def test_texts_become_tokens_and_back(server: Served) -> None:
    ids = server.post("/tokenize", content="abc", add_special=True)[1]["tokens"]
    assert ids == [1, 2, 3]
    pieces = server.post("/tokenize", content="ab", with_pieces=True)[1]["tokens"]
    assert pieces == [{"id": 1, "piece": "b"}, {"id": 2, "piece": "c"}]
    assert server.post("/detokenize", tokens=[0, 1])[1] == {"content": "ab"}
    for path, body in (("/detokenize", {"tokens": [99]}), ("/tokenize", {"content": 5})):
        assert server.post(path, **body)[0] == 400


def test_what_the_server_is(server: Served) -> None:
    props = server.ask("GET", "/props")[1]
    assert (props["total_slots"], props["default_generation_settings"]["n_ctx"]) == (2, 512)
    with fake_server(defaults={"seed": 42, "temperature": 0.1}) as other:
        params = other.ask("GET", "/props")[1]["default_generation_settings"]["params"]
        assert (params["seed"], params["temperature"]) == (42, 0.1)
    said = [{"role": "user", "content": "Hi"}]
    assert server.post("/apply-template", messages=said)[1] == {"prompt": "Hi\n\n"}
    for path in ("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"):
        assert server.post(path, messages=said)[1]["input_tokens"] == 4
    assert server.post("/v1/responses/input_tokens", input="Hi")[1]["input_tokens"] == 4


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embedding", "/rerank"])
def test_what_is_not_here_is_a_sentence(server: Served, path: str) -> None:
    status, document = server.post(path, input="x")
    assert (status, document["error"]["type"]) == (501, "not_supported_error")
    assert "llama-server" in document["error"]["message"]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"prompt": {"prompt_string": "a", "multimodal_data": ["x"]}}, "multimodal_data"),
        ({"mirostat": 2}, "mirostat"),
        ({"n_keep": 8}, "a full context ends the reply"),
        ({"n_discard": 4}, "a full context ends the reply"),
        ({"id_slot": 3}, "slot 3"),
        ({"id_slot": "a"}, "id_slot"),
        ({"cache_prompt": "no"}, "cache_prompt"),
        ({"return_progress": 1}, "return_progress"),
        ({"lora": [{"id": 0}]}, "lora"),
    ],
)
def test_what_cannot_be_kept_is_named(server: Served, wrong: dict[str, Any], word: str) -> None:
    status, document = server.post("/completion", **{"prompt": "a", **FEW, **wrong})
    assert (status, word in document["error"]["message"]) == (400, True)


def test_a_space_that_an_answer_leaves_out_is_left_out_of_its_first_token() -> None:
    class Spaced(FakeVocabulary):
        def piece(self, token: int) -> bytes:
            return " é".encode() + super().piece(token)

    texts = TokenTexts(Spaced(8))
    said = [TokenLogprobs(1, -0.5), TokenLogprobs(2, -0.5)]
    for begun, first in (("éb", "éb"), (" éb", " éb"), (None, " éb")):
        found = texts.chat(said, begun)["content"]
        assert [each["token"] for each in found] == [first, " éc"]
        assert bytes(found[0]["bytes"]).decode() == first
