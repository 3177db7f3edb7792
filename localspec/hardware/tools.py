"""Asking the operating system: its tools, which may be absent, fail or hang, and its files."""

import subprocess
from pathlib import Path

TOOL_LIMIT_S = 5


def output_of(*command: str, limit_s: float = TOOL_LIMIT_S) -> str:
    """What a tool prints; nothing if it is absent, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace",
            timeout=limit_s, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def line_of(path: Path) -> str | None:
    """The text of a small file of the kernel; None if it is absent, unreadable or empty."""
    try:
        return path.read_text("utf-8", "replace").strip() or None
    except OSError:
        return None
