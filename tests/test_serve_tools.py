# ruff: noqa: RUF001 - models have marks with characters that resemble others
"""Tool calls as clients want them, of the forms that models write."""

import json
from typing import Any

import pytest

from localspec.dialogue.answer_parser import FrameSplitter
from localspec.dialogue.call_grammar import CallFrame, Tags, frame_of
from localspec.dialogue.markers import SECTIONS
from localspec.dialogue.markup import Frame, Markup
from localspec.dialogue.template import ChatTemplate
from localspec.dialogue.tools import calls_of, checked_tools
from localspec.errors import UserError
from localspec.serve.problem import BadRequestError
from localspec.serve.texts import messages_of

PARIS = {"city": "Paris"}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
        '<tool_call>{"arguments": "{\\"city\\": \\"Paris\\"}", "name": "get_weather"}</tool_call>',
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "1"}]',
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}',
        '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}',
        '<function=get_weather>{"city": "Paris"}</function>',
        '<function name="get_weather">{"city": "Paris"}</function>',
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        '<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|>',
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n"
        "</tool_call>",
        '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "get_weather", "parameters":'
        ' {"city": "Paris"}}]<|END_ACTION|>',
    ],
)
def test_the_usual_forms_are_one_call(text: str) -> None:
    calls = calls_of(text)
    assert calls is not None
    assert [call["function"]["name"] for call in calls] == ["get_weather"]
    assert json.loads(calls[0]["function"]["arguments"]) == PARIS
    assert calls[0]["type"] == "function"
    assert calls[0]["id"].startswith("call_")


def test_several_calls_keep_their_order_and_have_ids_of_their_own() -> None:
    one = '<tool_call>{"name": "a", "arguments": {}}</tool_call>\n'
    calls = calls_of(one + one.replace('"a"', '"b"'))
    assert calls is not None
    assert [call["function"]["name"] for call in calls] == ["a", "b"]
    assert calls[0]["id"] != calls[1]["id"]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>get the weather</tool_call>",
        '<tool_call>{"name": "get_weather", "argum',
        "<tool_call>[1, 2]</tool_call>",
        "<tool_call></tool_call>",
        '<tool_call>{"city": "Paris"}</tool_call>',
    ],
)
def test_what_is_no_call_stays_text(text: str) -> None:
    """A cut or garbled call must neither vanish nor end the request."""
    assert calls_of(text) is None


def test_a_conversation_with_calls_reaches_the_template() -> None:
    said: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function",
                 "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
    ]  # fmt: skip
    source = (
        "{% for t in tools %}[{{ t.function.name }}]{% endfor %}"
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.function.name }}({{ c.function.arguments.city }}){% endfor %}{% endfor %}"
    )
    tools = checked_tools([TOOL])
    assert tools
    text = ChatTemplate(source, variables={"tools": list(tools.told)}).render(messages_of(said))
    assert text == "[get_weather]<user>Weather?<assistant>get_weather(Paris)<tool>sunny"


def test_tools_that_may_not_be_called_are_not_told() -> None:
    assert checked_tools([TOOL], "none") is None
    assert checked_tools([]) is None


@pytest.mark.parametrize(
    "choice", ["required", "get_weather", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_choice_names_what_must_be_called(choice: Any) -> None:
    tools = checked_tools([TOOL], choice)
    assert tools
    assert tools.forced == ("get_weather",)


@pytest.mark.parametrize(
    ("tools", "choice", "word"),
    [
        ("x", "auto", "tools is no list"),
        ([{}], "auto", r"tools\[0\]"),
        ([{"function": {"name": "f", "parameters": 3}}], "auto", "parameters"),
        ([{"function": {"name": 'a "b"'}}], "auto", "use letters"),
        ([{"function": {"name": "a\nb"}}], "required", "use letters"),
        ([{"function": {"name": "</tool_call>"}}], "auto", "use letters"),
        ([TOOL], "other", "get_weather"),
        ([TOOL], {"function": {"name": "other"}}, "tool_choice"),
        ([TOOL], 5, "tool_choice"),
        ([], "required", "tool_choice"),
    ],
)
def test_a_wrong_choice_or_a_name_that_no_call_can_say_is_refused(
    tools: Any, choice: Any, word: str
) -> None:
    with pytest.raises(UserError, match=word):
        checked_tools(tools, choice)


@pytest.mark.parametrize("name", ["größe", "mcp__a.b", "server:get/thing-2"])
def test_names_of_other_alphabets_and_servers_are_called(name: str) -> None:
    assert checked_tools([{"function": {"name": name}}], "required")


HERMES = (
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{% for m in messages %}<|im_start|>"
    "{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n'
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TAGGED = (
    "{{ tools }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\n<function={{ c.function.name }}>\n"
    "{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>\n{{ v }}\n</parameter>\n"
    "{% endfor %}</function>\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)


def test_a_templates_frame_of_calls_is_found() -> None:
    found = CallFrame.of(ChatTemplate(HERMES, variables={"tools": [TOOL]}))
    assert found == CallFrame(
        '<tool_call>\n{"name": "',
        '", "arguments": ',
        '}\n</tool_call><tool_call>\n{"name": "',
        "}\n</tool_call>",
    )
    tagged = CallFrame.of(ChatTemplate(TAGGED, variables={"tools": [TOOL]}))
    assert tagged == CallFrame(
        "<tool_call>\n<function=",
        "",
        "</function>\n</tool_call><tool_call>\n<function=",
        "</function>\n</tool_call>",
        Tags(">\n<parameter=", ">\n", "\n</parameter>\n", "<parameter="),
    )


def test_a_template_that_writes_no_calls_gets_the_models_own_marks() -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ tools }}"
    template, sections = ChatTemplate(source), tuple(s for s in SECTIONS if s.kind == "tool_call")
    found = frame_of(template, Markup(sections))
    assert found
    assert found.begin.startswith("<tool_call>")
    assert frame_of(template, Markup()) is None, "and without any it is refused"


@pytest.mark.parametrize("calls", [[{}], [{"function": {"name": "f", "arguments": "{"}}], "x"])
def test_a_malformed_history_of_calls_is_refused(calls: Any) -> None:
    said = [{"role": "assistant", "content": "", "tool_calls": calls}]
    with pytest.raises(BadRequestError, match=r"messages\[0\]"):
        messages_of([{"role": "user", "content": "x"}, *said][::-1])


def test_a_thought_comes_back_with_its_answer() -> None:
    said = messages_of(
        [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": "y", "reasoning_content": "because"},
            {"role": "user", "content": "z"},
        ]
    )
    assert said[1].get("thought") == "because"


HARMONY = (
    "{% if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}{% if m.tool_calls %}{% set c = m.tool_calls[0].function %}"
    "<|start|>assistant to=functions.{{ c.name }}<|channel|>commentary json<|message|>"
    "{{ c.arguments | tojson }}<|call|>{% elif m.role == 'assistant' %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% else %}"
    "<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


def test_a_forced_call_goes_on_in_the_header_that_harmonys_prompt_has_begun() -> None:
    """The recipient is a part of the header; what the model then says is read as that call."""
    template = ChatTemplate(HARMONY, variables={"tools": [TOOL]})
    markup = Markup(frame=Frame())
    frame = frame_of(template, markup)
    assert frame == CallFrame(
        " to=functions.", "<|channel|>commentary json<|message|>", None, "<|call|>"
    )
    name = TOOL["function"]["name"]
    said = f'{frame.begin}{name}{frame.middle}{{"a": 1}}{frame.end}'
    split = FrameSplitter(Frame(), "assistant")
    parts = [*split.feed(said), *split.finish()]
    (call,) = calls_of("".join(part.text for part in parts if part.kind == "tool_call")) or ()
    assert (call["function"]["name"], call["function"]["arguments"]) == (name, '{"a": 1}')
