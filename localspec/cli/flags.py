"""The options that commands share: settings, sampling and what an answer keeps.

A full web or hub reference is fetched first.
"""

import json
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from localspec.cli.options import option
from localspec.cli.output import notify
from localspec.cli.prompts import check_text
from localspec.cli.pull import fetched
from localspec.errors import UserError
from localspec.fields import Think
from localspec.sampling_fields import SAMPLING
from localspec.settings import ROWS, Settings

if TYPE_CHECKING:
    from localspec.session.reply_options import ReplyKeywords
    from localspec.session.session_config import SessionConfig

ENGINE = "Engine"
SPECULATION = "Speculation"
_SAMPLING = "Sampling"
PROMPT = "Prompt"
WhenSampled = Literal["auto", "match", "rejection"]
_CHOICES = {each.option: each.name for each in SAMPLING.values()}
"""Keywords of a reply by the names of options."""


def _sampled(name: str) -> Any:
    """An option for a field of `Sampling`."""
    row = SAMPLING[name]
    high = None if row.high == inf else row.high
    return option(row.default, row.help, panel=_SAMPLING, min=row.low, max=high)


@dataclass(frozen=True)
class EngineFlags(Settings):
    """How the model is loaded and run."""

    verify: WhenSampled = option(
        "auto",
        "How sampled drafts are accepted; auto: match with --seed, else rejection.",
        panel=SPECULATION,
    )
    no_profile: bool = option(
        False, "Ignore the settings that `tune` kept.", "--no-profile", panel=ENGINE
    )
    no_auto: bool = option(
        False, "Leave open settings as the engine has them; do not measure.", "--no-auto",
        panel=ENGINE,
    )  # fmt: skip
    given: frozenset[str] = frozenset()

    def session_config(self, model: str | None) -> "SessionConfig":
        """Names resolved to files. Raises UserError or ModelError."""
        from localspec.session.session_config import session_config

        settings = Settings(**{name: getattr(self, name) for name in ROWS})
        given = None if self.no_profile else self.given
        return session_config(model, settings, given, notify, fetched, is_auto=not self.no_auto)


@dataclass(frozen=True)
class ReplyFlags:
    """How tokens are chosen, and where a reply ends."""

    temp: float = _sampled("temperature")
    top_k: int = _sampled("top_k")
    top_p: float = _sampled("top_p")
    min_p: float = _sampled("min_p")
    repeat_penalty: float = _sampled("repeat_penalty")
    frequency_penalty: float = _sampled("frequency_penalty")
    presence_penalty: float = _sampled("presence_penalty")
    repeat_last_n: int = _sampled("repeat_last_n")
    logit_bias: list[str] | None = option(
        None, "Add to the scores of a token, or of a text's; false forbids. May be repeated.",
        panel=_SAMPLING, metavar="TOKEN=N",
    )  # fmt: skip
    seed: int | None = option(None, "Same seed, same reply. Default: random.", panel=_SAMPLING)
    max_tokens: int | None = option(
        None, "Stop after N tokens. Default: at the end.", "--max-tokens", "-n", min=0, metavar="N"
    )
    min_tokens: int | None = option(
        None, "No end token before N tokens.", "--min-tokens", min=0, metavar="N"
    )
    stop: list[str] | None = option(None, "Stop before this text; may be repeated.", metavar="TEXT")
    ignore_eos: bool = option(False, "Never choose an end token.", "--ignore-eos")
    system: str | None = option(None, "System prompt.", metavar="TEXT")
    think: Think | None = option(
        None, "Whether and how long the model thinks, as far as its template knows.", panel=PROMPT
    )
    template_arg: list[str] | None = option(
        None, "A variable for the chat template, in JSON or as text; may be repeated.",
        metavar="NAME=VALUE", panel=PROMPT,
    )  # fmt: skip
    given: frozenset[str] = frozenset()

    def keywords(self, verify: WhenSampled) -> "ReplyKeywords":
        """As the library takes them. Raises UserError for a text that is not UTF-8."""
        check_text("--system", self.system or "")
        such = "enable_thinking=false"
        variables = (variable(text, "--template-arg", such) for text in self.template_arg or ())
        usual = {each.name: each.default for each in fields(self)}
        chosen: Any = {  # a model's file may recommend the rest
            keyword: getattr(self, name)
            for name, keyword in _CHOICES.items()
            if name in self.given or getattr(self, name) != usual[name]
        }
        sampling: ReplyKeywords = chosen
        return {
            **sampling,
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "min_tokens": self.min_tokens,
            "logit_bias": list(map(_bias, self.logit_bias or ())),
            "stop": [check_text("--stop", text) for text in self.stop or ()],
            "verify": verify,
            "ignore_eos": self.ignore_eos,
            "think": self.think,
            "template_args": dict(variables),
        }


@dataclass(frozen=True)
class GrammarFlags:
    """What the reply keeps."""

    json_schema: str | None = option(
        None, "Reply in JSON that keeps the schema in this file.", "--json-schema",
        metavar="FILE", panel=PROMPT,
    )  # fmt: skip
    grammar: str | None = option(
        None, "Keep the grammar in this file, GBNF or Lark.", "--grammar", metavar="FILE",
        panel=PROMPT,
    )  # fmt: skip
    regex: str | None = option(
        None, "Keep this regular expression.", "--regex", metavar="TEXT", panel=PROMPT
    )

    @property
    def keywords(self) -> "ReplyKeywords":
        """As the library takes them. Raises UserError for a file that cannot be read."""
        from localspec.store import read_text

        schema, grammar = self.json_schema, self.grammar
        return {
            "schema": schema and read_text(Path(schema), f"the schema {schema!r}"),
            "grammar": grammar and read_text(Path(grammar), f"the grammar {grammar!r}"),
            "regex": self.regex,
        }


def _bias(text: str) -> tuple[str, Any]:
    """A token and what is added. UserError for a text that is not TOKEN=N."""
    from localspec.session.reply_options import wanted_biases

    key, _, value = check_text("--logit-bias", text).rpartition("=")
    try:
        pair = key, json.loads(value)
    except ValueError:
        pair = "", None
    if wanted_biases([pair]):
        raise UserError(f"--logit-bias {text!r} is not TOKEN=N: 1234=-1.5 or ' Paris'=false, say")
    return pair


def variable(text: str, what: str, such: str) -> tuple[str, Any]:
    """A name and its value, in JSON or as text. UserError for a text that is not NAME=VALUE."""
    name, sign, value = check_text(what, text).partition("=")
    if not sign or not name.strip().isidentifier():
        raise UserError(f"{what} {text!r} is not NAME=VALUE: {such}, say")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value
