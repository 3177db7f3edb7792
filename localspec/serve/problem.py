"""What goes wrong, as OpenAI's clients read it: a status, a kind, one sentence."""

from dataclasses import dataclass
from math import ceil
from typing import Any

from localspec.errors import LocalspecError, UserError
from localspec.serve.messages import BusyError, LateError

FULL, CLOSING = 429, 503
TOO_LONG = "context_length_exceeded"
LONGEST, HEAD = 800, 500
"""Characters of a sentence, and of its beginning where a client's own text has to be cut."""
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error",
          405: "invalid_request_error", 413: "invalid_request_error",
          415: "invalid_request_error", 429: "rate_limit_error",
          501: "not_supported_error", 503: "unavailable_error"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """An answer that is an error. `param` names the field, `more` are further figures."""

    status: int
    sentence: str
    param: str | None = None
    code: str | None = None
    retry_s: float | None = None
    more: tuple[tuple[str, Any], ...] = ()

    @property
    def kind(self) -> str:
        """OpenAI's name for it, but for a prompt that is too long: llama.cpp's clients look for
        that, and OpenAI's for the `code`."""
        if self.code == TOO_LONG:
            return "exceed_context_size_error"
        return _KINDS.get(self.status, "server_error")

    @property
    def message(self) -> str:
        """The sentence in UTF-8 and of a length to be read, whatever a client sent."""
        return _written(self.sentence)

    def as_openai(self) -> dict[str, Any]:
        """The body; also one event of a stream that has begun."""
        param = self.param and _written(self.param)
        error = {"message": self.message, "type": self.kind, "param": param, "code": self.code}
        return {"error": error | dict(self.more)}

    @property
    def headers(self) -> dict[str, str]:
        """Whole seconds, rounded up."""
        return {} if self.retry_s is None else {"retry-after": str(ceil(self.retry_s))}


def _written(text: str) -> str:
    """What a client sent may be no UTF-8, and of any length."""
    whole = text.encode(errors="replace").decode()
    return whole if len(whole) <= LONGEST else f"{whole[:HEAD]} ... {whole[HEAD - LONGEST :]}"


class BadRequestError(UserError):
    """A request that cannot be answered as it is."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.sentence)
        self.problem = problem


def refused(sentence: str, param: str | None = None, **more: Any) -> BadRequestError:
    """A wrong field."""
    return BadRequestError(Problem(400, sentence, param, **more))


def problem_of(error: LocalspecError) -> Problem:
    """An error of localspec's as an answer."""
    if isinstance(error, BadRequestError):
        return error.problem
    if isinstance(error, BusyError):
        status = CLOSING if error.is_closing or isinstance(error, LateError) else FULL
        return Problem(status, str(error), retry_s=error.retry_s)
    return Problem(400 if isinstance(error, UserError) else 500, str(error))
