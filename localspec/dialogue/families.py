"""Chat templates of families, for files that carry none, by the control tokens that they have.

A family writes a message as text that opens it, the content, and text that closes it, by role. Its
template is made of these. Sources: the model cards of the families, and each one's own tokenizer.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from localspec.errors import no_such

EOS = "<EOS>"
"""Stands for the model's own end of text."""


@dataclass(frozen=True, slots=True)
class Family:
    """What stands around a message of each role.

    `tokens`: control tokens that together only this family has. `system` None: there is no system
    role. `asks`: what asks for an answer, if not what opens one. `begin`: the head of a prompt,
    behind BOS, which the tokenizer adds where it is due.
    """

    user: tuple[str, str]
    assistant: tuple[str, str]
    system: tuple[str, str] | None
    tokens: tuple[str, ...] = ()
    asks: str | None = None
    begin: str = ""

    @property
    def source(self) -> str:
        """The family's template."""
        asks = self.assistant[0].rstrip(" ") if self.asks is None else self.asks
        roles = {"system": self.system, "user": self.user, "assistant": self.assistant}
        cases = "".join(_case(role, around) for role, around in roles.items())
        return (
            f"{_said(self.begin)}{{%- for m in messages %}}{cases}{{%- endfor %}}"
            f"{{%- if add_generation_prompt %}}{_said(asks)}{{%- endif %}}"
        )


def _case(role: str, around: tuple[str, str] | None) -> str:
    written = (
        "{{- raise_exception('there is no system role') }}"
        if around is None
        else f"{_said(around[0])}{{{{- m.content }}}}{_said(around[1])}"
    )
    return f"{{%- if m.role == '{role}' %}}{written}{{%- endif %}}"


def _said(text: str) -> str:
    literal = repr(text).replace(EOS, "' + eos_token + '")
    return f"{{{{- {literal} }}}}" if text else ""


def _named(start: str, behind: str, end: str, assistant: str = "assistant") -> Family:
    """A family whose messages begin with the name of their role."""
    names = ("user", assistant, "system")
    around = [(f"{start}{name}{behind}", end) for name in names]
    return Family(*around, tokens=(start,))


# Vocabularies that have the tokens of two families were extended by those of the earlier one.
FAMILIES = {
    "kimi": Family(
        ("<|im_user|>user<|im_middle|>", "<|im_end|>"),
        ("<|im_assistant|>assistant<|im_middle|>", "<|im_end|>"),
        ("<|im_system|>system<|im_middle|>", "<|im_end|>"),
        tokens=("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>"),
    ),
    "phi4": Family(
        ("<|im_start|>user<|im_sep|>", "<|im_end|>"),
        ("<|im_start|>assistant<|im_sep|>", "<|im_end|>"),
        ("<|im_start|>system<|im_sep|>", "<|im_end|>"),
        tokens=("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
    ),
    "chatml": _named("<|im_start|>", "\n", "<|im_end|>\n"),
    "gemma": replace(_named("<start_of_turn>", "\n", "<end_of_turn>\n", "model"), system=None),
    "gemma4": _named("<|turn>", "\n", "<turn|>\n", "model"),
    "llama3": _named("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"),
    "llama4": _named("<|header_start|>", "<|header_end|>\n\n", "<|eot|>"),
    "granite": _named("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>\n"),
    "gpt-oss": Family(
        ("<|start|>user<|message|>", "<|end|>"),
        ("<|start|>assistant<|channel|>final<|message|>", "<|end|>"),
        ("<|start|>developer<|message|># Instructions\n\n", "<|end|>"),
        tokens=("<|start|>", "<|channel|>", "<|message|>", "<|end|>"),
        asks="<|start|>assistant",
    ),
    "command-r": Family(
        ("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        ("<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        ("<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
        tokens=("<|START_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    ),
    "deepseek": Family(
        ("<\uff5cUser\uff5c>", ""),
        ("<\uff5cAssistant\uff5c>", EOS),
        ("", "\n\n"),
        tokens=("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
    ),
    "mistral-v7": Family(
        ("[INST]", "[/INST]"),
        ("", EOS),
        ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        tokens=("[SYSTEM_PROMPT]", "[INST]", "[/INST]"),
    ),
    "mistral": Family(("[INST] ", "[/INST]"), (" ", EOS), None, tokens=("[INST]", "[/INST]")),
    "glm": Family(
        ("<|user|>\n", ""),
        ("<|assistant|>\n", ""),
        ("<|system|>\n", ""),
        tokens=("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
        begin="[gMASK]<sop>",
    ),
    "apertus": Family(
        ("<|user_start|>", "<|user_end|>"),
        ("<|assistant_start|>", "<|assistant_end|>"),
        ("<|system_start|>", "<|system_end|>"),
        tokens=("<|user_start|>", "<|user_end|>", "<|assistant_start|>"),
    ),
    "exaone": Family(
        ("[|user|]", "\n"),
        ("[|assistant|]", "[|endofturn|]\n"),
        ("[|system|]", "[|endofturn|]\n"),
        tokens=("[|user|]", "[|assistant|]", "[|endofturn|]"),
    ),
    "seed": _named("<seed:bos>", "\n", "<seed:eos>"),
    "minimax": _named("]~b]", "\n", "[e~[\n", "ai"),
    "phi3": Family(
        ("<|user|>\n", "<|end|>\n"),
        ("<|assistant|>\n", "<|end|>\n"),
        ("<|system|>\n", "<|end|>\n"),
        tokens=("<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "llama2": Family(("[INST] ", " [/INST]"), (" ", f" {EOS}"), None),
    "zephyr": Family(
        ("<|user|>\n", EOS + "\n"), ("<|assistant|>\n", EOS + "\n"), ("<|system|>\n", EOS + "\n")
    ),
    "vicuna": Family(("USER: ", "\n"), ("ASSISTANT: ", EOS + "\n"), ("", "\n\n")),
    "alpaca": Family(("### Instruction:\n", "\n\n"), ("### Response:\n", "\n\n"), ("", "\n\n")),
}


def family_of(controls: Iterable[str]) -> str | None:
    """The family that a vocabulary's control tokens name, if they do."""
    have = set(controls)
    known = (name for name, family in FAMILIES.items() if have.issuperset(family.tokens or "?"))
    return next(known, None)


def template_named(name: str) -> str:
    """The source of a family's template. UserError for an unknown name."""
    if name not in FAMILIES:
        raise no_such("chat template", name, FAMILIES)
    return FAMILIES[name].source
