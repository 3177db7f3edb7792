"""Give several Typer commands the same options: a dataclass parameter becomes one option for each
field.

    @dataclass(frozen=True)
    class Flags:
        ctx: Annotated[int | None, typer.Option(help="...")] = None

    @flatten
    def command(flags: Flags) -> None: ...

Typer reads a function's signature, so `flatten` writes one. A field `given` is no option: it gets
the names of those fields of its dataclass that the user gave a value.
"""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

import typer

GIVEN = "given"
_CONTEXT = "context"


def flatten(command: Callable[..., None]) -> Callable[..., None]:
    """The same command with each dataclass parameter spread into its fields, keyword by keyword."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name]
            parameters += _parameters(hints[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name]))

    @wraps(command)
    def spread(**values: Any) -> None:
        context = values.pop(_CONTEXT)
        for name, kind in groups.items():
            names = [field.name for field in fields(kind)]
            given = _given(context, names)
            values[name] = kind(**{n: given if n == GIVEN else values.pop(n) for n in names})
        command(**values)

    context = inspect.Parameter(_CONTEXT, inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    parameters.append(context)
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    spread.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    return spread


def _parameters(kind: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
        if field.name != GIVEN
    ]


def _given(context: typer.Context, names: list[str]) -> frozenset[str]:
    """Which of the options have a value from the command line and not their default."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return frozenset(n for n, source in sources.items() if source and source.name != "DEFAULT")
