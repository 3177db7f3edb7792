"""A conversation for others to read: Markdown for people, JSON for programs."""

import json

from localspec.chat.conversation import Conversation, messages
from localspec.errors import UserError


def export_text(conversation: Conversation, ending: str) -> str:
    """The whole conversation, dropped turns included. UserError for an ending that is neither."""
    if ending in (".md", ".markdown"):
        return _markdown(conversation)
    if ending == ".json":
        return json.dumps(_document(conversation), ensure_ascii=False, indent=2) + "\n"
    raise UserError(f"the file's ending says how to export, .md or .json, not {ending!r}")


def _markdown(conversation: Conversation) -> str:
    parts = [f"# {conversation.name or 'Conversation'}"]
    if conversation.system:
        parts.append(f"**System:** {conversation.system}")
    for turn in conversation.turns:
        parts.append(f"## You\n\n{turn.question}")
        if turn.answer is not None:
            parts.append(f"## Model\n\n{turn.answer.text.strip()}")
    return "\n\n".join(parts) + "\n"


def _document(conversation: Conversation) -> dict[str, object]:
    return {
        "name": conversation.name,
        "settings": conversation.settings,
        "messages": messages(conversation.system, conversation.turns),
        "figures": [turn.answer.figures for turn in conversation.turns if turn.answer],
    }
