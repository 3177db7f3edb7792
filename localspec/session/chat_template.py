"""Which chat template a model is talked to with, known from its header, before it is loaded."""

from dataclasses import dataclass

from localspec.dialogue.families import family_of, template_named
from localspec.dialogue.template import ChatTemplate
from localspec.model.tokenizer import Tokenizer

NO_TEMPLATE = "a base model, without a chat template: --template chatml gives it one"


@dataclass(frozen=True, slots=True)
class ChosenTemplate:
    """A Jinja source, None for a base model. `note`: one line about a family's, if it is that."""

    source: str | None
    note: str | None = None

    def compiled(self, bos: str = "", eos: str = "") -> ChatTemplate | None:
        """The template with the texts of two tokens. TemplateError where its source is broken."""
        return None if self.source is None else ChatTemplate(self.source, bos, eos)


def choose_template(tokenizer: Tokenizer) -> ChosenTemplate:
    """The file's own template, or that of the family which its control tokens name."""
    if tokenizer.chat_template is not None:
        return ChosenTemplate(tokenizer.chat_template)
    family = family_of(tokenizer.controls())
    if family is None:
        return ChosenTemplate(None)
    note = f"the file carries no chat template: its control tokens are those of {family}"
    return ChosenTemplate(template_named(family), note)
