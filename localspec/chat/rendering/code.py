"""Code that grows: highlighted line by line, though a lexer needs what came before.

Everything since the last safe place is highlighted again when lines are shown. Safe is an empty
line outside of strings and comments, after which a lexer can start anew, or the end.
"""

from localspec.chat.rendering.markdown import Renderer

MAX_LINES = 60


class Code:
    """One block of code; `take` lines, then `lines` is what is on the screen of this stretch."""

    def __init__(self, renderer: Renderer, language: str) -> None:
        self._renderer = renderer
        self._language = language
        self._stretch: list[str] = []

    def take(self, line: str) -> None:
        """One more finished line."""
        self._stretch.append(line.expandtabs(4))

    def lines(self, live: str = "") -> list[str]:
        """The stretch, with a line that is not finished."""
        code = [*self._stretch, live] if live else self._stretch
        return self._renderer.code("\n".join(code), self._language) if code else []

    def is_safe(self) -> bool:
        """Whether a new stretch can begin here."""
        if len(self._stretch) >= MAX_LINES:
            return True
        return bool(self._stretch) and not self._stretch[-1].strip() and not self._is_inside()

    def begin(self) -> None:
        """Begin a new stretch."""
        self._stretch = []

    def _is_inside(self) -> bool:
        """Whether the lexer may still be inside of a string or comment at the end."""
        code = "\n".join(self._stretch).rstrip()
        text = self._renderer.highlighted(code + "\nx", self._language)
        plain = self._renderer.highlighted("x", self._language)
        end = text.plain.rfind("x")
        return {str(s.style) for s in text.spans if s.end > end} != {
            str(s.style) for s in plain.spans
        }
