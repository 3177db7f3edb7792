"""Kinds of values of an option: which ones they accept, and how a list is read.

`wanted` describes a value after "is not"; `metavar` stands for one in the help.
"""

from dataclasses import dataclass
from typing import Any


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
    """A whole number within bounds; None too if `is_open`."""

    low: int
    high: int
    is_open: bool = False
    hint: str = ""
    metavar: str | None = "N"

    @property
    def wanted(self) -> str:
        return f"a number from {self.low:,} to {self.high:,}{self.hint and f': {self.hint}'}"

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
class ModelName:
    """A model's name or path, `none`, or `auto` for the one that models.toml pairs with it."""

    metavar: str | None = "MODEL|auto|none"
    wanted: str = "the name or path of a model, auto or none"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and bool(value)

    def read(self, text: str) -> str:
        return text


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


Kind = Choice | Whole | Switch | ModelName | Layers | Names
