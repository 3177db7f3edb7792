# ruff: noqa: RUF001 - models have marks with characters that resemble others
"""The marks that models write round their thoughts, answers and tool calls: one table.

A row is a section of an answer. A model has it if its template names the row's evidence, or if its
vocabulary has the marks as tokens of their own. The facts are of the models' published chat
templates. A model whose marks are not here writes plain text.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["thought", "text", "tool_call"]
Place = Literal["start", "after", "line", "any"]
"""Where an opening mark counts that is spelled in ordinary tokens: at the start of a section,
behind a thought, at the start of a line, anywhere. Elsewhere it is text about the mark."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of an answer from `opening` to one of `closings`; without any, to the end.

    `evidence`: texts that a template of this model has, all of them; empty: `opening` itself.
    """

    kind: Kind
    opening: str
    closings: tuple[str, ...] = ()
    place: Place = "start"
    evidence: tuple[str, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        return (self.opening, *self.closings)

    def is_closed_in(self, text: str) -> bool:
        """Whether it ends there behind its last beginning."""
        begun = text.rfind(self.opening) + len(self.opening)
        return any(text.find(mark, begun) >= 0 for mark in self.closings)

    def is_named_in(self, source: str) -> bool:
        """Whether a template speaks of it."""
        return all(text in source for text in self.evidence or (self.opening,))


THINK = Section("thought", "<think>", ("</think>",))
"""Of most models; also of some whose template does not say so."""

_SOLAR = ("<|think|>", "<|content|>")
_THOUGHTS = (
    THINK,
    Section("thought", "[THINK]", ("[/THINK]",)),
    Section("thought", "<|channel>thought", ("<channel|>",), evidence=("<|channel>",)),
    Section("thought", "<|START_THINKING|>", ("<|END_THINKING|>",)),
    Section("thought", "<seed:think>", ("</seed:think>",)),
    Section("thought", "<mm:think>", ("</mm:think>",)),
    Section("thought", "<thought>", ("</thought>",)),
    Section("thought", "<Thought>", ("</Thought>",)),
    Section("thought", "<thinking>", ("</thinking>",)),
    Section("thought", "<reasoning>", ("</reasoning>",)),
    Section("thought", "<think_fast>", ("</think_fast>",)),
    Section("thought", "<think_faster>", ("</think_faster>",)),
    Section("thought", "<unused94>thought", ("<unused95>",), evidence=("<unused94>",)),
    Section("thought", "## Thinking", ("## Final Response",),
            evidence=("## Thinking", "## Final Response")),
    Section("thought", "<longcat_think>", ("</longcat_think>",)),
    Section("thought", "<think:opensource>", ("</think:opensource>",),
            evidence=("<think{}>", ":opensource")),
    Section("thought", "◁think▷", ("◁/think▷",)),
    Section("thought", "<|open|>think<|sep|>", ("<|close|>think<|sep|>",),
            evidence=("<|open|>", "<|close|>", "<|sep|>")),
    Section("thought", "<|think|>", ("<|end|>",), "any", _SOLAR),
    Section("thought", "<|inner_prefix|>", ("<|inner_suffix|>",)),
    Section("thought", "<|begin_of_thought|>", ("<|end_of_thought|>",)),
    Section("thought", "Here are my reasoning steps:", ("[BEGIN FINAL RESPONSE]",),
            evidence=("[BEGIN FINAL RESPONSE]",)),
    Section("thought", "Here is my thought process:", ("Here is my response:",),
            evidence=("Here is my thought process:", "Here is my response:")),
)  # fmt: skip

_ANSWERS = (
    Section("text", "<|START_RESPONSE|>", ("<|END_RESPONSE|>",), "any"),
    Section("text", "<|START_TEXT|>", ("<|END_TEXT|>",), "any"),
    Section("text", "<response>", ("</response>",), "after"),
    Section("text", "<answer>", ("</answer>",), "after"),
    Section("text", "<Output>", ("</Output>",), "after"),
    Section("text", "<output>", ("</output>",), "after"),
    Section("text", "<|begin_of_solution|>", ("<|end_of_solution|>",), "any"),
    Section("text", "[BEGIN FINAL RESPONSE]", ("[END FINAL RESPONSE]",), "line"),
    Section("text", "<|open|>response<|sep|>", ("<|close|>response<|sep|>",), "any",
            ("<|open|>", "<|close|>", "<|sep|>")),
    Section("text", "<|close|>message<|sep|>", (), "any", ("<|open|>", "<|close|>", "<|sep|>")),
    Section("text", "<|begin|>assistant", (), "any", _SOLAR),
    Section("text", "<|content|>", ("<|end|>",), "any", _SOLAR),
)  # fmt: skip

_TOOL_CALLS = (
    Section("tool_call", "<tool_call>", ("</tool_call>",), "line"),
    Section("tool_call", "<tool_calls>", ("</tool_calls>",), "line"),
    Section("tool_call", "<tool_calls:opensource>", ("</tool_calls:opensource>",), "line",
            ("<tool_calls{}>", ":opensource")),
    Section("tool_call", "[TOOL_CALLS]", (), "line"),
    Section("tool_call", "<|tool_call>", ("<tool_call|>",), "line"),
    Section("tool_call", "<|tool_call|>", ("<|/tool_call|>",), "line"),
    Section("tool_call", "<|tool_calls|>", ("<|end|>",), "line", ("<|tool_calls|>", *_SOLAR)),
    Section("tool_call", "<|tool_call_start|>", ("<|tool_call_end|>",), "line"),
    Section("tool_call", "<|tool_calls_section_begin|>", ("<|tool_calls_section_end|>",), "line"),
    Section("tool_call", "<｜tool▁calls▁begin｜>", ("<｜tool▁calls▁end｜>",), "line"),
    Section("tool_call", "<｜DSML｜function_calls>", ("</｜DSML｜function_calls>",), "line",
            ("DSML", "function_calls")),
    Section("tool_call", "<｜DSML｜tool_calls>", ("</｜DSML｜tool_calls>",), "line",
            ("DSML", "tool_calls")),
    Section("tool_call", "<|START_ACTION|>", ("<|END_ACTION|>",), "line"),
    Section("tool_call", "<seed:tool_call>", ("</seed:tool_call>",), "line"),
    Section("tool_call", "<minimax:tool_call>", ("</minimax:tool_call>",), "line"),
    Section("tool_call", "]<]minimax[>[<tool_call>", ("]<]minimax[>[</tool_call>",), "line",
            ("]<]minimax[>[", "<tool_call>")),
    Section("tool_call", "<TOOLCALL>", ("</TOOLCALL>",), "line"),
    Section("tool_call", "<longcat_tool_call>", ("</longcat_tool_call>",), "line"),
    Section("tool_call", "<|tools_prefix|>", ("<|tools_suffix|>",), "line"),
    Section("tool_call", "<|python_tag|>", (), "line"),
    Section("tool_call", "<|action_start|>", ("<|action_end|>",), "line"),
    Section("tool_call", "<|open|>tools<|sep|>", ("<|close|>tools<|sep|>",), "any",
            ("<|open|>", "<|close|>", "<|sep|>")),
    Section("tool_call", "<function=", ("</function>",), "line"),
    Section("tool_call", "<function name=", ("</function>",), "line"),
    Section("tool_call", "<function_call>", ("</function_call>",), "line"),
    Section("tool_call", "<functioncall>", (), "line"),
)  # fmt: skip

SECTIONS = (*_THOUGHTS, *_ANSWERS, *_TOOL_CALLS)
