"""Values of a command line that need no reader: texts, whole numbers within limits, defaults.

Typer reads each option by a Pydantic adapter, defaults too, and to import Pydantic and make fifty
adapters takes a tenth of a second before the first token. What is plainly right is taken here;
everything else, all that is wrong among it, still goes to Typer, with its words.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin

Reader = Callable[[Any, Any], Any]
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", re.ASCII)
_OTHER = object()
"""For Typer."""


def read_quickly(command: Any) -> None:
    """Let the parameters of Typer's command take what is plainly right as it is.

    Those of a Typer without adapters stay as they are.
    """
    listed: Callable[[Any], list[Any]] = command.get_params

    def get_params(context: Any) -> list[Any]:
        parameters = listed(context)
        for parameter in parameters:
            described = getattr(parameter, "type_descriptor", None)
            if described is not None and "process_value" not in vars(parameter):
                parameter.process_value = _reader(parameter, described)
        return parameters

    command.get_params = get_params


def _reader(parameter: Any, described: Any) -> Reader:
    read: Reader = parameter.process_value
    kind, limits = described.annotation, described.parameter_info

    def process_value(context: Any, value: Any) -> Any:
        found = _OTHER
        if value is None and not parameter.required:
            found = () if parameter.multiple or parameter.nargs != 1 else None
        elif not parameter.multiple and parameter.nargs == 1:
            found = _plain(kind, value, limits)
        if found is _OTHER:
            return read(context, value)
        callback = parameter.callback
        return callback(context, parameter, found) if callback else found

    return process_value


def _plain(kind: Any, value: Any, limits: Any) -> Any:
    """The value of an option or of its default, if it is plainly one of that kind."""
    if limits.parser is not None:
        with suppress(ValueError):
            return limits.parser(value)
        return _OTHER
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else _OTHER
    if kind is str and type(value) is str:
        return value
    pattern = _WHOLE if kind is int else _NUMBER if kind is float else None
    if pattern is None or limits.clamp:
        return _OTHER
    is_plain = isinstance(value, str) and pattern.fullmatch(value)
    number: Any = kind(value) if is_plain else value
    is_within = type(number) is kind and _within(number, limits.min, limits.max)
    return number if is_within else _OTHER


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)
