"""What the tests of the conversation share: models with known answers, chats through a pipe."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from command import Run, folder, localspec
from scripted import write_scripted

MARKDOWN = """# Title

A **bold** word and `code` in a sentence that is long enough to be wrapped in a narrow terminal.

1. first
2. second

```python
def f(x):
    \"\"\"Doc

    string\"\"\"
    return x + 1
```

| name | size |
|------|------|
| one | 1 |

The end of it.
"""
WIDE = [
    b"Wide: \xe6\xbc",
    b"\xa2\xe5",
    b"\xad\x97 and \xf0",
    b"\x9f\x98",
    b"\x80\xf0\x9f\x91",
    b"\xa9\xe2\x80",
    b"\x8d\xf0\x9f\x92\xbb done",
]
WIDE_TEXT = b"".join(WIDE).decode()
THOUGHT = "<think>First I wonder.\nThen I am sure of it.</think>It is forty-two."
STORY = " ".join(f"word{i}" for i in range(400))
ANSWERS = {
    "a": "Alpha is the first letter.",
    "b": "Beta is the second one.",
    "m": MARKDOWN,
    "s": STORY,
    "t": THOUGHT,
    "w": WIDE,
}
GREEDY = ("--threads", "1", "--temp", "0")


@cache
def talker() -> Path:
    """Answers by the last letter of a question: see ANSWERS."""
    return write_scripted(folder() / "talker.gguf", ANSWERS)


@cache
def second_talker() -> Path:
    """Another model, with other answers."""
    return write_scripted(folder() / "second.gguf", {"a": "Aleph, in my opinion."})


def piped(
    *lines: str,
    options: tuple[str | Path, ...] = GREEDY,
    model: Path | None = None,
    code: int = 0,
) -> Run:
    """Pipe lines into a chat, by default with the talker; it ends with `code`."""
    data = "\n".join(lines).encode(errors="surrogateescape")
    run = localspec("chat", model or talker(), *options, stdin=data)
    assert run.code == code, run.stderr
    return run


def going_on(*lines: str, options: tuple[str | Path, ...] = GREEDY) -> Run:
    """The same with --continue and no model named."""
    run = localspec("chat", "--continue", *options, stdin="\n".join(lines).encode())
    assert run.code == 0, run.stderr
    return run


def notes(run: Run) -> list[str]:
    """What was said on stderr."""
    return [line.removeprefix("localspec: ") for line in run.stderr.splitlines()]


def events(*lines: str, options: tuple[str | Path, ...] = (), command: tuple[str | Path, ...] = ()):
    """What a chat with --json-lines says, as objects."""
    first = command or (talker(),)
    arguments = ("chat", *first, "--json-lines", *GREEDY, *options)
    run = localspec(*arguments, stdin="\n".join(lines).encode())
    assert run.code == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def of_kind(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of one kind."""
    return [event for event in found if event["event"] == kind]
