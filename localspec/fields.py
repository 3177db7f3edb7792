"""The description of a field of `Settings`, and the kinds of values that a field can have.

A kind says which values it accepts and how a list is read: `wanted` describes a value after "is
not", `metavar` stands for one in the help. A description does not know whether a machine or a model
supports a value.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from localspec.errors import UserError

Think = Literal["on", "off", "low", "medium", "high"]
"""Whether and how long a model thinks."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several words, in any case; `also`: other spellings in lists."""

    values: tuple[str, ...]
    metavar: str | None = None
    also: tuple[tuple[str, str], ...] = ()

    @property
    def wanted(self) -> str:
        return f"one of {', '.join(self.values)}"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value.lower() in self.values

    def read(self, text: str) -> str:
        return dict(self.also).get(text, text.lower())


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within bounds; None too if `is_open`. `hint`: what to do in place of less."""

    low: int
    high: int
    is_open: bool = False
    hint: str = ""
    metavar: str | None = "N"

    @property
    def wanted(self) -> str:
        return f"a number from {self.low:,} to {self.high:,}"

    def accepts(self, value: Any) -> bool:
        if value is None:
            return self.is_open
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high

    def read(self, text: str) -> int:
        return int(text)


@dataclass(frozen=True, slots=True)
class Switch:
    """On or off."""

    metavar: str | None = None
    wanted: str = "on or off (True or False)"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool)

    def read(self, text: str) -> bool | None:
        return {"on": True, "1": True, "off": False, "0": False}.get(text.lower())


@dataclass(frozen=True, slots=True)
class _Name:
    """Any text with something in it."""

    metavar: str | None
    wanted: str

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and bool(value)

    def read(self, text: str) -> str:
        return text


@dataclass(frozen=True, slots=True)
class ModelName(_Name):
    """A model's or head's name or path, `none`, `own`, or `auto` for what goes with a model."""

    metavar: str | None = "MODEL|own|auto|none"
    wanted: str = "the name or path of a model or draft head, own, auto or none"


@dataclass(frozen=True, slots=True)
class TemplateName(_Name):
    """A chat template: a file, a family's name, or `auto` for the model's own."""

    metavar: str | None = "FILE|NAME"
    wanted: str = "a file with a chat template, a family's name or auto"


@dataclass(frozen=True, slots=True)
class DeviceName(_Name):
    """A device of the engine, the processor, a worker, or `auto`."""

    metavar: str | None = "NAME|CPU|HOST:PORT|auto"
    wanted: str = "a device that `doctor` shows, CPU, a worker's host:port or auto"


ALL_LAYERS = 9999


@dataclass(frozen=True, slots=True)
class Layers:
    """A number of layers: `auto`, -1, is as many as fit, `all` is more than any model has."""

    low: int = -ALL_LAYERS
    high: int = ALL_LAYERS
    metavar: str | None = "auto|all|N"
    wanted: str = "auto, all or a number of layers"

    def accepts(self, value: Any) -> bool:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high

    def read(self, text: str) -> int:
        return int(self.numbered(text))

    def numbered(self, text: str) -> str:
        """The same with numbers for the words of a list."""
        words = {"auto": "-1", "all": str(self.high)}
        return ",".join(words.get(part.strip().lower(), part) for part in text.split(","))


@dataclass(frozen=True, slots=True)
class Names:
    """Several names, of devices or machines."""

    metavar: str | None = "NAME,..."
    wanted: str = "a list of names"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, tuple | list) and all(isinstance(name, str) for name in value)

    def read(self, text: str) -> tuple[str, ...]:
        return tuple(name for part in text.split(",") if (name := part.strip()))


Kind = Choice | Whole | Switch | ModelName | TemplateName | DeviceName | Layers | Names


@dataclass(frozen=True, slots=True)
class Row:
    """The description of a field.

    `words`: a sentence for a value; `short`: the head of its column in a table. `aliases`: further
    flags of `bench`, in llama-bench's words. `was`: names in files of earlier versions. `is_exact`:
    it changes no number. `is_loading`: a new value needs the weights loaded again. `is_engine`: the
    engine reads it; the others steer decoding. `is_swept`: `bench` takes several values.
    `is_tuned`: `tune` finds or keeps it. `is_automatic`: left open, it is what is fastest here.
    `is_offered`: it has a flag.
    """

    help: str
    kind: Kind
    words: str
    panel: str = "Engine"
    short: str = ""
    aliases: tuple[str, ...] = ()
    was: tuple[str, ...] = ()
    is_exact: bool = True
    is_loading: bool = False
    is_engine: bool = True
    is_swept: bool = True
    is_tuned: bool = True
    is_automatic: bool = False
    is_offered: bool = True
    name: str = ""
    default: Any = None

    @property
    def flag(self) -> str:
        """As on the command line: `--flash-attn`."""
        return f"--{self.name.replace('_', '-')}"

    def checked(self, value: Any) -> Any:
        """The value in its usual form. Raises UserError for a wrong one."""
        if not self.kind.accepts(value):
            raise UserError(f"{self.flag} {value!r} is not {self.kind.wanted}{self._hint(value)}")
        if isinstance(self.kind, Names):
            return tuple(value)
        return value.lower() if isinstance(self.kind, Choice) else value

    def _hint(self, value: Any) -> str:
        if not isinstance(self.kind, Whole) or not isinstance(value, int):
            return ""
        return f": {self.kind.hint}" if self.kind.hint and value < self.kind.low else ""

    def read(self, text: str) -> Any:
        """A value from a list of the command line. Raises ValueError for a wrong one."""
        value = self.kind.read(text)
        if not self.kind.accepts(value):
            raise ValueError(text)
        return value

    def text(self, value: Any) -> str:
        """A value for people, with its name: "threads 4"."""
        return self.words.format(value_text(value))


def row(default: Any, help_: str, kind: Kind, words: str, **columns: Any) -> Any:
    """A field of `Settings` that carries its row; without a flag it is not swept or tuned."""
    if not columns.get("is_offered", True):
        columns |= {"is_swept": False, "is_tuned": False}
    return field(default=default, metadata={"row": Row(help_, kind, words, **columns)})


def value_text(value: Any) -> str:
    """A value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(value)
    return Path(value).name if isinstance(value, str) and "/" in value else str(value)
