"""A call that must be made is made, in the template's own frame, whatever the model would say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from models import smollm2
from test_serve_tools import HERMES, TAGGED

from localspec.api import Model
from localspec.decode.drafters.forced import ForcedDrafter
from localspec.decode.driver import drive
from localspec.decode.speculator import Fixed, Plain
from localspec.dialogue.tools import calls_of
from localspec.errors import UserError
from localspec.notify import silent
from localspec.session.reply_options import reply_options
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

jsonschema = pytest.importorskip("jsonschema")
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "unit": {"enum": ["celsius", "kelvin"], "type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "now"}},
]


@pytest.fixture(scope="module", params=["hermes", "tagged"])
def model(
    request: pytest.FixtureRequest, tested_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Model]:
    """The second template opens a thought, which comes before the call."""
    path = tmp_path_factory.mktemp("templates") / "template.jinja"
    path.write_text({"hermes": HERMES, "tagged": TAGGED}[request.param])
    config = SessionConfig.of(smollm2(), ctx=1024, gpu_layers=0, template=str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALSPEC_HOME", str(tested_home))
        with Model(Session.open(config, silent, talks=True)) as model:
            yield model


@pytest.mark.parametrize("model", ["hermes"], indirect=True)
@pytest.mark.parametrize("how", [{"temperature": 0}, {"seed": 2}, {"seed": 3, "temperature": 1.4}])
def test_a_named_call_is_made_with_right_arguments(model: Model, how: dict[str, Any]) -> None:
    reply = model.chat(
        "Hello!", tools=TOOLS, tool_choice="get_weather", parallel_tool_calls=False, **how
    )
    (call,) = reply.tool_calls
    assert call["function"]["name"] == "get_weather"
    jsonschema.validate(json.loads(call["function"]["arguments"]), WEATHER)
    assert reply.text.strip() == ""


@pytest.mark.parametrize("model", ["hermes"], indirect=True)
def test_one_of_all_is_required_and_drafts_change_nothing(model: Model) -> None:
    session = model.session
    options = reply_options(tools=TOOLS, tool_choice="required", temperature=0, max_tokens=150)
    prompts = session.prompts_for(options)
    prompt = prompts.rendered([{"role": "user", "content": "Which day is it?"}])
    opening = session.markup.opening(prompt.clean, prompt.asking)
    options = session.constrained(options, opening, prompts)
    ids = prompts.ids(prompt)
    plain = session.reply(ids, options, Plain()).finish()
    drafted = session.reply(ids, options, Fixed(ForcedDrafter(), 16)).finish()
    assert plain.tokens == drafted.tokens
    assert drafted.stats.passes < plain.stats.passes
    assert "<tool_call>" in plain.text


@pytest.mark.parametrize("model", ["hermes"], indirect=True)
def test_a_schema_and_a_forced_call_contradict_each_other(model: Model) -> None:
    with pytest.raises(UserError, match="tool_choice"):
        model.chat("Hi", tools=TOOLS, tool_choice="now", schema={"type": "object"})
    with pytest.raises(UserError, match="without raw"):
        model.generate("Hi", tools=TOOLS)


@pytest.mark.parametrize("model", ["tagged"], indirect=True)
def test_a_grammar_counts_behind_the_thought(model: Model) -> None:
    """The template opens a thought; `</think>` is text in this vocabulary."""
    session = model.session
    options = reply_options(
        tools=TOOLS, tool_choice="get_weather", parallel_tool_calls=False, seed=1, max_tokens=200
    )
    prompts = session.prompts_for(options)
    asked = prompts.rendered([{"role": "user", "content": "What is the weather in Paris?"}])
    opening = session.markup.opening(asked.clean, asked.asking)
    options = session.constrained(options, opening, prompts)
    thought = session.raw_prompt("They ask for Paris.\n</think>")
    generation = session.generations.of(prompts.ids(asked), options)
    generation.history += thought  # what the model said until now
    for _ in drive(generation, session.context, Plain(), session.target.interrupt):
        pass
    parser = session.parser(options, session.markup, opening)
    parts = [part for token in generation.tokens for part in parser.push(token)] + parser.finish()
    (call,) = calls_of("".join(p.text for p in parts if p.kind == "tool_call")) or ()
    arguments = json.loads(call["function"]["arguments"])
    assert arguments["unit"] in ("celsius", "kelvin")
    assert set(arguments) <= set(WEATHER["properties"])
    assert generation.finish_reason == "stop"
