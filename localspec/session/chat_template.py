"""Which chat template a model is talked to with, known from its header, before it is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from localspec.dialogue.families import FAMILIES, family_of, template_named
from localspec.dialogue.template import ChatTemplate
from localspec.errors import UserError
from localspec.model.tokenizer import Tokenizer

AUTO = "auto"
NO_TEMPLATE = "a base model, without a chat template: --template chatml gives it one"


@dataclass(frozen=True, slots=True)
class ChosenTemplate:
    """A Jinja source, None for a base model. `note`: one line about a family's, if it is that."""

    source: str | None
    note: str | None = None

    def compiled(
        self,
        bos: str = "",
        eos: str = "",
        variables: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> ChatTemplate | None:
        """As `ChatTemplate`. TemplateError where the source is broken."""
        if self.source is None:
            return None
        return ChatTemplate(self.source, bos, eos, variables, now)


def choose_template(tokenizer: Tokenizer, wanted: str = AUTO) -> ChosenTemplate:
    """The one that is wanted, the file's own, or that of the family of its control tokens.

    `wanted`: a family's name or a file. UserError where there is none.
    """
    if wanted != AUTO:
        return ChosenTemplate(_named(wanted))
    if tokenizer.chat_template is not None:
        return ChosenTemplate(tokenizer.chat_template)
    family = family_of(tokenizer.controls())
    if family is None:
        return ChosenTemplate(None)
    note = f"the file carries no chat template: its control tokens are those of {family}"
    return ChosenTemplate(template_named(family), note)


def _named(wanted: str) -> str:
    """The source of a family's template, or of a file's."""
    path = Path(wanted).expanduser()
    if wanted in FAMILIES or not (path.exists() or path.suffix or path.name != wanted):
        return template_named(wanted)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--template {path} is not UTF-8 text: give a Jinja template") from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--template {path} cannot be read: {reason}") from error
