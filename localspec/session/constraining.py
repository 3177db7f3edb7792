"""What a reply keeps, given where its answer begins: behind a thought or the header of a message.

A grammar speaks of the answer. Where the prompt has opened a thought, it counts from the end of
that; in models that answer in channels, from the header of the final one. Until then all is free
but an end. A call that must be made is a grammar of its own, in the frame of the template.
"""

import re
from dataclasses import replace

from localspec.dialogue.call_grammar import CallGrammar, Function, frame_of
from localspec.dialogue.markup import UNOPENED, Markup, Opening
from localspec.dialogue.prompts import Prompts
from localspec.dialogue.template import ChatTemplate
from localspec.engine.constraint import Grammar
from localspec.engine.vocabulary import Vocabulary
from localspec.errors import UserError
from localspec.session.config import ReplyOptions


def constrained(
    options: ReplyOptions,
    opening: Opening,
    prompts: Prompts,
    markup: Markup,
    vocabulary: Vocabulary,
) -> ReplyOptions:
    """The options with what the answer keeps. UserError where that cannot be enforced."""
    tools = options.tools
    if tools is None or not tools.forced:
        grammar = options.grammar
        after = _answer_begins(opening, markup)
        return replace(options, grammar=grammar and replace(grammar, after=after))
    if options.grammar is not None:
        raise UserError(f"tool_choice forces a call, which keeps no {options.grammar.kind}")
    frame = prompts.template and frame_of(prompts.template, markup)
    if frame is None:
        raise UserError("tool_choice cannot be enforced with this chat template: use auto")
    told = [Function.of(tool) for tool in tools.told]
    functions = [function for function in told if function.name in tools.forced]
    text = CallGrammar(frame, functions, vocabulary, tools.parallel).text
    after = _thought_ends(opening)
    return replace(options, grammar=Grammar("tools", text, after))


def check_tools(template: ChatTemplate | None) -> None:
    """UserError where there is none: a base model only continues texts."""
    if template is None:
        raise UserError("this model has no chat template and calls no tools: leave them out")


def _thought_ends(opening: Opening) -> str:
    """An expression for the end of a thought that is open; empty: none is."""
    section = opening.section
    if section is None or section.kind != "thought":
        return ""
    return "|".join(map(re.escape, section.closings))


def _answer_begins(opening: Opening, markup: Markup) -> str:
    """The same, or for the header of a message to the user."""
    if opening == UNOPENED or markup.frame is None:
        return _thought_ends(opening)
    frame, header = markup.frame, opening.header
    if frame.body in header:
        is_answer = frame.kind_of(header.partition(frame.body)[0]) == "text"
        return "" if is_answer else _final(frame.channels[0], frame.body)
    return _final("" if "final" in header else frame.channels[0], frame.body)


def _final(channel: str, body: str) -> str:
    begin = f"{re.escape(channel)}final" if channel else ""
    return rf"{begin}[^<]*(?:<\|constrain\|>\w*)?{re.escape(body)}"
