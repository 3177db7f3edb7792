"""Models whose template knows no tools, and answers that go on where a message ends."""

from typing import Any

import pytest
from test_chat_parts import CHATML, Letters

from localspec.dialogue.call_grammar import frame_of
from localspec.dialogue.markup import Markup
from localspec.dialogue.prompts import Prompts
from localspec.dialogue.template import ChatTemplate
from localspec.dialogue.tools import CALL, calls_of, knows_tools, with_tools
from localspec.errors import UserError
from localspec.serve.problem import BadRequestError
from localspec.serve.texts import continues, messages_of

TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
CALLED = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
ASKED: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What time is it?"},
    {"role": "assistant", "content": None, "tool_calls": [CALLED]},
    {"role": "tool", "tool_call_id": "1", "content": "noon"},
    {"role": "user", "content": "Are you sure?"},
]


def test_a_model_without_tools_in_its_template_hears_of_them_all_the_same() -> None:
    """Else it would be asked to call what it was never told of."""
    system, question, call, sure = with_tools(messages_of(ASKED), [TOOL])
    assert system["content"].startswith("Be brief.")
    assert '"name": "now"' in system["content"]
    assert question["content"] == "What time is it?"
    (found,) = calls_of(call["content"]) or ()
    assert found["function"]["name"] == "now"
    assert sure["role"] == "user"  # a template without tools knows no role of theirs
    assert sure["content"].index("noon") < sure["content"].index("Are you sure?")


def test_without_a_system_text_the_tools_are_one() -> None:
    first, *_ = with_tools(messages_of(ASKED[1:2]), [TOOL])
    assert (first["role"], "<tools>" in first["content"]) == ("system", True)


def test_calls_of_such_a_model_are_read_and_can_be_forced() -> None:
    template, vocabulary = ChatTemplate(CHATML), Letters()
    assert not knows_tools(template)
    markup = Markup.of(CHATML, vocabulary).with_section(CALL, vocabulary)
    frame = frame_of(template, markup)
    assert frame
    assert frame.begin.startswith("<tool_call>")


@pytest.mark.parametrize("template", [None, CHATML])
def test_an_answer_goes_on_where_the_last_message_ends(template: str | None) -> None:
    """No end of a message stands between what was said and what is said next."""
    prompts = Prompts(template and ChatTemplate(template), Letters())
    said = messages_of(
        [{"role": "user", "content": "abc"}, {"role": "assistant", "content": "x y"}]
    )
    prompt, asked = prompts.continued(said).clean, prompts.rendered(said[:1]).clean
    assert prompt == f"{asked}x y"


ENDS = {"role": "assistant", "content": "It is"}


@pytest.mark.parametrize(
    ("last", "given", "goes_on"),
    [
        (ENDS, {}, True),
        (ENDS, {"continue_final_message": False}, False),
        (ENDS, {"add_generation_prompt": True}, False),
        (ENDS, {"add_generation_prompt": False, "continue_final_message": True}, True),
        (ASKED[1], {}, False),
        (ASKED[2], {}, False),
    ],
)
def test_who_asks_says_whether_it_goes_on(last: Any, given: Any, *, goes_on: bool) -> None:
    assert continues(given, messages_of([ASKED[1], last])) is goes_on


@pytest.mark.parametrize(
    ("last", "given"),
    [
        (ASKED[1], {"continue_final_message": True}),
        (ASKED[1], {"add_generation_prompt": False}),
        (ENDS, {"continue_final_message": True, "add_generation_prompt": True}),
        (ENDS, {"continue_final_message": "yes"}),
    ],
)
def test_what_cannot_go_on_is_refused(last: Any, given: Any) -> None:
    with pytest.raises(BadRequestError):
        continues(given, messages_of([last]))


def test_a_base_model_refuses_tools() -> None:
    from localspec.session.generations import check_tools

    with pytest.raises(UserError, match="no chat template"):
        check_tools(None)
