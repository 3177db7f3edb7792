"""One option for thinking, whatever a chat template calls it; sampling that a file recommends."""

from typing import Any

import pytest

from localspec.dialogue.template import ChatTemplate, Message
from localspec.dialogue.thinking import think_variables
from localspec.fields import Think
from localspec.session.reply_options import recommended_sampling, reply_options

SWITCH = "{% if enable_thinking is defined and not enable_thinking %}-{% endif %}"
EFFORT = "{% if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif %}"
STRICT = (
    "{% if reasoning_effort is defined and reasoning_effort not in ['high', 'low', 'no_think'] %}"
    "{{ raise_exception('which?') }}{% endif %}"
)
WORDS = "{% if thinking_mode == 'enabled' %}+{% elif thinking_mode == 'disabled' %}-{% endif %}"
BUDGET = "{% if thinking_budget is defined and thinking_budget == 0 %}-{% endif %}"


def told(source: str, level: Think) -> tuple[dict[str, Any], str]:
    template = ChatTemplate(source)

    def render(values: Any) -> str:
        return ChatTemplate(source, variables=values).render([Message(role="user", content="a")])

    found = think_variables(level, source, template.variables, render)
    return dict(found.values), found.note


@pytest.mark.parametrize(
    ("source", "level", "values", "words"),
    [
        (SWITCH, "off", {"enable_thinking": False}, "is given enable_thinking = false"),
        (SWITCH, "on", {"enable_thinking": True}, "is given enable_thinking = true"),
        (SWITCH, "low", {"enable_thinking": True}, "only knows on and off"),
        ("{{ thinking }}", "off", {"thinking": False}, "thinking = false"),
        (EFFORT, "high", {"reasoning_effort": "high"}, "reasoning_effort = high"),
        (EFFORT, "off", {"reasoning_effort": "low"}, "cannot switch thinking off"),
        (EFFORT, "on", {"reasoning_effort": "medium"}, "reasoning_effort = medium"),
        (STRICT, "medium", {"reasoning_effort": "high"}, "reasoning_effort = high"),
        (STRICT, "off", {"reasoning_effort": "no_think"}, "reasoning_effort = no_think"),
        (WORDS, "off", {"thinking_mode": "disabled"}, "thinking_mode = disabled"),
        (BUDGET, "off", {"thinking_budget": 0}, "thinking_budget = 0"),
        (BUDGET, "low", {"thinking_budget": 512}, "thinking_budget = 512"),
        (SWITCH + EFFORT, "low", {"enable_thinking": True, "reasoning_effort": "low"}, "low"),
        (SWITCH + EFFORT, "off", {"enable_thinking": False}, "enable_thinking = false"),
        ("{{ messages[0].content }}", "off", {}, "has no switch for thinking"),
    ],
)
def test_a_template_is_told_in_its_own_words(
    source: str, level: Think, values: dict[str, Any], words: str
) -> None:
    source += "{{ messages[0].content }}"
    assert told(source, level)[0] == values
    assert words in told(source, level)[1]


def test_what_a_file_recommends_stands_below_what_is_chosen() -> None:
    given = {"temp": 0.6000000238, "top_k": 20, "top_p": 0.949999988, "sequence": "k;p"}
    found = recommended_sampling(given)
    assert found.values == {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    assert found.note == (
        "the model's file recommends temperature 0.6, top-k 20, top-p 0.95: used where no option"
        " says otherwise"
    )
    options = reply_options(temperature=0.1, seed=7).with_recommended(found.values)
    sampling = options.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.1, 20, 0.95)
    assert (sampling.min_p, sampling.seed) == (0.05, 7)


@pytest.mark.parametrize(
    "given",
    [{"temp": float("nan")}, {"temp": -3.0}, {"top_p": 7.0}, {"top_k": "\x1b[2J"}, {"min_p": True},
     {"penalty_repeat": 0.0}, {"temp": float("inf")}, {"top_k": 1.5}],
)  # fmt: skip
def test_a_senseless_value_is_refused_by_a_note(given: dict[str, Any]) -> None:
    found = recommended_sampling(given)
    assert not found.values
    assert found.note is not None
    assert "makes no sense and is ignored" in found.note
    assert "\x1b" not in found.note


def test_a_file_without_recommendations_says_nothing() -> None:
    assert recommended_sampling({}).note is None
    options = reply_options(seed=1)
    assert options.with_recommended({}) is options
