"""Text as it comes, for pipes, files and terminals that can do no more."""

from typing import TextIO

from localspec.speculate.step import Step


class PlainView:
    """Writes through; an answer ends with a new line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.thought = ""
        self.paused_s = 0.0

    def begin(self, *, in_thought: bool, n_prompt: int) -> None:
        """Nothing is shown yet."""

    def write(self, text: str, step: Step | None) -> None:
        """Show it at once."""
        self._out.write(text)
        self._out.flush()

    def end(self) -> None:
        """End the line."""
        self._out.write("\n")
        self._out.flush()
