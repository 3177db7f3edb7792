"""What the conversation costs beside the engine, at a real pseudo-terminal.

    scripts/research/run bench-chat [--json]

1. From the command to a prompt that takes input, and from a message that is sent at once to the
   first text of its answer.
2. Decoding in the chat, Markdown and all, against `generate` with the same prompt and settings, in
   the order A B B A: the ratio of decode times.
3. In one process, what share of an answer's decode time is spent in the view: other programs on
   the machine disturb it less than the ratio.
4. The second turn of a conversation of 2,000 tokens: tokens evaluated, and its time to the first
   token as a share of the first turn's.
"""

import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from models import smollm2

from localspec.chat.views import ScreenView, screen_console, warm_up
from localspec.dialogue.markup import UNOPENED
from localspec.dialogue.template import Message
from localspec.engine.sampling import Sampling
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

LOCALSPEC = Path(sys.executable).with_name("localspec")
READY = b"\x1b[?2004h"
PROMPT = "Explain how a list differs from a dictionary in Python, with headings and code examples."
FIRST, SECOND = "The quick brown fox jumps over the lazy dog. " * 198, "Say it in one word."
SETTINGS = ("--temp", "0", "--spec", "none")


class Screen:
    """A command in a pseudo-terminal whose output is read and timed."""

    def __init__(self, *arguments: str | Path) -> None:
        self.started = time.perf_counter()
        self.output = b""
        self._pid, self._file = pty.fork()
        if self._pid == 0:
            os.environ |= {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
            os.execv(LOCALSPEC, [str(LOCALSPEC), *map(str, arguments)])

    def wait(self, what: bytes, after: int = 0) -> float:
        """Seconds from the start until `what` is in the output after the `after`-th byte."""
        while what not in self.output[after:]:
            self.output += os.read(self._file, 1 << 16)
        return time.perf_counter() - self.started

    def send(self, keys: bytes) -> None:
        """Type."""
        os.write(self._file, keys)

    def leave(self) -> None:
        """Ctrl-D, and wait for the end."""
        self.send(b"\x04")
        try:
            while os.read(self._file, 1 << 16):
                pass
        except OSError:
            pass
        os.waitpid(self._pid, 0)
        os.close(self._file)


def main(
    rounds: Annotated[int, typer.Option(help="Rounds of A B B A, and starts times two.")] = 4,
    max_tokens: Annotated[int, typer.Option("-n", "--max-tokens")] = 256,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["LOCALSPEC_HOME"] = home
        _in_chat(PROMPT, 4)  # tests the engine build once
        result = {
            "start": _starts(2 * rounds),
            "decode": _decode(rounds, max_tokens),
            "view_share": _view_share(max_tokens),
            "second_turn": _second_turn(rounds),
        }
    if as_json:
        print(json.dumps(result))
    else:
        _show(result)


def _starts(n: int) -> dict[str, Any]:
    ready: list[float] = []
    first: list[float] = []
    word = _first_word("Hi")
    for _ in range(n):
        screen = Screen("chat", smollm2(), *SETTINGS, "-n", "8", "--no-save")
        ready.append(screen.wait(READY))
        before = len(screen.output)
        screen.send(b"Hi\r")
        first.append(screen.wait(word, before) - ready[-1])
        screen.wait(READY, before)
        screen.leave()
    return {"prompt_s": _spread(ready), "first_text_s": _spread(first)}


def _first_word(prompt: str) -> bytes:
    options = (*SETTINGS, "-n", "4", "-p", prompt)
    done = subprocess.run([LOCALSPEC, "generate", smollm2(), *options], capture_output=True)
    return done.stdout.split()[0][:4]


def _decode(rounds: int, n: int) -> dict[str, Any]:
    ratios: list[float] = []
    speeds: dict[str, list[float]] = {"chat": [], "generate": []}
    runs = {"chat": _in_chat, "generate": _generated}
    for _ in range(rounds):
        for name in ("chat", "generate", "generate", "chat"):
            speeds[name].append(runs[name](PROMPT, n))
    ratios = [g / c for c, g in zip(speeds["chat"], speeds["generate"], strict=True)]
    return {
        "tps": {name: statistics.median(values) for name, values in speeds.items()},
        "time_ratio": _spread(ratios),
    }


def _in_chat(prompt: str, n: int) -> float:
    """Tokens per second, as the conversation's file says."""
    screen = Screen("chat", smollm2(), *SETTINGS, "-n", str(n), "--ignore-eos")
    screen.wait(READY)
    before = len(screen.output)
    screen.send(prompt.encode() + b"\r")
    screen.wait(READY, before)
    screen.leave()
    files = (Path(os.environ["LOCALSPEC_HOME"]) / "data" / "sessions").glob("*.jsonl")
    last = max(files, key=lambda path: path.stat().st_mtime_ns).read_text().splitlines()[-1]
    return json.loads(last)["answer"]["figures"]["decode_tps"]


def _generated(prompt: str, n: int) -> float:
    options = (*SETTINGS, "-n", str(n), "--ignore-eos", "--json", "-p", prompt)
    done = subprocess.run(
        [LOCALSPEC, "generate", smollm2(), *options], capture_output=True, check=True
    )
    return json.loads(done.stdout)["timings"]["decode_tps"]


def _view_share(n: int) -> dict[str, float]:
    """Seconds in the view over seconds of decoding: of the first answer, and of later ones."""
    shares: list[float] = []
    console = screen_console()
    warm_up()
    with (
        Session.open(SessionConfig.of(smollm2(), spec="none")) as session,
        Path(os.devnull).open("w") as out,
    ):
        prompt = session.chat_prompt([Message(role="user", content=PROMPT)])
        for _ in range(3):
            view, cost_s = ScreenView(out, lambda: os.terminal_size((100, 40)), console), 0.0
            view.begin(UNOPENED, len(prompt))
            reply = session.reply(prompt, ReplyOptions(Sampling(temperature=0), n, ignore_eos=True))
            for parts in reply.by_step():
                started = time.perf_counter()
                view.write(parts, None)
                cost_s += time.perf_counter() - started
            assert reply.timings.decode_s
            shares.append(cost_s / reply.timings.decode_s)
    return {"first": shares[0], "later": statistics.median(shares[1:])}


def _second_turn(rounds: int) -> dict[str, Any]:
    shares, counts = [], []
    for _ in range(rounds):
        options = (*SETTINGS, "-n", "8", "--json-lines", "--no-save")
        done = subprocess.run(
            [LOCALSPEC, "chat", smollm2(), *options],
            input=f"{FIRST}\n{SECOND}\n".encode(),
            capture_output=True,
            check=True,
        )
        found = [json.loads(line) for line in done.stdout.splitlines()]
        first, second = (event for event in found if event["event"] == "answer")
        shares.append(second["ttft_s"] / first["ttft_s"])
        counts.append((first["n_evaluated"], second["n_evaluated"]))
    return {"evaluated": counts[0], "ttft_share": _spread(shares)}


def _spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "low": ordered[0], "high": ordered[-1]}


def _show(result: dict[str, Any]) -> None:
    start, decode, second = result["start"], result["decode"], result["second_turn"]
    print(f"command to prompt {_text(start['prompt_s'], 's')}")
    print(f"a message sent at once: first text after {_text(start['first_text_s'], 's')}")
    print(
        f"decode time of chat over generate {_text(decode['time_ratio'])}"
        f" ({decode['tps']['chat']:.1f} and {decode['tps']['generate']:.1f} tok/s)"
    )
    share = result["view_share"]
    print(f"in the view: {share['later']:.2%} of decode time ({share['first']:.2%} at first)")
    print(
        f"second turn: {second['evaluated'][1]} tokens evaluated after {second['evaluated'][0]},"
        f" first token in {_text(second['ttft_share'])} of the first turn's time"
    )


def _text(spread: dict[str, float], unit: str = "") -> str:
    return f"{spread['median']:.3f} {unit} ({spread['low']:.3f} to {spread['high']:.3f})"
