"""`localspec generate`: one reply, for scripts."""

import json
import sys
from typing import Annotated

import typer

from localspec.cli.flatten import flatten
from localspec.cli.options import EngineFlags, ModelArgument, ReplyFlags
from localspec.cli.prompt import PromptFlags
from localspec.cli.rendering import document, summary
from localspec.cli.talk import progress, talk


@flatten
def generate(
    engine: EngineFlags,
    flags: ReplyFlags,
    prompt: PromptFlags,
    model: ModelArgument = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document with text, tokens and timings.")
    ] = False,
) -> None:
    """One reply, for scripts.

    localspec generate -p "Why is the sky blue?" --temp 0

    localspec generate model.gguf --spec draft --draft small.gguf -f prompt.txt --json
    """
    text = prompt.text(flags.system)
    config, options = engine.session_config(model), flags.reply_options(engine)
    from localspec.session import Session

    with progress("loading") as on_progress:
        session = Session.open(config, talk, on_progress)
    with session:
        reply = session.reply(prompt.tokens(session, text, flags.system), options)
        for piece in reply:
            if not as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
        if as_json:
            print(json.dumps(document(session, reply, options), allow_nan=False))
        else:
            print()
            talk(summary(reply, options))
    if reply.finish_reason == "interrupted":
        raise KeyboardInterrupt
