"""A first chat: lines in, replies out as they come, one conversation that each turn adds to.

The session's context keeps what turns share, so a next turn evaluates only what is new.
"""

import sys
from collections.abc import Callable
from dataclasses import replace

from localspec.engine.text import Message
from localspec.errors import UserError
from localspec.session import Reply, ReplyOptions, Session

HELP = """\
/clear    start a new conversation
/regen    answer the last message again
/help     this list
/quit     leave (Ctrl-D too); Ctrl-C stops an answer"""


class Conversation:
    """Messages so far, and the session that answers them."""

    def __init__(self, session: Session, options: ReplyOptions, system: str | None) -> None:
        self.session = session
        self.options = options
        self._system = [Message(role="system", content=system)] if system else []
        self.messages: list[Message] = [*self._system]

    def clear(self) -> None:
        """Forget all but the system prompt."""
        self.messages = [*self._system]

    def answer(self, text: str) -> Reply:
        """Ask `text`; iterate over the reply, then `keep` it. UserError where it does not fit."""
        asked = [*self.messages, Message(role="user", content=text)]
        reply = self.session.reply(self.session.chat_prompt(asked), self.options)
        self.messages = asked
        return reply

    def keep(self, reply: Reply) -> None:
        """Make a finished reply part of the conversation."""
        self.messages.append(Message(role="assistant", content=reply.text))

    def take_back(self) -> str | None:
        """Remove the last exchange; its question, None where there is none.

        The seed changes, because the same seed would bring the same answer.
        """
        sampling = self.options.sampling
        self.options = replace(self.options, sampling=replace(sampling, seed=sampling.seed + 1))
        while self.messages and self.messages[-1]["role"] != "system":
            message = self.messages.pop()
            if message["role"] == "user":
                return message["content"]
        return None


def repl(
    conversation: Conversation,
    read_line: Callable[[], str],
    talk: Callable[[str], None],
    describe: Callable[[Reply], str],
) -> None:
    """Read, answer, repeat, until the input ends.

    `read_line` raises EOFError at the end and UserError for a line that is no text.
    """
    while True:
        try:
            line = read_line().strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            continue
        except UserError as error:
            talk(str(error))
            continue
        if line == "/quit":
            return
        question = _command(conversation, line, talk) if line.startswith("/") else line
        if question:
            _answer(conversation, question, talk, describe)


def _command(conversation: Conversation, line: str, talk: Callable[[str], None]) -> str | None:
    """Obey a slash command; the question to ask next, if it has one."""
    if line == "/clear":
        conversation.clear()
        talk("a new conversation")
    elif line == "/regen":
        question = conversation.take_back()
        if question is None:
            talk("there is nothing to answer again")
        return question
    else:
        talk(HELP if line == "/help" else f"there is no command {line}\n{HELP}")
    return None


def _answer(
    conversation: Conversation,
    question: str,
    talk: Callable[[str], None],
    describe: Callable[[Reply], str],
) -> None:
    try:
        reply = conversation.answer(question)
    except UserError as error:
        talk(f"{error}; /clear starts a new conversation")
        return
    for piece in reply:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    conversation.keep(reply)
    talk(describe(reply))
