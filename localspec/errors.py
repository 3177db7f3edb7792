"""The errors that a user can meet, as one tree.

    LocalspecError
    ├── UserError       a wrong flag, name, file or combination, which the user can correct
    ├── ModelError      a GGUF file that cannot be read, loaded or used for what was asked
    ├── EngineError     libllama refused, failed or is not there
    └── HardwareError   this machine cannot do it, or cannot be asked

A message is one sentence with the offending value and what to do next. It is raised where that is
known and caught in one place, the command line's `main`.
"""

from collections.abc import Iterable


class LocalspecError(Exception):
    """Base of every error that is shown as a sentence, without a traceback."""

    exit_code = 1


class UserError(LocalspecError):
    """The request itself is wrong; exit code 2, as for any usage error."""

    exit_code = 2


class ModelError(LocalspecError):
    """A model file is damaged, of the wrong kind, or does not fit its partner."""


class EngineError(LocalspecError):
    """The engine refused, failed, or is not installed."""


class NoRoomError(EngineError):
    """There is not enough memory for a measurement."""


class HardwareError(LocalspecError):
    """This machine lacks what was asked, or does not say."""


def no_such(what: str, name: str, known: Iterable[str]) -> UserError:
    """An error that names the closest of what there is: no `temprature`, but `temperature`."""
    from difflib import get_close_matches  # noqa: PLC0415 - only after a typing error

    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]!r}?" if near else f"use {', '.join(names)}"
    return UserError(f"there is no {what} {name!r}: {advice}")
