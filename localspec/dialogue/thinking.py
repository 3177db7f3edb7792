"""Whether and how long a model thinks, by the variables that its chat template names.

There is no common name. Switches are true or false, or words; efforts are words, of which a
template may refuse some; a budget counts tokens. Sources: the templates in models/templates of
llama.cpp, and its `--reasoning` and `--reasoning-budget`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from localspec.dialogue.template import TemplateError
from localspec.fields import Think

LEVELS: tuple[str, ...] = get_args(Think)
SWITCHES = ("enable_thinking", "thinking", "reasoning", "think", "enable_reasoning", "add_thoughts")
WORDS = {"thinking_mode": ("enabled", "disabled"), "thinking_option": ("on", "off")}
EFFORTS = ("reasoning_effort", "thinking_effort", "reasoning_strength")
BUDGETS = ("thinking_budget", "reasoning_budget")

_EFFORT = {
    "on": ("medium", "high"),
    "off": ("none", "no_think", "minimal", "low"),
    "low": ("low", "minimal", "medium", "high"),
    "medium": ("medium", "high", "low"),
    "high": ("high", "max", "medium"),
}
"""Words for a level, the nearest first."""
_BUDGET = {"on": -1, "off": 0, "low": 512, "medium": 4096, "high": 16384}
"""In tokens; -1 has no limit. Seed-OSS was trained with steps of these sizes."""


@dataclass(frozen=True, slots=True)
class ThinkVariables:
    """`values` for a template, and one sentence about them."""

    values: Mapping[str, Any]
    note: str


def think_variables(
    level: Think, source: str, names: Collection[str], render: Callable[[Mapping[str, Any]], object]
) -> ThinkVariables:
    """What tells a template, which names the variables `names`, to think so.

    `render` tries values and raises TemplateError where the template refuses them.
    """
    is_on = level != "off"
    values: dict[str, Any] = {name: is_on for name in SWITCHES if name in names}
    values |= {name: words[not is_on] for name, words in WORDS.items() if name in names}
    values |= {name: _BUDGET[level] for name in BUDGETS if name in names}
    if not (values and level in ("on", "off")):
        efforts = [name for name in EFFORTS if name in names]
        words = {name: _word(name, level, source, values, render) for name in efforts}
        values |= {name: word for name, word in words.items() if word is not None}
    return ThinkVariables(values, _note(level, values))


def _word(
    name: str,
    level: Think,
    source: str,
    others: Mapping[str, Any],
    render: Callable[[Mapping[str, Any]], object],
) -> str | None:
    """The nearest word that the template takes; one that switches off must be its own."""
    for word in _EFFORT[level]:
        is_own = f"'{word}'" in source or f'"{word}"' in source
        if not is_own and level == "off" and word != "low":
            continue
        try:
            render({**others, name: word})
        except TemplateError:
            continue
        return word
    return None


def _note(level: Think, values: Mapping[str, Any]) -> str:
    if not values:
        return f"the chat template has no switch for thinking: --think {level} changes nothing"
    told = ", ".join(f"{name} = {_shown(value)}" for name, value in values.items())
    only_effort = values.keys() <= set(EFFORTS)
    if level == "off" and only_effort and set(values.values()) <= {"low", "minimal"}:
        return f"--think off: the chat template cannot switch thinking off, so {told}"
    if level not in ("on", "off") and not values.keys() & {*EFFORTS, *BUDGETS}:
        return f"--think {level}: the chat template only knows on and off, so {told}"
    return f"--think {level}: the chat template is given {told}"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
