"""A conversation's beginning: what it goes on with, and its first lines."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from localspec.cli.flags import EngineFlags, ReplyFlags
from localspec.errors import UserError
from localspec.notify import Notify, Progress

if TYPE_CHECKING:
    from localspec.chat.archive import Record
    from localspec.chat.chat import Chat, WhenFull
    from localspec.chat.conversation import Conversation
    from localspec.chat.models import LoadedModel
    from localspec.session import SessionConfig


ENGINE_SETTINGS = ("draft", "spec", "kv_k", "kv_v")
REPLY_SETTINGS = ("temp", "seed")
ALL_SETTINGS = (*ENGINE_SETTINGS, *REPLY_SETTINGS)

Flags = TypeVar("Flags", EngineFlags, ReplyFlags)


def record_for(name: str | None, *, goes_on: bool, is_kept: bool) -> "Record":
    """The file of the conversation to go on with, or of a new one. UserError if it is not there."""
    from localspec.chat.archive import NullRecord, Record, find, latest

    if goes_on and name:
        raise UserError("--continue and --session: name one of them")
    if name:
        record = find(name)
    elif goes_on:
        last = latest()
        if last is None:
            raise UserError("there is no conversation to go on with: start one without --continue")
        record = last
    else:
        return Record.new() if is_kept else NullRecord(Record.new().path)
    record.claim()
    return record


def open_chat(
    record: "Record",
    engine: EngineFlags,
    flags: ReplyFlags,
    model: str | None,
    when_full: "WhenFull",
) -> "Chat":
    """A conversation whose model is not loaded yet; what is given now goes before what was kept.

    Raises UserError or ModelError.
    """
    from localspec.chat.archive import latest
    from localspec.chat.chat import Chat
    from localspec.chat.commands.command import lasting_name
    from localspec.chat.conversation import Configured, Conversation, SystemSet

    kept = Conversation.of(record.events())
    name = model or kept.settings.get("model")
    engine, flags = _with_kept(engine, kept, model), _with_kept(flags, kept, model)
    config, options = engine.session_config(name), flags.reply_options(engine.verify)
    opening = _load_first if model is None and latest() is None else _load
    chat = Chat(opening, config, options, record, when_full)
    settings = {"model": lasting_name(name)}
    settings |= {key: getattr(engine, key) for key in ENGINE_SETTINGS if key in engine.given}
    if "draft" in settings:
        settings["draft"] = lasting_name(engine.draft)
    if any(kept.settings.get(key) != value for key, value in settings.items()):
        chat.add(Configured(settings))
    if flags.system and flags.system != kept.system:
        chat.add(SystemSet(flags.system))
    return chat


def _with_kept(flags: Flags, kept: "Conversation", model: str | None) -> Flags:
    """With the settings of an earlier day as if they were given; another model has its own."""
    names = REPLY_SETTINGS if isinstance(flags, ReplyFlags) or model else ALL_SETTINGS
    own = {name for name in names if hasattr(flags, name)}
    old = {n: kept.settings[n] for n in own - flags.given if n in kept.settings}
    return replace(flags, given=flags.given | frozenset(old), **old)


def _load_first(
    config: "SessionConfig", record: "Record", notify: Notify, on_progress: Progress
) -> "LoadedModel":
    """On the first run, what would be better here, once there is time to look."""
    from localspec.forecast.recommend import better_than_starter

    loaded = _load(config, record, notify, on_progress)
    sentence = better_than_starter(config.settings.threads)
    if sentence:
        notify(sentence)
    return loaded


def _load(
    config: "SessionConfig", record: "Record", notify: Notify, on_progress: Progress
) -> "LoadedModel":
    """Imported when it is needed: by the thread that loads, while the prompt is there already."""
    from localspec.chat.models import open_model

    return open_model(config, record, notify, on_progress)


def greeting(chat: "Chat", record: "Record", *, is_named: bool) -> Iterator[str]:
    """What answers here; on the first run, what it is and how to get a better one."""
    from localspec.chat.archive import latest
    from localspec.chat.conversation import first_line
    from localspec.format import count

    sampling = chat.options.sampling
    seed = "" if sampling.is_greedy else f", seed {sampling.seed}"
    conversation = chat.conversation
    if conversation.turns:
        name = conversation.name or record.id
        yield f"{chat.config.model.name}{seed}; {count(len(conversation.turns), 'turn')} of {name}"
        if conversation.pending is not None:
            yield f"not answered yet: {first_line(conversation.pending)[:60]}; /regen answers it"
        return
    if not is_named and latest() is None:
        yield from _first_run()
        return
    yield f"{chat.config.model.name}{seed}; /help lists the commands"


def _first_run() -> Iterator[str]:
    """The first of two lines; the other one, on what is better, comes when the model is there."""
    yield (
        "this is the starter, SmolLM2 135M Instruct (98 MB, Apache-2.0): quick, and good for trying"
        " things out rather than for facts; /help lists the commands"
    )
