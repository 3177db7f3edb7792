"""Chat templates of public models in ten conversations, with transformers as the judge.

    scripts/research/run judge-templates [--archive FILE] [--transformers FOLDER] [--json]

Every template of llama-cpp-python's source archive is rendered by localspec and by transformers'
`render_jinja_template`. "same": character for character. "saved": transformers fails or loses a
text, and localspec does not. "fail": both do. The other columns are of conversations without
thoughts: tokens of a fifth turn's prompt; how many of them come behind what the cache holds after
the fourth answer; the seconds in which 200 turns are rendered at once. The vocabulary is that of
the archive which knows most of the template's control tokens.

transformers is no part of localspec: `pip install --target FOLDER transformers` gets it.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from research.dialogue.archive import load_vocabulary, open_archive

from localspec.dialogue.markup import Markup
from localspec.dialogue.prompts import Prompts
from localspec.dialogue.template import ChatTemplate, Message, TemplateError
from localspec.dialogue.transcript import Answer, Transcript, Turn
from localspec.engine.vocabulary import Vocabulary
from localspec.errors import UserError
from localspec.gguf.reader import read_header
from localspec.model.tokenizer import Tokenizer

BOS, EOS = "<s>", "</s>"
USUAL = "llama-bpe"
"""The vocabulary where none knows a template's control tokens."""
N_LONG = 200
"""Turns of a long conversation."""
SYSTEM = "Answer in one sentence."
Judge = Callable[[str, Sequence[Message]], str]


def _turns(*texts: str, system: str | None = None, thoughts: bool = False) -> list[Message]:
    """Question, answer, question, ..."""
    said: list[Message] = [Message(role="system", content=system)] if system else []
    for i, text in enumerate(texts):
        said.append(Message(role="assistant" if i % 2 else "user", content=text))
        if thoughts and i % 2:
            said[-1]["thought"] = f"They ask for turn {i}."
    return said


FIVE = [text for i in range(1, 6) for text in (f"Question number {i}?", f"Answer number {i}.")]
CONVERSATIONS = {
    "a question": _turns("Why is the sky blue?"),
    "a system text": _turns("Why is the sky blue?", system=SYSTEM),
    "two turns": _turns("Why is the sky blue?", "It scatters.", "And red at dusk?"),
    "three turns": _turns("Why?", "Because.", "And?", "So what.", "Really?", system=SYSTEM),
    "five turns": _turns(*FIVE[:-1], system=SYSTEM),
    "thoughts": _turns("2 + 2?", "Four.", "3 + 3?", "Six.", "Sum?", system=SYSTEM, thoughts=True),
    "an empty answer": _turns("Say nothing.", "", "Say something."),
    "spaces": _turns("  indented\n\n", "\nAn answer. \n", "\ttab ", system=SYSTEM),
    "odd letters": _turns("Grüße, 世界 \U0001f30d {{ x }} <b>&amp;\"' \\n", "`{{`", "{% y %}"),
    "two questions": [*_turns("Are you there?"), *_turns("Hello?")],
}


@dataclass(frozen=True)
class Judged:
    """What was found of one template: conversations by verdict, and tokens of a fifth turn."""

    name: str
    verdicts: dict[str, int]
    lost: list[str]
    vocabulary: str | None
    prompt_tokens: int | None
    evaluated: int | None
    long_s: float | None


def main(
    archive: Annotated[
        Path | None, typer.Option(exists=True, help="The source archive; else it is fetched.")
    ] = None,
    transformers: Annotated[
        Path | None, typer.Option(exists=True, help="The folder that has transformers.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Compare."""
    judge = _judge(transformers)
    opened = open_archive(archive)
    vocabularies = _Vocabularies(opened.vocabularies)
    judged = [
        _judged(name, source, judge, vocabularies) for name, source in opened.templates.items()
    ]
    if as_json:
        print(json.dumps([asdict(one) for one in judged]))
    else:
        _show(judged)
    if any(one.verdicts.keys() - {"same", "saved", "both fail"} or one.lost for one in judged):
        raise typer.Exit(1)


def _judge(folder: Path | None) -> Judge:
    if folder:
        sys.path.append(str(folder))
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    try:
        from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415
    except ImportError as error:
        raise UserError(
            f"transformers is not here ({error}): pip install --target FOLDER transformers,"
            " and name it with --transformers FOLDER"
        ) from error

    def judge(source: str, said: Sequence[Message]) -> str:
        given = [_as_transformers_has_it(message) for message in said]
        options = {"bos_token": BOS, "eos_token": EOS, "add_generation_prompt": True}
        return render_jinja_template([given], chat_template=source, **options)[0][0]

    return judge


def _as_transformers_has_it(message: Message) -> dict[str, Any]:
    given: dict[str, Any] = {**message}
    thought = given.pop("thought", None)
    return given if thought is None else {**given, "reasoning_content": thought}


class _Vocabularies:
    """The archive's vocabularies, each read when a template asks for it."""

    def __init__(self, files: dict[str, Path]) -> None:
        self._files = files
        tokenizers = {name: Tokenizer.of(read_header(file)) for name, file in files.items()}
        self._digests = {name: tokenizer.digest for name, tokenizer in tokenizers.items()}
        self._controls = {
            name: {text for text in tokenizer.controls() if len(text) > 3 and text.isprintable()}
            for name, tokenizer in tokenizers.items()
        }
        self._loaded: dict[str, Vocabulary] = {}

    def nearest(self, source: str) -> str:
        """The one that knows most of the control tokens which a template spells."""
        return max(self._files, key=lambda name: (self._n_known(name, source), name == USUAL))

    def _n_known(self, name: str, source: str) -> int:
        return sum(text in source for text in self._controls[name] if not text.isspace())

    def load(self, name: str) -> Vocabulary:
        """The vocabulary, loaded once."""
        if name not in self._loaded:
            self._loaded[name] = load_vocabulary(self._files[name])
        return self._loaded[name]

    def transcript(self, source: str, name: str) -> Transcript:
        """Prompts with a template and a vocabulary."""
        vocabulary = self.load(name)
        template = ChatTemplate(source, vocabulary.bos_text, vocabulary.eos_text)
        prompts = Prompts(template, vocabulary, vocabulary.bos_text)
        return Transcript(prompts, self._digests[name], Markup.of(source, vocabulary))


def _judged(name: str, source: str, judge: Judge, vocabularies: _Vocabularies) -> Judged:
    verdicts, lost = Counter[str](), list[str]()
    for what, said in CONVERSATIONS.items():
        ours, theirs = _rendered(_ours, source, said), _rendered(judge, source, said)
        verdicts[_verdict(said, ours, theirs)] += 1
        lost += [f"{what}: {text}" for text in _lost(said, ours)]
    nearest = vocabularies.nearest(source)
    try:
        transcript = vocabularies.transcript(source, nearest)
        tokens, evaluated = _fifth_turn(transcript, vocabularies.load(nearest))
        long_s = _seconds(source)
    except TemplateError:
        nearest = tokens = evaluated = long_s = None
    return Judged(name, dict(verdicts), lost, nearest, tokens, evaluated, long_s)


def _seconds(source: str) -> float:
    texts = ["Tell me more about this, please. " * 4, "There is much to be said about it. " * 12]
    said = _turns(*(texts * N_LONG)[:-1], system=SYSTEM)
    started = time.perf_counter()
    _ours(source, said)
    return time.perf_counter() - started


def _ours(source: str, said: Sequence[Message]) -> str:
    return ChatTemplate(source, BOS, EOS).render(said)


def _rendered(render: Judge, source: str, said: Sequence[Message]) -> str | None:
    try:
        return render(source, said)
    except Exception:  # noqa: BLE001 - a template can raise anything
        return None


def _verdict(said: Sequence[Message], ours: str | None, theirs: str | None) -> str:
    if ours == theirs:
        return "same" if ours is not None else "both fail"
    if ours is None:
        return "localspec fails"
    is_saved = theirs is None or len(_lost(said, ours)) < len(_lost(said, theirs))
    return "saved" if is_saved else "different"


def _lost(said: Sequence[Message], text: str | None) -> list[str]:
    """What was said and is not in a prompt. Thoughts may go."""
    if text is None:
        return []
    return [m["content"] for m in said if m["content"].strip() not in text]


def _fifth_turn(transcript: Transcript, vocabulary: Vocabulary) -> tuple[int, int]:
    """Tokens of the last prompt, and those of them behind what the cache holds."""
    turns: list[Turn] = []
    held: list[int] = []
    prompt: list[int] = []
    n_same = 0
    for question, answer in zip(FIVE[::2], FIVE[1::2], strict=True):
        prompt = transcript.prompt(SYSTEM, [*turns, Turn(question)])
        n_same = next(
            (i for i, pair in enumerate(zip(held, prompt, strict=False)) if len(set(pair)) > 1),
            len(held),
        )
        ids = tuple(vocabulary.tokenize(answer, add_special=False))
        turns.append(Turn(question, Answer(answer, tokens=ids, tokenizer=transcript.tokenizer)))
        held = [*prompt, *ids]
    return len(prompt), len(prompt) - n_same


def _show(judged: Sequence[Judged]) -> None:
    head = ("same", "saved", "fail", "tokens", "anew", "long")
    print(f"{'template':44} {' '.join(f'{name:>6}' for name in head)}  vocabulary")
    for one in judged:
        counts = [one.verdicts.get(key, 0) for key in ("same", "saved", "both fail")]
        long_s = "-" if one.long_s is None else f"{one.long_s:.2f}"
        figures = [*counts, one.prompt_tokens or "-", one.evaluated or "-", long_s]
        row = " ".join(f"{figure:>6}" for figure in figures)
        print(f"{one.name[:44]:44} {row}  {one.vocabulary or ''}")
        for verdict in one.verdicts.keys() - {"same", "saved", "both fail"}:
            print(f"  {verdict}: {one.verdicts[verdict]}")
        for text in one.lost:
            print(f"  lost in {text!r}")
    totals = sum((Counter(one.verdicts) for one in judged), Counter[str]())
    print(f"{len(judged)} templates, {totals.total()} conversations: {dict(totals)}")
