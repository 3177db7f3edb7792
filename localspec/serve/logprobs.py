"""How likely a reply's tokens were, as each protocol writes it.

Every token of the reply is there, those of thoughts and marks too: bytes tell what each adds.
"""

from collections.abc import Sequence
from math import exp
from typing import Any

from localspec.decode.logprobs import TokenLogprobs
from localspec.engine.vocabulary import Vocabulary


class TokenTexts:
    """Writes tokens of a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def chat(self, said: Sequence[TokenLogprobs], begun: str | None = None) -> dict[str, Any]:
        """OpenAI's of chat. `begun`: what an answer begins with whose first token is here; a space
        that the answer leaves out is left out here, too."""
        content = [
            {
                **self._entry(each.token, each.logprob),
                "top_logprobs": [self._entry(*pair) for pair in each.top],
            }
            for each in said
        ]
        if begun and not begun[0].isspace():
            whole = self._text(said[0].token)
            text = whole.lstrip()
            written = list(self._bytes(said[0].token))[len(whole) - len(text) :]
            content[0] |= {"token": text, "bytes": written}
        return {"content": content, "refusal": None}

    def completion(self, said: Sequence[TokenLogprobs], offset: int) -> dict[str, Any]:
        """OpenAI's of completions; `offset`: characters before the first token."""
        texts, offsets = [self._text(each.token) for each in said], list[int]()
        for text in texts:
            offsets.append(offset)
            offset += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [each.logprob for each in said],
            "top_logprobs": [{self._text(i): p for i, p in reversed(each.top)} for each in said],
            "text_offset": offsets,
        }

    def native(self, said: Sequence[TokenLogprobs], *, drawn: bool) -> list[dict[str, Any]]:
        """llama.cpp's `completion_probabilities`; `drawn`: chances that tokens were drawn by."""
        top = "top_probs" if drawn else "top_logprobs"
        return [
            {
                **self._native(each.token, each.logprob, drawn),
                top: [self._native(i, p, drawn) for i, p in each.top],
            }
            for each in said
        ]

    def _native(self, token: int, logprob: float, drawn: bool) -> dict[str, Any]:
        entry = {"id": token, **self._entry(token, logprob)}
        return {**entry, "prob": exp(entry.pop("logprob"))} if drawn else entry

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        return {
            "token": self._text(token),
            "logprob": logprob,
            "bytes": list(self._bytes(token)),
        }

    def _bytes(self, token: int) -> bytes:
        return self._vocabulary.piece(token) or self._vocabulary.text(token).encode()

    def _text(self, token: int) -> str:
        return self._bytes(token).decode(errors="replace")
