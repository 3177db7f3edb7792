"""The end of a conversation: its cache goes to disk, the models are freed."""

import os
import sys

from localspec.chat.chat import Chat

LOADING_S = 30.0
"""How long a model that loads is waited for before an error is told."""


def leave(chat: Chat) -> None:
    """Save and close; a model that is still loading is not waited for.

    Nothing stops the engine in the middle of loading, and libllama must not be torn down under the
    thread that is in it: then the process goes at once, with all that was said on disk.
    """
    if chat.is_loading:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    chat.unload()


def close(chat: Chat) -> None:
    """The same where an error is still to be told."""
    if chat.is_loading:
        chat.loading.wait(LOADING_S)
    chat.unload()
