"""Options of commands: from the table of `Settings`, from dataclasses, and how values are read.

A parameter that is a dataclass becomes one option for each of its fields. Typer reads a function's
signature, so `command` writes one. A field `given` gets the names of the options that were typed.
An option may take several values: `--kv f16,q8_0`; numbers as in llama-bench: `0-4096+1024`.

Typer reads each option by a Pydantic adapter, defaults too, and to import Pydantic and make fifty
adapters takes a tenth of a second before the first token. What is plainly right `read_quickly`
takes as it is; everything else, all that is wrong among it, still goes to Typer, with its words.

A shell waits for completion at each key, so that imports nothing slow.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import field, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from localspec.errors import UserError
from localspec.fields import Layers, ModelName, Names, Row, Switch, Whole
from localspec.settings import ROWS

GIVEN = "given"
MAX_TOKENS = 16_777_216
T = TypeVar("T")


def model_names(incomplete: str) -> list[str]:
    """Completions of a model's name."""
    from localspec.registry.local_models import known_names

    return known_names(incomplete)


def pulled_names(incomplete: str) -> list[str]:
    """Completions for `remove` and `verify`."""
    from localspec.registry.local_models import pulled_names

    return pulled_names(incomplete)


ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A name, a path to a .gguf, or owner/repo:Q4_K_M of the hub. Default: the starter.",
        autocompletion=model_names,
    ),
]
KEYS_VARIABLE = "LOCALSPEC_API_KEY"
"""Where a server's keys, and the key of a client, may come from."""
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document.")]


def option(default: Any, help_: str, *flags: str, panel: str | None = None, **more: Any) -> Any:
    """A dataclass's field that is an option; `flags` where its name makes another one."""
    shown = typer.Option(*flags, help=help_, rich_help_panel=panel, **more)
    return field(default=default, metadata={"option": shown})


def setting(name: str, help_: str | None = None, *flags: str, **more: Any) -> Any:
    """A field for one setting; `help_`, `flags` and `more` replace words of its row."""
    row = ROWS[name]
    default = more.pop("default", row.default)
    more = {"metavar": row.kind.metavar, **more}
    if isinstance(row.kind, ModelName):
        more["autocompletion"] = model_names
    if is_written(row):
        more["parser"] = lambda value: _written(row, value)
    return option(default, help_ or row.help, *flags, **more)


def is_written(row: Row) -> bool:
    """Whether Typer knows no type for such values, so that the row reads them."""
    return isinstance(row.kind, Layers | Names)


def _written(row: Row, value: Any) -> Any:
    """From the command line; a default is a value already."""
    if not isinstance(value, str):
        return value
    try:
        return row.read(value)
    except ValueError as error:
        raise UserError(f"{row.flag} {value!r} is not {row.kind.wanted}") from error


Parameters = dict[str, inspect.Parameter]


def _spread(group: type[Any]) -> Parameters:
    """An option for each field of a dataclass that is one."""
    hints = get_type_hints(group)
    found: Parameters = {}
    for each in fields(group):
        shown = each.metadata.get("option")
        if "row" in each.metadata and ROWS[each.name].is_offered:
            row = ROWS[each.name]
            flags = () if isinstance(row.kind, Switch) else (row.flag, *row.aliases)
            shown = setting(row.name, None, *flags, panel=row.panel).metadata["option"]
        if shown:
            hint = object if each.name in ROWS and is_written(ROWS[each.name]) else hints[each.name]
            annotation = Annotated[hint, shown]
            found[each.name] = inspect.Parameter(
                each.name, _BY_NAME, default=each.default, annotation=annotation
            )
    return found


_BY_NAME = inspect.Parameter.KEYWORD_ONLY


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose dataclass parameters have become one option for each field."""
    hints = get_type_hints(function, include_extras=True)
    kinds = {name: hint for name, hint in hints.items() if isinstance(hint, type)}
    groups = {name: kind for name, kind in kinds.items() if is_dataclass(kind)}
    spreads = {name: _spread(group) for name, group in groups.items()}
    own = [
        parameter.replace(annotation=hints[name], kind=_BY_NAME)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in groups
    ]

    @wraps(function)
    def spread(context: typer.Context, **values: Any) -> None:
        for name, group in groups.items():
            chosen = {each: values.pop(each) for each in spreads[name]}
            if any(each.name == GIVEN for each in fields(group)):
                chosen[GIVEN] = _given(context, spreads[name])
            values[name] = group(**chosen)
        function(**values)

    first = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    parameters = [first, *(p for found in spreads.values() for p in found.values()), *own]
    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {each.name: each.annotation for each in parameters}
    return spread


def _given(context: typer.Context, names: Iterable[str]) -> frozenset[str]:
    """Options that the command line gave a value."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return frozenset(n for n, source in sources.items() if source and source.name != "DEFAULT")


def several(flag: str, text: str, read: Callable[[str], T], wanted: str) -> tuple[T, ...]:
    """The values of a comma-separated option, each once. UserError names a wrong one."""
    values: list[T] = []
    for part in map(str.strip, text.split(",")):
        try:
            values.append(read(part))
        except ValueError as error:
            raise UserError(f"{flag} {part!r} is not {wanted}") from error
    return tuple(dict.fromkeys(values))


def values_of(row: Row, text: str) -> tuple[Any, ...]:
    """Values of a setting. UserError names a wrong one."""
    kind = row.kind
    if isinstance(kind, Layers):
        return numbers(row.flag, kind.numbered(text), kind.low, kind.high, "auto or all")
    if isinstance(kind, Whole):
        return numbers(row.flag, text, kind.low, kind.high)
    return several(row.flag, text, row.read, kind.wanted)


def share(text: str) -> float:
    """A number from 0 to 1. Raises ValueError for anything else."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError
    return number


_RANGE = re.compile(r"(\d+)-(\d+)(?:([+*])(\d+))?")
_MOST = 1000


def numbers(flag: str, text: str, lowest: int, highest: int, also: str = "") -> tuple[int, ...]:
    """Numbers of a list, each once. UserError names a wrong part. `also`: an accepted word."""
    values: list[int] = []
    for part in text.split(","):
        found = _numbers(part.strip())
        if not found or not all(lowest <= number <= highest for number in found):
            raise UserError(
                f"{flag} {part.strip()!r} is no number from {lowest:,} to {highest:,},"
                f" nor a range such as 1-8*2 or 0-4096+1024{f', nor {also}' if also else ''}"
            )
        values += found
    return tuple(dict.fromkeys(values))


def _numbers(text: str) -> list[int]:
    if re.fullmatch(r"-?\d+", text):
        return [int(text)]
    match = _RANGE.fullmatch(text)
    if match is None:
        return []
    first, last, sign, step = int(match[1]), int(match[2]), match[3] or "+", int(match[4] or 1)
    if step < (2 if sign == "*" else 1) or (sign == "*" and first == 0):
        return []
    values, after = list[int](), first
    while len(values) <= _MOST and after <= last:
        values.append(after)
        after = after * step if sign == "*" else after + step
    return values if len(values) <= _MOST else []


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
    if type(number) is not kind:
        return _OTHER
    is_low = limits.min is not None and number < limits.min
    return _OTHER if is_low or (limits.max is not None and number > limits.max) else number
