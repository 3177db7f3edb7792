"""`localspec generate`: one reply, for scripts."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localspec.cli.flatten import flatten
from localspec.cli.options import EngineFlags, ModelArgument, ReplyFlags
from localspec.cli.talk import progress, talk
from localspec.errors import UserError

if TYPE_CHECKING:
    from localspec.session import Reply, ReplyOptions, Session


@flatten
def generate(
    engine: EngineFlags,
    flags: ReplyFlags,
    model: ModelArgument = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="The prompt.")
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Prompt from a file; - is standard input."
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text as it is, without a chat template.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document with text, tokens and timings.")
    ] = False,
) -> None:
    """One reply, for scripts.

    localspec generate -p "Why is the sky blue?" --temp 0

    localspec generate model.gguf --spec draft --draft small.gguf -f prompt.txt --json
    """
    from localspec.session import Session

    text = _prompt_text(prompt, file)
    config, options = engine.session_config(model), flags.reply_options(engine)
    with progress("loading") as on_progress:
        session = Session.open(config, talk, on_progress)
    with session:
        reply = session.reply(_prompt_tokens(session, text, flags.system, raw=raw), options)
        for piece in reply:
            if not as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
        if as_json:
            print(json.dumps(document(session, reply, options), ensure_ascii=False))
        else:
            print()
            talk(summary(reply, options))
    if reply.finish_reason == "interrupted":
        raise KeyboardInterrupt


def _prompt_text(prompt: str | None, file: str | None) -> str:
    if (prompt is None) == (file is None):
        raise UserError("give one prompt: -p TEXT, or -f FILE (- is standard input)")
    try:
        text = prompt.encode().decode() if prompt is not None else _read(file or "-")
    except UnicodeError as error:
        raise UserError(f"the prompt is not UTF-8 text ({error})") from error
    if not text.strip():
        raise UserError("the prompt is empty: give some text")
    return text


def _read(file: str) -> str:
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    return data.decode()


def _prompt_tokens(session: "Session", text: str, system: str | None, *, raw: bool) -> list[int]:
    from localspec.engine.text import Message

    if raw:
        return session.raw_prompt(text)
    messages = [Message(role="system", content=system)] if system else []
    return session.chat_prompt([*messages, Message(role="user", content=text)])


def summary(reply: "Reply", options: "ReplyOptions") -> str:
    """One line about a reply, for people."""
    speed, counts = reply.stopwatch.decode_tps, reply.counts
    parts = [f"{len(reply.tokens)} tokens"]
    if speed is not None:
        parts.append(f"{speed:.1f} tok/s")
    if counts.drafted and counts.tokens_per_pass:
        parts.append(
            f"{counts.tokens_per_pass:.2f} tokens a pass, {counts.accepted} of {counts.drafted} drafts stood"
        )
    if not options.sampling.is_greedy:
        parts.append(f"seed {options.sampling.seed}")
    return " · ".join([*parts, f"ended by {reply.finish_reason}"])


def document(session: "Session", reply: "Reply", options: "ReplyOptions") -> dict[str, Any]:
    """What `--json` prints; DESIGN.md fixes the names."""
    watch, counts = reply.stopwatch, reply.counts
    return {
        "text": reply.text,
        "tokens": reply.tokens,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": reply.n_prompt_tokens,
        "completion_tokens": len(reply.tokens),
        "timings": {
            "load_s": session.load_s,
            "prefill_s": watch.prefill_s,
            "ttft_s": watch.ttft_s,
            "decode_s": watch.decode_s,
            "prefill_tps": watch.prefill_tps,
            "decode_tps": watch.decode_tps,
            "tpot_ms": watch.tpot_ms,
        },
        "speculation": {
            "drafted": counts.drafted,
            "accepted": counts.accepted,
            "passes": counts.passes,
            "tokens_per_pass": counts.tokens_per_pass,
            "by_source": {
                source: {"drafted": c.drafted, "accepted": c.accepted, "draft_s": c.draft_s}
                for source, c in counts.by_source.items()
            },
        },
        "prediction": None,
        "config": _effective_config(session, options),
    }


def _effective_config(session: "Session", options: "ReplyOptions") -> dict[str, Any]:
    target, draft, sampling = session.plan.target, session.plan.draft, options.sampling
    return {
        "model": str(target.model),
        "draft": str(draft.model) if draft else None,
        "spec": session.speculation,
        "draft_max": session.plan.max_draft,
        "verify": options.verify,
        "kv_k": target.kv_k,
        "kv_v": target.kv_v,
        "flash_attn": target.flash_attn,
        "ctx": target.n_ctx,
        "threads": target.n_threads,
        "gpu_layers": target.n_gpu_layers,
        "extra_buffers": target.use_extra_buffers,
        "temp": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "seed": sampling.seed,
        "max_tokens": options.max_tokens,
        "stop": list(options.stop),
        "ignore_eos": options.ignore_eos,
    }
