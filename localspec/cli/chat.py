"""`localspec chat`: talk to a model."""

import sys
from collections.abc import Callable

from localspec.cli.flatten import flatten
from localspec.cli.options import EngineFlags, ModelArgument, ReplyFlags
from localspec.cli.prompt import check_text
from localspec.cli.talk import progress, talk


@flatten
def chat(engine: EngineFlags, flags: ReplyFlags, model: ModelArgument = None) -> None:
    """Talk to a model.

    localspec chat

    localspec chat model.gguf --system "Answer in one sentence."
    """
    from localspec.chat.repl import Conversation, repl
    from localspec.cli.rendering import summary
    from localspec.session import Session

    config, options = engine.session_config(model), flags.reply_options(engine)
    with progress("loading") as on_progress:
        session = Session.open(config, talk, on_progress)
    with session:
        talk(f"{config.model.name}, context {session.n_ctx:,}; /help lists the commands")
        conversation = Conversation(session, options, flags.system)
        repl(conversation, _reader(), _note, lambda reply: summary(reply, conversation.options))


def _note(message: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(message, style="dim", markup=False, highlight=False, soft_wrap=True)


def _reader() -> Callable[[], str]:
    """Lines with history and editing at a terminal, plain lines from a pipe."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return lambda: check_text("the line", input())
    from prompt_toolkit import PromptSession

    session: PromptSession[str] = PromptSession()
    return lambda: session.prompt("> ")
