"""All commands, in the order of `/help`. To add one: a function, and a line here."""

import difflib
from typing import get_args

from localspec.chat.chat import WhenFull
from localspec.chat.commands.command import ChatState, Command, Next
from localspec.chat.commands.conversation import (
    clear,
    edit,
    export,
    file,
    full,
    leave,
    load,
    names,
    regen,
    save,
    sessions,
    stats,
    system,
    think,
    undo,
)
from localspec.chat.commands.model import SPECULATIONS, draft, kv, model, seed, spec, temp, tune
from localspec.errors import UserError

KV_TYPES = ("f16", "bf16", "f32", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


def show_help(state: ChatState, argument: str) -> Next | None:
    """List the commands and keys."""
    rows = [(f"/{command.name} {command.usage}".rstrip(), command.help) for command in COMMANDS]
    state.frontend.table([*rows, *KEYS])
    return None


COMMANDS = (
    Command("help", "", "this list", show_help),
    Command("model", "NAME", "go on with another model", model, lambda m: m.names()),
    Command(
        "draft", "NAME|none", "another draft model", draft, lambda m: ("none", *m.names())
    ),
    Command("spec", "auto|none|lookup|draft", "how to guess ahead", spec,
            lambda m: SPECULATIONS),
    Command("kv", "K [V]", "types of the K and V cache", kv, lambda m: KV_TYPES),
    Command("system", "TEXT|none", "the system prompt", system),
    Command("temp", "T", "temperature; 0: the best token", temp),
    Command("seed", "N", "same seed, same answer", seed),
    Command("regen", "", "answer the last message again", regen),
    Command("edit", "[TEXT]", "change the last message", edit),
    Command("undo", "", "forget the last message and answer", undo),
    Command("file", "PATH", "a text file for the next message", file, takes_path=True),
    Command("save", "[NAME]", "name this conversation", save),
    Command("load", "NAME", "go over to a saved conversation", load,
            lambda m: names()),
    Command("sessions", "", "list saved conversations", sessions),
    Command("export", "FILE", "write it as .md or .json", export, takes_path=True),
    Command("stats", "", "itemise the last answer", stats),
    Command("think", "", "show the last reasoning", think),
    Command("full", "ask|drop|stop", "what to do in a full context", full,
            lambda m: get_args(WhenFull)),
    Command("tune", "[SECONDS]", "find the best settings here", tune),
    Command("clear", "", "start a new conversation", clear),
    Command("quit", "", "leave; Ctrl-D does too", leave),
)  # fmt: skip

KEYS = (
    ("Alt-Enter", 'a new line; or end one with \\, or open """'),
    ("//...", "a message that begins with a slash"),
    ("Ctrl-C", "stop an answer, twice: leave"),
    ("Ctrl-R", "search what was typed before"),
)


def obey(state: ChatState, line: str) -> Next | None:
    """Obey a line that begins with a slash. Raises LocalspecError."""
    name, _, argument = line[1:].partition(" ")
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        close = difflib.get_close_matches(name, [command.name for command in COMMANDS], 1)
        advice = f"did you mean /{close[0]}?" if close else "/help lists them"
        raise UserError(f"there is no command /{name}: {advice}")
    return command.run(state, argument.strip())
