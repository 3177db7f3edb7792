"""A reply keeps its schema, grammar or expression, whoever drafts and however it is sampled."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import assert_refused, localspec
from models import gemma, smollm2

from localspec.api import Model
from localspec.engine.constraint import Constraint, Grammar, GrammarTokenizer
from localspec.errors import UserError
from localspec.notify import silent
from localspec.session.config import SessionConfig, reply_options

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
        with Model.open(SessionConfig.of(path, ctx=512, gpu_layers=0), silent) as model:
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
    with pytest.raises(UserError, match=r"^the (schema|grammar|regex) cannot be kept: .") as error:
        reply_options(**wrong)
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
