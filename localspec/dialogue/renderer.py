"""A warm child process that renders chat templates, and the budget that each request has.

Any operation of a template may take all time or memory in one call that Python cannot interrupt: a
power, a padded text, loops in loops, a constant that is folded while compiling. So no operation is
judged. The system ends the child after its processor time, and refuses it more address space.
Where a system enforces no such limit, this side looks at the child's memory every POLL_S; where it
has no clock of processor time, a clock on the wall holds. Long conversations get more of both.
"""

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from localspec.errors import EngineError

START_S = 30.0
"""For the child to start on a machine that is busy; it takes 0.1 s."""
USUAL_START_S, MOST_SLOWNESS = 0.15, 20.0
"""Its processor time until then, up to which the budget holds; a slower machine gives more."""
POLL_S = 0.01
WALL = 8.0
"""Seconds on the wall for one of processor time, where other programs run too."""
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[1:]; import localspec.dialogue.rendering as w; w.serve()"
)


class RenderError(Exception):
    """Why a template could not be rendered: the middle of a sentence."""


class SpentError(RenderError):
    """The template spent its budget, or killed its process: it is not tried again."""


@dataclass(frozen=True, slots=True)
class RenderBudget:
    """What a request may take: processor time, memory, and characters of the prompt."""

    cpu_s: float = 0.5
    memory_bytes: int = 128_000_000
    n_characters: int = 2_000_000

    def for_conversation(self, n_messages: int, n_bytes: int) -> Self:
        """The same with what honest templates need for longer ones.

        They copy texts, look at each letter, and at all messages for each message.
        """
        return replace(
            self,
            cpu_s=self.cpu_s + 5e-6 * n_bytes + 1e-5 * n_messages**2,
            memory_bytes=self.memory_bytes + 32 * n_bytes,
            n_characters=self.n_characters + 8 * n_bytes,
        )

    def on(self, slowness: float) -> Self:
        """The same on a processor that is so many times slower."""
        return replace(self, cpu_s=self.cpu_s * slowness)

    @property
    def time_spent(self) -> SpentError:
        return SpentError(f"it takes more than {self.cpu_s:.1f} s of processor time")

    @property
    def memory_spent(self) -> SpentError:
        return SpentError(f"it takes more than {self.memory_bytes / 1e6:.0f} MB of memory")


class RenderChild:
    """The process. It ends with its input, and so does not outlive this one."""

    def __init__(self) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *sys.path],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=None if os.environ.get("LOCALSPEC_DEBUG") == "1" else subprocess.DEVNULL,
                process_group=0,  # Ctrl-C in the terminal is meant for this process alone
            )  # fmt: skip
        except OSError as error:
            raise EngineError(
                f"the process that renders chat templates does not start ({error}): try again"
            ) from error
        assert self._process.stdin
        assert self._process.stdout
        self._input, self._output = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)
        self._limits: dict[str, Any] | None = None
        self._owner = os.getpid()

    def answer(self, source: str, say: Any, budget: RenderBudget) -> dict[str, Any]:
        """The reply to a request. Raises SpentError where the budget does not last."""
        here, said = self._here(), json.dumps(say)
        n_messages = len(say["messages"]) if isinstance(say, dict) else 0
        budget = budget.for_conversation(n_messages, len(said)).on(here["slowness"])
        about = json.dumps({"source": source, **asdict(budget)})
        line = f'{about[:-1]}, "say": {said}}}\n'
        try:
            self._input.write(line.encode())
            self._input.flush()
        except OSError as error:
            raise SpentError("its process died") from error
        wall_s = budget.cpu_s * (WALL if here["has_clock"] else 1.0)
        reply = json.loads(self._line(wall_s, budget, is_watched=not here["has_limit"]))
        if reply.get("is_full"):
            raise budget.memory_spent
        return reply

    @property
    def is_usable(self) -> bool:
        """Whether it runs, and is not the one that a fork has from its parent."""
        return self._owner == os.getpid() and self._process.poll() is None

    def _here(self) -> dict[str, Any]:
        """What the system limits here, and how slow the processor is."""
        if self._limits is None:
            told = json.loads(self._line(START_S, None))
            slowness = min(MOST_SLOWNESS, max(1.0, told["start_s"] / USUAL_START_S))
            self._limits = {**told, "slowness": slowness}
        return self._limits

    def close(self) -> None:
        """End it, whatever it does."""
        self._selector.close()
        is_ours = self._owner == os.getpid()
        if is_ours:
            self._process.kill()
        for pipe in (self._input, self._output):
            with suppress(OSError):
                pipe.close()
        if is_ours:
            self._process.wait()

    def _line(
        self, wall_s: float, budget: RenderBudget | None, *, is_watched: bool = False
    ) -> bytes:
        pieces: list[bytes] = []
        deadline = time.monotonic() + wall_s
        while not pieces or not pieces[-1].endswith(b"\n"):
            left_s = max(0.0, deadline - time.monotonic())
            if self._selector.select(min(left_s, POLL_S) if is_watched else left_s):
                pieces.append(self._read(budget))
            elif not left_s:
                raise budget.time_spent if budget else SpentError("its process does not start")
            elif budget and self._memory_bytes() > budget.memory_bytes:
                raise budget.memory_spent
        return b"".join(pieces)

    def _read(self, budget: RenderBudget | None) -> bytes:
        data = os.read(self._output.fileno(), 1 << 20)
        if data:
            return data
        number = -self._process.wait()
        if budget and number == getattr(signal, "SIGPROF", None):
            raise budget.time_spent
        reason = signal.Signals(number).name if number > 0 else f"code {-number}"
        raise SpentError(f"its process died ({reason})")

    def _memory_bytes(self) -> int:
        import psutil  # noqa: PLC0415 - only where the system has no limit

        with suppress(psutil.Error):
            return psutil.Process(self._process.pid).memory_info().rss
        return 0


class TemplateRenderer:
    """The one child of this process, for any number of templates and threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: RenderChild | None = None

    def start(self) -> None:
        """Let the child start while there is other work."""
        with self._lock:
            self._running()

    def answer(self, source: str, say: Any, budget: RenderBudget | None = None) -> dict[str, Any]:
        """What the child replies (`worker` has the requests).

        Raises RenderError, or EngineError where there can be no child. A template that spent its
        budget, or Ctrl-C, ends the child; the next request has a new one.
        """
        with self._lock:
            child = self._running()
            try:
                reply = child.answer(source, say, budget or RenderBudget())
            except BaseException:
                self._close()
                raise
        if "error" in reply:
            raise RenderError(reply["error"])
        return reply

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._close()

    def _running(self) -> RenderChild:
        if self._child and not self._child.is_usable:
            self._close()
        self._child = self._child or RenderChild()
        return self._child

    def _close(self) -> None:
        if self._child:
            self._child.close()
            self._child = None


RENDERER = TemplateRenderer()
atexit.register(RENDERER.close)
