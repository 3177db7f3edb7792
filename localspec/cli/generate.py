"""`localspec generate`: one reply, for scripts, with a line for people or a JSON document."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from localspec.cli.flags import EngineFlags, GrammarFlags, ReplyFlags
from localspec.cli.options import ModelArgument, command, option
from localspec.cli.output import fields_of, notify, print_json, progress
from localspec.cli.prompts import PromptFlags, PromptLines
from localspec.errors import UserError
from localspec.format import count
from localspec.notify import Progress
from localspec.sampling_fields import SAMPLING

if TYPE_CHECKING:
    from localspec.api import Model
    from localspec.chat.frontend import AnswerView
    from localspec.session.reply import Reply
    from localspec.session.reply_options import ReplyKeywords, ReplyOptions
    from localspec.session.session import Session
    from localspec.session.session_config import SessionConfig


def summary(reply: "Reply") -> str:
    """One line about a reply, for people."""
    speed = reply.timings.decode_tps
    parts = [count(len(reply.tokens), "token")]
    if reply.n_thought_tokens:
        parts.append(f"{reply.n_thought_tokens:,} of thought")
    if speed is not None:
        parts.append(f"{speed:.1f} tok/s")
    if reply.speculation_summary:
        parts.append(reply.speculation_summary)
    sampling = reply.options.sampling
    if not sampling.is_greedy:
        parts.append(f"seed {sampling.seed}")
    return " · ".join([*parts, f"ended by {reply.finish_reason}"])


def document(session: "Session", reply: "Reply") -> dict[str, Any]:
    """The document of `--json`; docs/reference/json.md lists the names."""
    counts = reply.stats
    return {
        "text": reply.text,
        "thought": reply.thought,
        "tool_call": reply.tool_call,
        "tokens": reply.tokens,
        "logprobs": _logprobs(session, reply),
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.n_prompt_tokens,
        "completion_tokens": len(reply.tokens),
        "thought_tokens": reply.n_thought_tokens,
        "timings": {
            "load_s": session.load_s,
            **fields_of(reply.timings, "prefill_s", "ttft_s", "decode_s"),
            **fields_of(reply.timings, "prefill_tps", "decode_tps", "tpot_ms"),
        },
        "speculation": {
            **fields_of(counts, "drafted", "accepted", "passes", "tokens_per_pass"),
            "by_source": {source: asdict(part) for source, part in counts.by_source.items()},
            "decisions": counts.by_reason,
            "gain": fields_of(reply.gain, "predicted", "measured"),
            "story": reply.speculation_summary,
        },
        "prediction": _prediction(session, reply),
        "computed_on": list(session.plan.computed_on),
        "config": _effective_config(session, reply.options),
    }


def _logprobs(session: "Session", reply: "Reply") -> list[dict[str, Any]] | None:
    """Of each token; null where nobody asked for them."""
    if reply.options.logprobs is None:
        return None
    from localspec.engine.vocabulary import spelled

    vocabulary = session.target.vocabulary

    def one(token: int, logprob: float) -> dict[str, Any]:
        text = spelled(vocabulary, token)
        return {"token": token, "text": text.decode(errors="replace"), "logprob": logprob}

    return [
        {**one(each.token, each.logprob), "top": [one(*pair) for pair in each.top]}
        for each in reply.logprobs
    ]


def _prediction(session: "Session", reply: "Reply") -> dict[str, Any] | None:
    """Of plain decoding, halfway through this reply; null until `predict` has measured for it."""
    from localspec.forecast.forecast import Expectation

    depth = reply.n_prompt_tokens + len(reply.tokens) // 2
    expected = Expectation.of(session.plan.target, session.plan.facts)
    if expected is None:
        return None
    return {"decode_tps": asdict(expected.decode(depth)), "bound": expected.bound(depth)}


def _effective_config(session: "Session", options: "ReplyOptions") -> dict[str, Any]:
    """Every setting as it took effect, by the name of its flag."""
    settings, sampling = session.plan.settings.to_json(), options.sampling
    return {
        "model": str(session.plan.target.model),
        **settings,
        "extra_buffers": settings["repack"],  # its name in earlier versions
        "verify": options.verify,
        **{row.option: getattr(sampling, row.name) for row in SAMPLING.values()},
        "seed": sampling.seed,
        "logit_bias": [[key, False if bias is None else bias] for key, bias in options.logit_bias],
        "max_tokens": options.max_tokens,
        "min_tokens": options.min_tokens,
        "stop": list(options.stop),
        "ignore_eos": options.ignore_eos,
        "think": options.think,
        "template_args": dict(options.template_args),
    }


def _show(reply: "Reply") -> None:
    """Write it as it comes: a terminal shows the thought, a pipe gets the answer alone."""
    from localspec.dialogue.markup import UNOPENED

    view = _view()
    view.begin(UNOPENED, reply.n_prompt_tokens)
    for parts in reply.by_step():
        view.write(parts, None)
    view.end()


def _view() -> "AnswerView":
    from localspec.chat.frontend import PlainView, is_dumb

    if not sys.stdout.isatty() or is_dumb():
        return PlainView(sys.stdout)
    from localspec.chat.tty import terminal_size
    from localspec.chat.views import PlainThoughtView, screen_console

    return PlainThoughtView(sys.stdout, terminal_size, screen_console(), "--json has them")


@contextmanager
def _raw_helps() -> Generator[None]:
    """Where a chat template fails, this command has a way on that others have not."""
    from localspec.dialogue.template import TemplateError

    try:
        yield
    except TemplateError as error:
        advice = "use --raw to do without it, or --template chatml"
        raise TemplateError(error.reason, advice) from error


def _loaded(
    config: "SessionConfig", keywords: "ReplyKeywords", on_progress: Progress, *, talks: bool
) -> "Model":
    """The model, which loads while this process imports what answers."""
    from localspec.session.opening import opening

    with opening(config, notify, on_progress, talks=talks) as begun:
        from localspec.api import Model
        from localspec.session.reply_options import reply_options
        from localspec.session.session import Session

        reply_options(**keywords)  # a wrong one ends the loading
        return Model(Session.opened(begun))


def _answer_lines(model: "Model", lines: PromptLines) -> None:
    """An answer for each line of a file. Exit code 1 where one has none."""

    def one(reply: "Reply") -> dict[str, Any]:
        whole = document(model.session, reply)
        left_out = ("prediction", "computed_on", "config")
        kept = {name: value for name, value in whole.items() if name not in left_out}
        return {**kept, "seed": reply.options.sampling.seed}

    n_failed = lines.answer(model, one)
    if n_failed:
        notify(f"{count(n_failed, 'line')} got no answer: each has an `error`")
        raise typer.Exit(1)


@dataclass(frozen=True)
class OutputFlags:
    """What is printed."""

    as_json: bool = option(
        False, "One JSON document with text, tokens and timings.", "--json"
    )  # fmt: skip
    no_save: bool = option(
        False, "Keep nothing of a long prompt for the next question on it.", "--no-save"
    )
    parallel: int = option(
        4, "Prompts of --jsonl that are answered at once, each with a context of --ctx tokens.",
        min=1, max=64, metavar="N",
    )  # fmt: skip
    logprobs: int | None = option(
        None, "In the document: how likely each token was, and the N likeliest beside it.",
        min=0, max=1000, metavar="N",
    )  # fmt: skip


@command
def generate(
    engine: EngineFlags,
    flags: ReplyFlags,
    prompt: PromptFlags,
    grammar: GrammarFlags,
    output: OutputFlags,
    model: ModelArgument = None,
) -> None:
    """Print one reply, for scripts.

    localspec generate -p "Why is the sky blue?" --temp 0

    cat report.txt | localspec generate -p "What does it cost?"

    localspec generate model.gguf --spec draft --draft small.gguf -f prompt.txt --json
    """
    if not prompt.raw:
        from localspec.dialogue.renderer import RENDERER

        RENDERER.start()  # while this process imports
    has_lines = prompt.jsonl is not None
    if has_lines and (prompt.prompt is not None or prompt.file is not None):
        raise UserError("--jsonl has the prompts: leave -p and -f out")
    if output.logprobs is not None and not (output.as_json or has_lines):
        raise UserError("--logprobs are part of the document: add --json")
    text = "" if has_lines else prompt.text(flags.system)
    asked = prompt.messages(text, flags.system)
    keywords: ReplyKeywords = {
        **flags.keywords(engine.verify),
        **grammar.keywords,
        "logprobs": output.logprobs,
    }
    lines = PromptLines(prompt, flags.system, keywords) if has_lines else None
    from localspec.session.session_config import Expected

    config = replace(
        engine.session_config(model),
        expected=Expected.of_text(len(text), flags.max_tokens, lines.n_prompts if lines else 1),
        keeps_prompts=not output.no_save and not lines,
    )
    if lines:
        config = config.with_settings(n_sequences=output.parallel, kv_unified=True)
    from localspec.session.chat_template import NO_TEMPLATE

    with _raw_helps(), progress("loading") as on_progress:
        loaded = _loaded(config, keywords, on_progress, talks=not prompt.raw)
    if lines:
        with loaded:
            _answer_lines(loaded, lines)
        return
    with _raw_helps(), loaded:
        reply = loaded.stream(asked, raw=prompt.raw, **keywords)
        if output.as_json:
            print_json(document(loaded.session, reply.finish()))
        else:
            _show(reply)
            is_base = not prompt.raw and loaded.session.prompts.template is None
            notify(" · ".join([summary(reply), *([NO_TEMPLATE] if is_base else [])]))
    if reply.finish_reason == "interrupted":
        raise KeyboardInterrupt
