"""The flags of `chat` and what an earlier conversation was held with, to a conversation."""

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from localspec.chat.archive import NullRecord, Record, find, latest
from localspec.chat.chat import Chat
from localspec.chat.commands.command import lasting_name
from localspec.chat.conversation import Configured, Conversation, SystemSet
from localspec.cli.options import EngineFlags, ReplyFlags
from localspec.errors import UserError
from localspec.notify import Notify, Progress
from localspec.session import SessionConfig

if TYPE_CHECKING:
    from localspec.chat.models import LoadedModel
    from localspec.cli.chat import ChatFlags


ENGINE_SETTINGS = ("draft", "spec", "kv_k", "kv_v")
REPLY_SETTINGS = ("temp", "seed")
ALL_SETTINGS = (*ENGINE_SETTINGS, *REPLY_SETTINGS)

Flags = TypeVar("Flags", EngineFlags, ReplyFlags)


def record_for(how: "ChatFlags") -> Record:
    """The file of the conversation to go on with, or of a new one. UserError if it is not there."""
    if how.goes_on and how.session:
        raise UserError("--continue and --session: name one of them")
    if how.session:
        record = find(how.session)
    elif how.goes_on:
        last = latest()
        if last is None:
            raise UserError("there is no conversation to go on with: start one without --continue")
        record = last
    else:
        return NullRecord(Record.new().path) if how.no_save else Record.new()
    record.claim()
    return record


def open_chat(
    record: Record, engine: EngineFlags, flags: ReplyFlags, how: "ChatFlags", model: str | None
) -> Chat:
    """A conversation whose model is not loaded yet; what is given now goes before what was kept.

    Raises UserError or ModelError.
    """
    kept = Conversation.of(record.events())
    name = model or kept.settings.get("model")
    engine, flags = _with_kept(engine, kept, model), _with_kept(flags, kept, model)
    config, options = engine.session_config(name), flags.reply_options(engine)
    opening = _load_first if model is None and latest() is None else _load
    chat = Chat(opening, config, options, record, how.when_full)
    settings = {"model": lasting_name(name)}
    settings |= {key: getattr(engine, key) for key in ENGINE_SETTINGS if key in engine.given}
    if "draft" in settings:
        settings["draft"] = lasting_name(engine.draft)
    if any(kept.settings.get(key) != value for key, value in settings.items()):
        chat.add(Configured(settings))
    if flags.system and flags.system != kept.system:
        chat.add(SystemSet(flags.system))
    return chat


def _with_kept(flags: Flags, kept: Conversation, model: str | None) -> Flags:
    """With the settings of an earlier day as if they were given; another model has its own."""
    names = REPLY_SETTINGS if isinstance(flags, ReplyFlags) or model else ALL_SETTINGS
    own = {name for name in names if hasattr(flags, name)}
    old = {n: kept.settings[n] for n in own - flags.given if n in kept.settings}
    return replace(flags, given=flags.given | frozenset(old), **old)


def _load_first(
    config: SessionConfig, record: Record, notify: Notify, on_progress: "Progress"
) -> "LoadedModel":
    """On the first run, what would be better here, once there is time to look."""
    opened = _load(config, record, notify, on_progress)
    from localspec.forecast.recommend import better_than_starter

    sentence = better_than_starter(config.n_threads)
    if sentence:
        notify(sentence)
    return opened


def _load(
    config: SessionConfig, record: Record, notify: Notify, on_progress: "Progress"
) -> "LoadedModel":
    """Imported when it is needed: by the thread that loads, while the prompt is there already."""
    from localspec.chat.models import open_model

    return open_model(config, record, notify, on_progress)
