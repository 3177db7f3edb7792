"""A conversation that thinks: its template drops thoughts, and asks with what it never repeats."""

from collections.abc import Iterator
from dataclasses import dataclass

from localspec.api import Model
from localspec.session.reply import Reply

TEMPLATE = (
    "{%- for m in messages -%}[{{ m.role[0] }}]"
    "{%- if m.role == 'assistant' -%}{{ m.content.split('</think>')[-1] }}"
    "{%- else -%}{{ m.content }}{%- endif -%}.\\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}[a]{{ '<think>\\n' }}{%- endif -%}"
)
N_TURNS, N_ANSWER = 10, 40


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn's reply. `n_rows`: what the engine evaluated for it. `n_new`: tokens of the last
    answer as the template now writes it, and of the question."""

    reply: Reply
    n_rows: int
    n_new: int


def question(turn: int) -> str:
    """Another one each turn."""
    return f"Question {turn}: what is {turn} times {turn + 1}, and what is it the square of?"


def turns(model: Model, n_turns: int = N_TURNS, n_answer: int = N_ANSWER) -> Iterator[Turn]:
    """Ask a model of `TEMPLATE`; each answer becomes a thought with a short answer behind it."""
    rows = _counted(model)
    said: list[dict[str, str]] = []
    last = ""
    for i in range(n_turns):
        said.append({"role": "user", "content": question(i)})
        n_new = sum(len(model.session.raw_prompt(text)) for text in (last, question(i)) if text)
        rows.clear()
        reply = model.chat(said, max_tokens=n_answer, temperature=0)
        yield Turn(reply, sum(rows), n_new)
        last = f"It is {i}."
        said.append({"role": "assistant", "content": f"{reply.text}</think>{last}"})


def _counted(model: Model) -> list[int]:
    """Rows that the engine really evaluates from now on, one number a decode."""
    engine, rows = model.session.target, list[int]()
    decode = engine._decode_batch

    def counting() -> int:
        rows.append(engine._batch.n_rows)
        return decode()

    engine._decode_batch = counting
    return rows
