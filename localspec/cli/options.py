"""Options of commands, from the table of `Settings` and from small tables beside it.

A command's parameter that is a dataclass of options becomes one option for each field; Typer reads
a function's signature, so `command` writes one. Which options were given, and not left at their
defaults, is in a field `given`. A shell completes names of models: it waits for each key, so
nothing slow is imported and a broken file completes to nothing.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from localspec.errors import LocalspecError
from localspec.kinds import ModelName
from localspec.settings import ROWS, Row

GIVEN = "given"


def model_names(incomplete: str) -> list[str]:
    """Names that begin so; what is found in other programs' folders only after their prefix."""
    try:
        return sorted({name for name in _names(incomplete) if name.startswith(incomplete)})
    except (LocalspecError, OSError):
        return []


def pulled_names(incomplete: str) -> list[str]:
    """The same of what localspec has pulled: for `remove` and `verify`."""
    try:
        return sorted({name for name in _pulled() if name.startswith(incomplete)})
    except (LocalspecError, OSError):
        return []


def _names(incomplete: str) -> Iterator[str]:
    from localspec.registry.catalog import load_catalog
    from localspec.registry.other_apps import ORIGINS, found_models

    for entry in load_catalog().values():
        yield entry.name
        yield from entry.aliases
    yield from _pulled()
    if incomplete.startswith(("hf:", *ORIGINS)):
        yield from (model.name for model in found_models())


def _pulled() -> Iterator[str]:
    from localspec.registry.manifest import pulled

    for file in pulled():
        yield file.name or file.reference


ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="A name, a path to a .gguf, or hf:owner/repo/file.gguf. Default: the starter.",
        autocompletion=model_names,
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@dataclass(frozen=True, slots=True)
class Option:
    """One option: `flags` beside the one that its name makes; `more` is Typer's."""

    help: str
    flags: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def of_typer(self) -> Any:
        return typer.Option(*self.flags, help=self.help, **self.more)


def option(default: Any, help_: str, *flags: str, panel: str | None = None, **more: Any) -> Any:
    """A dataclass's field that is an option."""
    found = Option(help_, flags, {"rich_help_panel": panel, **more})
    return field(default=default, metadata={"option": found})


def setting(name: str, help_: str | None = None, *, panel: str | None = None, **more: Any) -> Any:
    """The same of one setting, perhaps in other words or with another default."""
    row = ROWS[name]
    default = more.pop("default", row.default)
    return option(default, help_ or row.help, panel=panel, **{**_more(row), **more})


def _more(row: Row) -> dict[str, Any]:
    more: dict[str, Any] = {"metavar": row.kind.metavar}
    if isinstance(row.kind, ModelName):
        more["autocompletion"] = model_names
    return more


Parameters = list[inspect.Parameter]


def _parameter(name: str, default: Any, kind: Any, found: Option) -> inspect.Parameter:
    annotation = Annotated[kind, found.of_typer()]
    only = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, only, default=default, annotation=annotation)


def _spread(group: type[Any]) -> Parameters:
    """An option for each field of a dataclass that is one."""
    hints = get_type_hints(group)
    found: Parameters = []
    for each in fields(group):
        row = each.metadata.get("row") and ROWS[each.name]
        shown = each.metadata.get("option")
        if row and row.is_offered:
            shown = Option(row.help, (), {"rich_help_panel": row.panel, **_more(row)})
        if shown:
            found.append(_parameter(each.name, each.default, hints[each.name], shown))
    return found


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The same command with each dataclass parameter spread into its fields, keyword by keyword."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, tuple[type[Any], Parameters]] = {}
    own: Parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if is_dataclass(hints[name]):
            groups[name] = hints[name], _spread(hints[name])
        else:
            only = inspect.Parameter.KEYWORD_ONLY
            own.append(parameter.replace(annotation=hints[name], kind=only))

    @wraps(function)
    def spread(context: typer.Context, **values: Any) -> None:
        for name, (group, parameters) in groups.items():
            names = [parameter.name for parameter in parameters]
            chosen = {each: values.pop(each) for each in names}
            if any(each.name == GIVEN for each in fields(group)):
                chosen[GIVEN] = _given(context, names)
            values[name] = group(**chosen)
        function(**values)

    context = inspect.Parameter(
        "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
    )
    spreaded = [context, *(p for _, parameters in groups.values() for p in parameters), *own]
    spread.__signature__ = inspect.Signature(spreaded)  # type: ignore[attr-defined]
    spread.__annotations__ = {each.name: each.annotation for each in spreaded}
    return spread


def _given(context: typer.Context, names: Iterable[str]) -> frozenset[str]:
    """Which of the options have a value from the command line and not their default."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return frozenset(n for n, source in sources.items() if source and source.name != "DEFAULT")
