"""The tools that a model may call, as OpenAI writes them, and whether it must."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localspec.errors import UserError


@dataclass(frozen=True, slots=True)
class Tools:
    """`told` are those that the template is told of. `forced` are names of which one at least must
    be called, `parallel`: several may be."""

    told: Sequence[Mapping[str, Any]]
    forced: tuple[str, ...] = ()
    parallel: bool = True


def checked_tools(tools: Any, choice: Any = "auto", parallel: Any = True) -> Tools | None:
    """From OpenAI's fields, or a name as `choice`; None where none is told. UserError."""
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise UserError("tools is no list")
    if not isinstance(parallel, bool):
        raise UserError(f"parallel_tool_calls {parallel!r} is neither true nor false")
    names = [_name_of(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    forced = _forced(choice, names)
    return Tools(tools, forced, parallel) if tools and choice != "none" else None


def _name_of(tool: Any, where: str) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        raise UserError(f"{where} is no function with a name")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        raise UserError(f"{where} is no function with a name")
    if not isinstance(parameters, Mapping | None):
        raise UserError(f"{where} has parameters that are no JSON schema")
    return name


def _forced(choice: Any, names: list[str]) -> tuple[str, ...]:
    if choice in ("auto", "none"):
        return ()
    if choice == "required":
        wanted = names
    elif isinstance(choice, Mapping):
        function = choice.get("function", choice)
        wanted = [function.get("name")] if isinstance(function, Mapping) else []
    else:
        wanted = [choice]
    if not wanted or not all(name in names for name in wanted):
        known = ", ".join(["auto", "none", "required", *names])
        raise UserError(f"tool_choice {choice!r} is not one of {known}")
    return tuple(dict.fromkeys(wanted))
