"""A reply keeps its schema, grammar or expression, whoever drafts and however it is sampled."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from command import assert_refused, localspec
from models import gemma, smollm2

from localspec.api import Model
from localspec.decode.drafters.forced import ForcedDrafter
from localspec.decode.speculator import Fixed, Plain
from localspec.engine.constraint import Constraint, Grammar, GrammarTokenizer
from localspec.errors import UserError
from localspec.notify import silent
from localspec.session.reply_options import reply_options
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

jsonschema = pytest.importorskip("jsonschema")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
CHOICE = 'root ::= "yes, " ("it is" | "they are") | "no"'
DATE = r"[0-9]{4}-[01][0-9]-[0-3][0-9]"
ASKED = "Describe Ann, who is 30 and likes red, as JSON."


@pytest.fixture(scope="module", params=["smollm2", "gemma"])
def model(request: pytest.FixtureRequest, tested_home: Path) -> Iterator[Model]:
    path = {"smollm2": smollm2, "gemma": gemma}[request.param]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALSPEC_HOME", str(tested_home))
        with Model(Session.open(SessionConfig.of(path, ctx=512, gpu_layers=0), silent)) as model:
            yield model


@pytest.mark.parametrize("how", [{"temperature": 0}, {"seed": 1}, {"temperature": 1.5, "seed": 2}])
def test_a_schema_is_kept(model: Model, how: dict[str, Any]) -> None:
    reply = model.chat(ASKED, schema=PERSON, max_tokens=200, **how)
    assert reply.finish_reason == "stop"
    jsonschema.validate(json.loads(reply.text), PERSON)


@pytest.mark.parametrize("asked", [{"grammar": CHOICE}, {"regex": DATE}], ids=str)
def test_a_grammar_and_an_expression_are_kept(model: Model, asked: dict[str, str]) -> None:
    texts = {model.chat("Say it.", seed=seed, **asked).text for seed in range(4)}
    pattern = DATE if "regex" in asked else "yes, (it is|they are)|no"
    assert all(re.fullmatch(pattern, text) for text in texts), texts


@pytest.mark.parametrize("model", ["smollm2"], indirect=True)
def test_drafts_change_nothing(model: Model) -> None:
    """Look-ups find much of the schema in the prompt, and some of it is forbidden."""
    text = f"{ASKED} Schema: {json.dumps(PERSON)}"
    session, ids = model.session, model.session.chat_prompt([{"role": "user", "content": text}])
    options = reply_options(schema=PERSON, temperature=0, max_tokens=120)
    plain = session.reply(ids, options, session.speculator("none")).finish()
    drafted = session.reply(ids, options, session.speculator("lookup", 8)).finish()
    assert drafted.stats.drafted > 0
    assert drafted.tokens == plain.tokens


def test_what_a_history_loses_is_taken_back(model: Model) -> None:
    """Each place of a draft is asked about, and a rejected draft leaves no trace."""
    vocabulary = model.session.target.vocabulary
    grammar = Grammar("regex", "[a-z]{1,4}[0-9]")
    tokenizer = GrammarTokenizer(vocabulary)

    def ids(text: str) -> list[int]:
        return vocabulary.tokenize(text, add_special=False, goes_on=True)

    kept, prompt, seven = Constraint.of(grammar, tokenizer, 2), [1, 2], ids("7")[-1]
    for said in (ids("a"), ids("ab"), ids("a"), ids("zz"), [*ids("z"), seven], []):
        fresh = Constraint.of(grammar, tokenizer, 2)
        assert (kept.allowed(prompt + said) == fresh.allowed(prompt + said)).all()
        assert kept.allows(prompt + said, seven) == bool(fresh.allowed(prompt + said)[seven])
    ended = [*prompt, *ids("a"), seven, min(vocabulary.eog), 5]
    assert kept.allowed(ended).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": {"not": {"type": "string"}}},
        {"schema": {"type": "strin"}},
        {"schema": "{"},
        {"grammar": "root ::= undefined"},
        {"grammar": "root"},
        {"regex": "("},
        {"regex": r"(?<=a)b"},
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=r"^the (schema|grammar|regex) (cannot be kept|is no JSON): ."
    ) as error:
        reply_options(**wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"anyOf": [{"$ref": "#"}]}], ids=str)
def test_a_schema_that_no_text_keeps_ends_the_reply_in_a_sentence(
    model: Model, schema: dict[str, Any]
) -> None:
    """It is its own part for ever; an empty text would not be JSON."""
    with pytest.raises(
        UserError, match="the grammar cannot be followed further: no token"
    ) as error:
        model.chat(ASKED, schema=schema, max_tokens=8)
    assert "\n" not in str(error.value)


def test_one_of_them_at_a_time_and_it_says_where_the_end_is(model: Model) -> None:
    with pytest.raises(UserError, match="give one"):
        reply_options(schema=True, regex="a")
    with pytest.raises(UserError, match="ignore-eos"):
        model.chat("Hello.", regex="a", ignore_eos=True)


def test_the_command(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(PERSON))
    run = localspec("generate", smollm2(), "-p", ASKED, "--json-schema", schema, "-n", "200")
    jsonschema.validate(json.loads(run.stdout), PERSON)
    run = localspec("generate", smollm2(), "-p", "A date:", "--raw", "--regex", DATE)
    assert re.fullmatch(DATE, run.stdout.strip())
    missing = localspec("generate", smollm2(), "-p", "Hi", "--grammar", tmp_path / "none.gbnf")
    assert_refused(missing, 2, "none.gbnf", "cannot be read")
    schema.write_text("[1]")
    assert_refused(
        localspec("generate", smollm2(), "-p", "Hi", "--json-schema", schema), 2, "an object"
    )


class Constant:
    """A schema of one value: all of its text is forced but for blanks."""

    keys = ("identification_number", "international_designation", "manufacturing_location")
    schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {key: {"enum": [f"the only {key} there is"]} for key in keys},
        "required": list(keys),
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "how", [{"temperature": 0}, {"seed": 5}, {"seed": 5, "verify": "rejection"}]
)
def test_forced_tokens_save_passes_and_change_nothing(model: Model, how: dict[str, Any]) -> None:
    session = model.session
    ids = session.raw_prompt("The record as JSON:\n")
    options = reply_options(schema=Constant.schema, max_tokens=120, **how)
    plain = session.reply(ids, options, Plain()).finish()
    drafted = session.reply(ids, options, Fixed(ForcedDrafter(), 16)).finish()
    assert plain.tokens == drafted.tokens
    assert plain.finish_reason == drafted.finish_reason == "stop"
    assert drafted.stats.passes < 0.7 * plain.stats.passes
    jsonschema.validate(json.loads(drafted.text), Constant.schema)


def test_a_reply_ends_where_nothing_else_can_follow(model: Model) -> None:
    """The pass that would only find the end token is saved, and `max_tokens` still counts first."""
    reply = model.chat("Say it.", regex="abc", temperature=0)
    assert (reply.text, reply.finish_reason) == ("abc", "stop")
    assert reply.stats.passes == len(reply.tokens)
    cut = model.chat("Say it.", regex="abc", temperature=0, max_tokens=len(reply.tokens))
    assert cut.finish_reason == "length"


def test_many_prompts_are_answered_in_order_and_a_bad_line_loses_nothing(tmp_path: Path) -> None:
    lines = tmp_path / "prompts.jsonl"
    asked: list[Any] = [
        {"id": "a", "prompt": "Say it.", "regex": "abc"},
        "A date, please.",
        {"prompt": "x", "temprature": 1},
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "regex": None},
        {"prompt": "x", "messages": []},
        [1],
        {"id": 5, "prompt": "Say it.", "regex": "no"},
    ]
    text = "\n".join(map(json.dumps, asked)) + "\n{broken\n\n" + json.dumps({"prompt": "  "})
    lines.write_text(text)
    run = localspec("generate", smollm2(), "--jsonl", lines, "--regex", DATE, "--temp", "0")
    assert run.code == 1
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["line"] for each in found] == [1, 2, 3, 4, 5, 6, 7, 8, 10]
    assert [each.get("id") for each in found] == ["a", *[None] * 5, 5, None, None]
    assert (found[0]["text"], found[6]["text"]) == ("abc", "no")
    assert re.fullmatch(DATE, found[1]["text"])
    assert found[3]["completion_tokens"] == 2
    assert ["error" in each for each in found] == [0, 0, 1, 0, 1, 1, 0, 1, 1]
    assert "temperature" in found[2]["error"]
    assert_refused(localspec("generate", smollm2(), "--jsonl", tmp_path / "none"), 2, "none")
    assert_refused(localspec("generate", smollm2(), "--jsonl", lines, "-p", "x"), 2, "--jsonl")
