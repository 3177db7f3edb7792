"""`chat --server`: the same conversation with a model that another process has."""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from command import Run, finish, localspec, start_with_input
from serving import Served, fake_server

from localspec.chat.remote import ServerAddress
from localspec.errors import UserError


def talk(url: str, *lines: str, options: Sequence[str] = (), **environment: str) -> Run:
    """Lines through a pipe."""
    stdin = "".join(f"{line}\n" for line in lines).encode()
    return localspec("chat", "--server", url, *options, stdin=stdin, **environment)


def events(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.stdout.splitlines()]


# with localspec's own server


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with fake_server(pass_s=0.001, about={"max_model_len": 512}) as made:
        yield made


def url_of(server: Served) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_an_answer_is_that_of_the_server(server: Served) -> None:
    run = talk(url_of(server), "Hello", options=("-n", "6", "--temp", "0"))
    assert run.code == 0, run.stderr
    whole = server.chat("Hello", max_tokens=6, temperature=0)["choices"][0]["message"]["content"]
    assert run.stdout == whole + "\n"
    assert "tiny" in run.stderr or url_of(server) in run.stderr
    assert "context" in run.stderr
    assert "stopped at the limit" in run.stderr


def test_figures_are_the_servers_account(server: Served) -> None:
    run = talk(url_of(server), "Hello", options=("-n", "6", "--temp", "0", "--json-lines"))
    loaded, *_, answer = events(run)
    assert loaded == {
        "event": "loaded", "model": "tiny", "n_ctx": 512, "server": url_of(server)
    }  # fmt: skip
    assert (answer["n_tokens"], answer["finish_reason"], answer["n_ctx"]) == (6, "length", 512)
    assert answer["n_context"] == answer["n_prompt"] + 6
    assert answer["predicted"] is None


def test_a_conversation_is_saved_and_goes_on(server: Served, tmp_path: Path) -> None:
    """The server is kept with it, as a model's name is."""
    home = {"LOCALSPEC_HOME": str(tmp_path)}
    few = ("-n", "4", "--temp", "0", "--json-lines")
    first = talk(url_of(server), "Hello", options=few, **home)
    again = localspec("chat", "--continue", *few, stdin=b"And now?\n", **home)
    assert again.code == 0, again.stderr
    assert events(again)[0]["server"] == url_of(server)
    assert events(again)[-1]["n_prompt"] > events(first)[-1]["n_prompt"] + 4


def test_a_key_is_sent_and_a_wrong_one_is_a_sentence() -> None:
    with fake_server(keys=("secret",)) as server:
        without = talk(url_of(server), "Hello")
        assert without.code == 2
        assert "--api-key" in without.stderr
        assert "Traceback" not in without.stderr
        for how in ({"options": ("-n", "3", "--api-key", "secret")},
                    {"options": ("-n", "3"), "LOCALSPEC_API_KEY": "secret"}):  # fmt: skip
            assert talk(url_of(server), "Hello", **how).code == 0


def test_what_does_not_fit_lets_old_turns_go(server: Served) -> None:
    """The server says how long it is; the model goes on with the newest turns."""
    lines = ["x" * 180, "y" * 180, "z" * 180, "and now?"]
    run = talk(url_of(server), *lines, options=("-n", "9", "--when-full", "drop", "--no-save"))
    assert run.code == 0, run.stderr
    assert "no longer sees" in run.stderr
    assert run.stdout.count("\n") == 4
    refused = talk(url_of(server), *lines, options=("-n", "9", "--when-full", "stop"))
    assert refused.code == 1
    assert "512" in refused.stderr


def test_ctrl_c_ends_the_reply_at_the_server() -> None:
    with fake_server(pass_s=0.05) as server:
        process = start_with_input(
            "chat", "--server", url_of(server), "--json-lines", "--no-save", "-p", "Hello"
        )
        lines = iter(process.stdout.readline, b"")
        next(line for line in lines if b'"text"' in line)
        process.send_signal(signal.SIGINT)
        run = finish(process)
        assert run.code == 1
        server.wait_until_idle()
        assert server.engine_thread.metrics.n_aborted == 1


# with any server


Answer = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]


@contextmanager
def other_server(answer: Answer, models: Any = None) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server with an answer of the test's; what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply(self, 200, models or {"data": [{"id": "other", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body)
            answer(self, body)

        def log_message(self, *_: object) -> None:
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_port}", asked
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


def reply(request: BaseHTTPRequestHandler, status: int, document: Any) -> None:
    data = json.dumps(document).encode()
    request.send_response(status)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)


def stream(*deltas: dict[str, Any], end: str = "data: [DONE]\n\n") -> Answer:
    def answer(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.end_headers()
        chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        for chunk in chunks:
            request.wfile.write(f": ping\n\ndata: {json.dumps(chunk)}\r\n\r\n".encode())
        request.wfile.write(end.encode())

    return answer


DONE = stream({"role": "assistant", "content": None}, {"content": "Good "}, {"content": "day."})


def test_any_server_of_openais_kind_is_talked_to() -> None:
    """One that tells neither its context nor any figures."""
    with other_server(DONE) as (url, asked):
        run = talk(url.removeprefix("http://") + "/v1/", "Hello", "Bye", options=("--temp", "0.5"))
    assert run.code == 0, run.stderr
    assert run.stdout == "Good day.\nGood day.\n"
    assert [each["role"] for each in asked[1]["messages"]] == ["user", "assistant", "user"]
    assert asked[1]["messages"][1]["content"] == "Good day."
    assert (asked[0]["model"], asked[0]["temperature"]) == ("other", 0.5)
    assert "top_p" not in asked[0], "what nobody chose is the server's to choose"


def test_thoughts_are_apart_and_go_back() -> None:
    thinking = stream({"reasoning_content": "hm "}, {"reasoning": "well"}, {"content": "Yes."})
    with other_server(thinking) as (url, asked):
        run = talk(url, "Hello", "/think", "Sure?")
    assert run.stdout == "Yes.\nYes.\n"
    assert "hm well" in run.stderr
    assert asked[1]["messages"][1]["reasoning_content"] == "hm well"


def test_what_was_said_before_the_server_was_lost_is_kept(tmp_path: Path) -> None:
    with other_server(stream({"content": "Half of it"}, end="")) as (url, _):
        run = talk(url, "Hello", LOCALSPEC_HOME=str(tmp_path))
        assert "went away" in run.stderr
        assert "/regen" in run.stderr
        assert run.stdout == "Half of it\n"
    saved = next(tmp_path.rglob("*.jsonl")).read_text()
    assert "Half of it" in saved
    assert "interrupted" in saved


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({"error": {"message": "out of luck"}}, "out of luck"),
        ({"detail": "no such thing"}, "no such thing"),
        ({}, "status 500"),
    ],
)
def test_errors_of_servers_are_sentences(document: Any, word: str) -> None:
    def answer(request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        reply(request, 500, document)

    with other_server(answer) as (url, _):
        run = talk(url, "Hello")
    assert run.code == 1
    assert word in run.stderr
    assert "Traceback" not in run.stderr


def test_an_error_in_mid_stream_is_a_sentence() -> None:
    end = 'data: {"error": {"message": "the cache broke"}}\n\n'
    with other_server(stream(end=end)) as (url, _):
        run = talk(url, "Hello")
    assert run.code == 1
    assert "the cache broke" in run.stderr


@pytest.mark.parametrize(
    ("chunk", "word"), [("{nonsense", "no JSON"), ("[1, 2]", "no object"), ("7", "no object")]
)
def test_a_chunk_that_is_none_is_a_sentence(chunk: str, word: str) -> None:
    with other_server(stream(end=f"data: {chunk}\n\n")) as (url, _):
        run = talk(url, "Hello")
    assert run.code == 1
    assert word in run.stderr
    assert "Traceback" not in run.stderr


def test_what_else_a_chunk_may_be_is_passed_over() -> None:
    odd: list[Any] = [{"choices": None}, {"choices": ["x"]}, {"usage": 3}]
    odd += [{"choices": [{"delta": [], "finish_reason": [1]}]}]
    odd += [{"timings": {"prompt_per_second": "fast"}}]
    end = "".join(f"data: {json.dumps(each)}\n\n" for each in odd) + "data: [DONE]\n\n"
    with other_server(stream({"content": "Yes."}, end=end)) as (url, _):
        run = talk(url, "Hello")
    assert run.code == 0, run.stderr
    assert run.stdout == "Yes.\n"


@pytest.mark.parametrize("models", [{"data": []}, {"object": "list"}, ["x"]], ids=str)
def test_what_lists_no_models_is_no_such_server(models: Any) -> None:
    with other_server(DONE, models) as (url, _):
        run = talk(url, "Hello")
    assert run.code == 1
    assert "lists no models" in run.stderr


def test_nobody_there_is_a_sentence() -> None:
    run = talk("http://127.0.0.1:9", "Hello")
    assert run.code == 1
    assert "is it running?" in run.stderr


def test_the_name_of_a_model_is_sent() -> None:
    with other_server(DONE) as (url, asked):
        assert localspec("chat", "mine", "--server", url, "-p", "Hello").code == 0
    assert asked[0]["model"] == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--server", "ftp://x"), ("no address",)),
        (("--server", "http://x:99999"), ("no address",)),
        (("--server", ""), ("no address",)),
        (("--server", "http://x", "--ctx", "512"), ("--ctx", "server")),
        (("--server", "http://x", "--spec", "none"), ("--spec", "server")),
        (("--server", "http://x", "--show-draft"), ("--show-draft",)),
        (("--api-key", "x"), ("--server",)),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: tuple[str, ...], words: tuple[str, ...]) -> None:
    run = localspec("chat", *options, "-p", "Hello")
    assert run.code in (1, 2)
    assert all(word in run.stderr for word in words)
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("command", ["/model x", "/model", "/spec", "/kv q8_0", "/tune", "/draft"])
def test_commands_for_a_model_of_ones_own_say_whose_it_is(command: str) -> None:
    with other_server(DONE) as (url, _):
        run = talk(url, command, "/help", "Hello", options=("--no-save",))
    assert run.stdout == "Good day.\n"
    assert f"{url} has the model" in run.stderr
    assert "/regen" in run.stderr
    assert "/kv K" not in run.stderr, "not in the list either"


def test_addresses_as_people_type_them() -> None:
    for text in ("http://box:80/v1", "box:80", " http://box:80/ ", "box:80/v1/"):
        assert ServerAddress.of(text).url == "http://box:80"
    assert ServerAddress.of("https://x.y/api/v1").url == "https://x.y/api"
    assert "secret" not in repr(ServerAddress.of("x", "secret"))
    with pytest.raises(UserError):
        ServerAddress.of("x", "schlüssel")
