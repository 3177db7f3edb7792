"""Commands on who answers and how: models, drafts, caches, sampling. The conversation stays."""

import subprocess
import sys
from dataclasses import replace
from math import isfinite
from typing import Any, get_args

from localspec.chat.chat import Chat, ChatState, lasting_name
from localspec.chat.loading import LoadedModel
from localspec.errors import LocalspecError, UserError
from localspec.model.facts import HEAD_METHODS
from localspec.registry.resolve import resolve
from localspec.session.profile import LEAST_BUDGET_S, MOST_BUDGET_S, QUICK_S, with_profile
from localspec.session.session_config import SessionConfig, draft_for
from localspec.settings import NONE, OWN, Speculation

SPECULATIONS = tuple(dict.fromkeys(("auto", *get_args(Speculation))))
NEEDING = ("draft", *HEAD_METHODS)
"""Those that cannot do without a draft model or head."""
MAX_TEMPERATURE = 100


def model(state: ChatState, argument: str) -> None:
    """Go on with another model."""
    path = resolve(argument)
    draft = draft_for(path, argument)
    config = replace(state.chat.config, model=path).with_draft(draft)
    if config.settings.spec in NEEDING:
        config = config.with_settings(spec="auto")
    _reload(state, config, model=lasting_name(argument), draft="auto")


def draft(state: ChatState, argument: str) -> None:
    """Use another draft model or head, or none."""
    config = state.chat.config
    draft = argument if argument in (NONE, OWN) else str(resolve(argument))
    useless = NEEDING if draft == NONE else (NONE, "lookup", *HEAD_METHODS)
    spec = "auto" if config.settings.spec in useless else config.settings.spec
    chosen = config.with_draft(draft).with_settings(spec=spec)
    _reload(state, chosen, draft=lasting_name(argument), spec=spec)


def template(state: ChatState, argument: str) -> None:
    """Ask with another chat template: a family's, or that of a file."""
    name = lasting_name(argument) or argument
    _reload(state, state.chat.config.with_settings(template=name), template=name)


def spec(state: ChatState, argument: str) -> None:
    """Choose who drafts tokens: the draft model, lookup, whichever pays, or none."""
    if argument not in SPECULATIONS:
        raise UserError(f"/spec is one of {', '.join(SPECULATIONS)}, not {argument!r}")
    _reload(state, state.chat.config.with_settings(spec=argument), spec=argument)


def speculation(state: ChatState) -> str:
    """What `spec` has chosen, and what this model makes of it."""
    loaded = state.chat.loaded
    now = f", now {loaded.described['speculation']}" if loaded else ""
    return f"speculation: {state.chat.config.settings.spec}{now}"


def kv(state: ChatState, argument: str) -> None:
    """Keep the cache in other types: one for both, or K and V apart."""
    types = argument.split()
    if len(types) > 2:
        raise UserError("/kv takes one type for both, or K and V: /kv q8_0 q4_0")
    chosen = {"kv_k": types[0], "kv_v": types[-1]}
    _reload(state, state.chat.config.with_settings(**chosen), **chosen)


def cache_types(state: ChatState) -> str:
    """The types of the cache, in words."""
    settings = state.chat.config.settings
    return f"cache types: K {settings.kv_k}, V {settings.kv_v}"


def tune(state: ChatState, argument: str) -> None:
    """Find the best settings for this machine and go on with them."""
    chat, config = state.chat, state.chat.config
    seconds = QUICK_S if argument == "quick" else None
    if argument and seconds is None:
        seconds = _number(argument, "/tune")
        if not LEAST_BUDGET_S <= seconds <= MOST_BUDGET_S:
            bounds = f"{LEAST_BUDGET_S:g} to {MOST_BUDGET_S:g}"
            raise UserError(f"/tune takes {bounds} seconds, or quick, not {argument}")
    state.frontend.wait(chat.loading)
    chat.unload()
    try:
        chat.where = _tuned(chat, config, seconds)
    finally:
        state.frontend.wait(chat.loading)


def _tuned(chat: Chat, config: SessionConfig, seconds: float | None) -> SessionConfig:
    """With better settings, which another process finds that has the machine to itself."""
    arguments = [sys.executable, "-P", "-m", "localspec", "tune", str(config.model)]
    if config.settings.ctx is not None:
        arguments += ["--ctx", str(config.settings.ctx)]
    if seconds is not None:
        arguments += ["--budget", f"{seconds:g}"]
    if subprocess.run(arguments, check=False).returncode != 0:
        raise LocalspecError("nothing was tuned: the settings are as they were")
    settings = with_profile(config.model, config.settings, frozenset(), chat.notify)
    return replace(config, settings=settings)


def temp(state: ChatState, argument: str) -> None:
    """Set the temperature of the answers to come."""
    value = _number(argument, "/temp")
    if not 0 <= value <= MAX_TEMPERATURE:
        raise UserError(f"/temp is between 0 and {MAX_TEMPERATURE}, not {argument}")
    state.chat.set_sampling(temperature=value)
    state.chat.remember(temp=value)
    state.frontend.say(f"temperature {value:g}")


def seed(state: ChatState, argument: str) -> None:
    """Set the seed of the next answer."""
    chat = state.chat
    try:
        value = int(argument)  # no float has all digits of a large one
    except ValueError as error:
        raise UserError(f"/seed is a whole number, not {argument}") from error
    base = value - chat.conversation.n_retries
    chat.set_sampling(seed=base)
    chat.remember(seed=base)
    state.frontend.say(f"seed {value}")


def _reload(state: ChatState, config: SessionConfig, **settings: Any) -> None:
    """Check, then load; the old settings come back where the new ones fail."""
    _check(config)
    loaded = state.chat.reconfigure(config, state.frontend.wait)
    state.chat.remember(**settings)
    assert isinstance(loaded, LoadedModel), "what was configured is loaded here"
    target = loaded.session.plan.target
    state.frontend.say(
        f"{target.model.name}, speculation {loaded.session.speculation},"
        f" cache {target.settings.kv_k}/{target.settings.kv_v}, context {target.n_ctx:,}"
    )


def _check(config: SessionConfig) -> None:
    """Raises UserError or ModelError where loading would fail."""
    from localspec.session.chat_template import choose_template  # noqa: PLC0415 - as loading does
    from localspec.session.loading import plan_engines  # noqa: PLC0415

    plan = plan_engines(config)
    choose_template(plan.facts.tokenizer, plan.template)


def _number(text: str, what: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise UserError(f"{what} is a number, not {text!r}") from error
    if not isfinite(value):
        raise UserError(f"{what} is a finite number, not {text}")
    return value
