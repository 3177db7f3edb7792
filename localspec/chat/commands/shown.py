"""Commands that show something or say how it is shown."""

from typing import get_args

from localspec.chat.commands.base import Desk, Leave, Next
from localspec.chat.room import WhenFull
from localspec.chat.status import stats as stats_rows
from localspec.errors import UserError


def stats(desk: Desk, argument: str) -> Next | None:
    """Itemise the last answer."""
    if desk.last is None:
        raise UserError("there was no answer yet to give figures of")
    rows: list[tuple[str, ...]] = list(stats_rows(desk.last))
    opened = desk.chat.opened
    if opened:
        rows.append(("loading", f"{opened.session.load_s:.2f} s"))
        if opened.n_restored:
            rows.append(("restored", f"{opened.n_restored:,} tokens from disk"))
    rows.append(("saved in", str(desk.chat.record.path) if desk.chat.record.is_kept else "no file"))
    desk.front.table(rows)
    return None


def full(desk: Desk, argument: str) -> Next | None:
    """What happens to old turns where the context is full."""
    choices: tuple[WhenFull, ...] = get_args(WhenFull)
    chosen: WhenFull | None = next((c for c in choices if c == argument), None)
    if argument and chosen is None:
        raise UserError(f"/full is one of {', '.join(choices)}, not {argument!r}")
    desk.chat.when_full = chosen or desk.chat.when_full
    meaning = {"ask": "you are asked", "drop": "the oldest turns go", "stop": "the answer stops"}
    desk.front.say(f"where the context is full, {meaning[desk.chat.when_full]}")
    return None


def think(desk: Desk, argument: str) -> Next | None:
    """Show the reasoning that came before the last answer."""
    if not desk.thought.strip():
        raise UserError("the last answer had no reasoning section")
    desk.front.say(desk.thought.strip())
    return None


def leave(desk: Desk, argument: str) -> Next | None:
    """End the chat."""
    return Leave()
