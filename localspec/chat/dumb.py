"""Lines from a terminal that can do no more than write (TERM=dumb): in an editor's shell, say."""

import os


def is_dumb() -> bool:
    """Whether the terminal is such a one."""
    return os.environ.get("TERM", "dumb").lower() in ("dumb", "unknown", "")


class TypedLines:
    """A message a line; the second Ctrl-C in a row leaves."""

    def __iter__(self) -> "TypedLines":
        return self

    def __next__(self) -> str:
        try:
            return self._line()
        except EOFError:
            raise StopIteration from None

    def _line(self) -> str:
        try:
            return input("> ")
        except KeyboardInterrupt:
            print("\nCtrl-C again leaves; so does Ctrl-D")  # noqa: T201
        try:
            return input("> ")
        except KeyboardInterrupt:
            raise EOFError from None
