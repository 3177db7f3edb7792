"""The conversation, through a pipe and through a terminal."""

import os
import time
from collections.abc import Iterator

import pexpect
import pytest
from _models import smollm2
from command import ANSWER, LOCALSPEC, Run, clean_environment, localspec, tiny

PROMPT, ASKED = "\x1b\\[\\?2004h", "\x1b\\[\\?2004l"
"""What a line editor sends when it begins and ends to edit a line: bracketed paste on and off."""


def chat(*lines: str | bytes, options: tuple[str, ...] = ANSWER, model: object = None) -> Run:
    """Pipe lines into a chat with the tiny model, or another; each answer is at most 12 tokens."""
    data = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines)
    run = localspec("chat", model or tiny(), *options, "-n", "12", "--raw-lines", stdin=data)
    assert run.code == 0, run.stderr
    return run


def talk(run: Run) -> list[str]:
    """What was said on stderr after the greeting."""
    greeting, *rest = run.stderr.splitlines()
    assert "/help" in greeting
    return rest
