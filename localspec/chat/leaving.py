"""The end of a conversation: its cache goes to disk, the models are freed."""

import os
import sys

from localspec.chat.chat import Chat


def leave(chat: Chat) -> None:
    """Save and close; a model that is still loading is not waited for."""
    if chat.opened is not None or chat.has_failed or not chat.is_loading:
        chat.unload()
        return
    # The loading thread is inside the engine, where nothing stops it, and libllama must not be
    # torn down under it: the process goes at once, with all that was said on disk.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
