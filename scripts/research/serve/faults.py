"""What clients do to a server: killed in mid-stream, too many at once, reading slowly.

    scripts/research/run kill-clients [--model smollm2] [--kills 200] [--burst 64] [--soak 0]

A server of four users is started on a real model. Then, in this order: clients that are killed in
mid-stream or while they wait; a burst of clients at once; clients that read one byte now and then;
`--soak` minutes of all of it, with `--pause` seconds between rounds. After each the server must be
idle within seconds, answer as before but for roundings, and hold no more memory than a tenth above
what it held when it was warm. Every fourth client of a burst asks what was answered alone before.
"""

import http.client
import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from models import named
from research.serve.servers import running

PORT, N_USERS, CTX = 18820, 4, 1024
POLL_S, MOST_POLLS = 0.1, 600
"""A count of looks without a pass between them, not of seconds: a study that is stopped for a while
goes on, and so does a server that other programs leave little time."""
PASSES = "llamacpp:n_decode_total "
PATIENCE_S = 3600
GROWTH = 1.1
N_BURST_TOKENS = 16
NEAR_TIE = 1.0
"""Nats between two tokens that roundings may swap. On the starter `judge-company` finds differences
of 2.2, which would excuse 4.4, and answers that part at up to 0.9."""
QUESTION = "Tell me a story about a fox, a crow and a piece of cheese."
REPEAT = "Repeat this line and say nothing else: {}"
LINES = (
    "Seven red foxes sleep in the old barn.", "2, 4, 8, 16, 32, 64, 128, 256, 512",
    "import json, os, sys, time", "Der Mond ist aufgegangen, die goldnen Sternlein prangen.",
    "Paris, Rome, Madrid, Berlin, Vienna",
)  # fmt: skip
"""To be repeated: what such an answer says is sure, and no other's. Stories begin alike, and part
where two tokens are as good as equal: nobody would see that one got another's."""


def opened(text: str, n_tokens: int, **how: bool) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE_S)
    said = [{"role": "user", "content": text}]
    body = {"model": "x", "messages": said, "max_tokens": n_tokens, "temperature": 0, **how}
    connection.request("POST", "/v1/chat/completions", json.dumps(body).encode())
    return connection


def answered(text: str) -> str:
    """A whole answer. Its prompt is read anew, in one piece; without flash attention what idle
    sequences hold changes roundings all the same."""
    connection = opened(text, N_BURST_TOKENS, cache_prompt=False)
    document = json.loads(connection.getresponse().read())
    connection.close()
    return document["choices"][0]["message"]["content"]


def status() -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE_S)
    connection.request("GET", "/status")
    found = json.loads(connection.getresponse().read())
    connection.close()
    return found


def n_passes() -> int:
    """Of the model, so far."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE_S)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(PASSES))


def wait_until_idle() -> float:
    """Seconds until no request is left."""
    n_looks = since = 0
    last = n_passes()
    while n_looks - since < MOST_POLLS:
        now = status()
        if not now["running"] and not now["waiting"]:
            return n_looks * POLL_S
        time.sleep(POLL_S)
        n_looks, seen = n_looks + 1, n_passes()
        since, last = (n_looks, seen) if seen != last else (since, last)
    raise AssertionError(f"{now['running']} requests run and {now['waiting']} wait for ever")


def killed(n: int, clock: random.Random) -> None:
    """Clients that hang up before, while or after the first bytes come."""
    open_now: list[http.client.HTTPConnection] = []
    for i in range(n):
        connection = opened(f"{i} {QUESTION}", 200, stream=True)
        open_now.append(connection)
        if len(open_now) >= 2 * N_USERS:
            victim = open_now.pop(clock.randrange(len(open_now)))
            if clock.random() < 0.7:
                victim.getresponse().read1(clock.randint(1, 400))
            victim.close()
    for connection in open_now:
        connection.close()


@dataclass(slots=True)
class Known:
    """Questions with the answers that they got alone, and what became of them in company.

    Rows of a wider pass differ by roundings, so a text may part from the one alone where its two
    best tokens are as good as equal; anywhere else it is wrong.
    """

    answers: dict[str, list[tuple[str, float]]] = field(default_factory=dict[str, Any])
    """Tokens, and by how much each is more likely than the next best, in nats."""
    n_same: int = 0
    n_parted: int = 0
    furthest: float = 0.0
    """The largest margin where one parted."""

    @classmethod
    def asked(cls) -> "Known":
        return cls({text: _margins(text) for text in map(REPEAT.format, LINES)})

    def question(self, i: int) -> str:
        """The `i`-th client's: every fourth asks a known one."""
        return list(self.answers)[i // 4 % len(self.answers)] if i % 4 == 0 else f"{i} {QUESTION}"

    def judge(self, question: str, answer: str) -> None:
        if question not in self.answers:
            return
        margin = self._parting(question, answer)
        if margin is None:
            self.n_same += 1
            return
        assert not self._is_found(question, answer), f"a wrong answer: {answer!r}"
        self.n_parted += 1
        self.furthest = max(self.furthest, margin)

    def _parting(self, question: str, answer: str) -> float | None:
        """The margin where an answer parts from the one alone; None: it does not."""
        place = 0
        for token, margin in self.answers[question]:
            if not answer.startswith(token, place):
                return margin
            place += len(token)
        return None

    def _is_found(self, question: str, answer: str) -> bool:
        """Whether an answer is wrong: it parts at no near tie, or it is another question's."""
        margin, own = self._parting(question, answer), self._text(question)
        others = map(self._text, self.answers)
        return margin is not None and (margin > NEAR_TIE or answer in {*others} - {own})

    def _text(self, question: str) -> str:
        return "".join(token for token, _ in self.answers[question])

    @property
    def power(self) -> str:
        """What is found of answers that are wrong for sure: each with one of its tokens left out,
        and those of other questions. No wrong token stands where two are as good as equal."""
        lost = [
            self._is_found(question, "".join(t for j, (t, _) in enumerate(each) if j != i))
            for question, each in self.answers.items()
            for i in range(len(each) - 1)
        ]
        foreign = [
            self._is_found(question, self._text(other))
            for question in self.answers
            for other in self.answers
            if other != question
        ]
        return (
            f"found: {sum(lost)} of {len(lost)} answers with a token less,"
            f" {sum(foreign)} of {len(foreign)} of other questions"
        )


def _margins(text: str) -> list[tuple[str, float]]:
    how: Any = {"cache_prompt": False, "logprobs": True, "top_logprobs": 2}
    connection = opened(text, N_BURST_TOKENS, **how)
    document = json.loads(connection.getresponse().read())
    connection.close()
    said = document["choices"][0]["logprobs"]["content"]
    tops = [[other["logprob"] for other in each["top_logprobs"]] for each in said]
    return [(each["token"], best - next_) for each, (best, next_) in zip(said, tops, strict=True)]


def burst(n: int, known: Known) -> None:
    """All at once: each is answered, or told when to come again."""
    found: list[int] = []

    def one(i: int) -> None:
        question = known.question(i)
        connection = opened(question, N_BURST_TOKENS)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200 or answer.getheader("retry-after"), text
        if answer.status == 200:
            known.judge(question, json.loads(text)["choices"][0]["message"]["content"])
        found.append(answer.status)
        connection.close()

    threads = [threading.Thread(target=one, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == n, "a client got no answer"
    assert set(found) <= {200, 429}, found
    assert found.count(200) >= min(n, N_USERS)


def slow(n: int) -> None:
    """Readers that take their time hold nobody up."""
    connections = [opened(f"{i} {QUESTION}", 60, stream=True) for i in range(n)]
    streams = [connection.getresponse() for connection in connections]
    for _ in range(5):
        for stream in streams:
            stream.read1(1)
        time.sleep(0.2)
    wait_until_idle()  # the replies are over, though nobody has read them
    assert all(b"[DONE]" in stream.read() for stream in streams)
    for connection in connections:
        connection.close()


def main(
    model: Annotated[str, typer.Option(help="smollm2, gemma, random or a path.")] = "smollm2",
    kills: Annotated[int, typer.Option(min=1)] = 200,
    at_once: Annotated[int, typer.Option("--burst", min=1)] = 64,
    soak: Annotated[float, typer.Option(min=0, help="Minutes.")] = 0.0,
    pause: Annotated[float, typer.Option(min=0, help="Seconds between rounds.")] = 0.0,
    threads: Annotated[int, typer.Option(min=0, help="Of the server; 0: its own choice.")] = 0,
) -> None:
    command = [sys.executable, "-P", "-m", "localspec", "serve", named(model), "--parallel",
               str(N_USERS), "--ctx", str(CTX), "--port", str(PORT)]  # fmt: skip
    command += ["--threads", str(threads)] if threads else []
    clock = random.Random(0)
    with running(command, PORT, Path("kill-clients.log")):
        process = next(
            each for each in psutil.process_iter(["cmdline"])
            if str(PORT) in (each.info["cmdline"] or ()) and "serve" in each.info["cmdline"]
        )  # fmt: skip
        known = Known.asked()
        print(known.power, flush=True)
        burst(N_USERS, known)  # warm: every sequence was used
        warm_bytes = process.memory_info().rss
        check = partial(_check, known=known, process=process, warm_bytes=warm_bytes)
        killed(kills, clock)
        check(f"{kills} clients were killed")
        burst(at_once, known)
        check(f"{at_once} came at once")
        slow(N_USERS)
        check("slow readers were served")
        ends = time.monotonic() + 60 * soak
        while time.monotonic() < ends:
            killed(20, clock)
            burst(clock.randint(1, at_once), known)
            slow(N_USERS)
            left = (ends - time.monotonic()) / 60
            same = f"{known.n_same} same, {known.n_parted} parted by {known.furthest:.2f} at most"
            check(f"soak, {left:.0f} minutes left, {same}")
            time.sleep(pause)


def _check(what: str, known: Known, process: psutil.Process, warm_bytes: int) -> None:
    idle_s = wait_until_idle()
    question = known.question(0)
    known.judge(question, answered(question))
    ratio = process.memory_info().rss / warm_bytes
    print(f"{what}: idle after {idle_s:.1f} s, memory {ratio:.3f} x", flush=True)
    assert ratio <= GROWTH, "memory grows"


if __name__ == "__main__":
    try:
        typer.run(main)
    except subprocess.TimeoutExpired as error:
        raise SystemExit("the server does not end") from error
