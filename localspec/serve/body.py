"""A request's body as JSON: with a limit, and without what no answer could repeat."""

import json
from collections.abc import Container
from math import isfinite
from typing import Any

from starlette.requests import Request

from localspec.errors import LocalspecError
from localspec.serve.problem import BadRequestError, Problem, refused

MOST_BYTES = 32 << 20
"""Of a body."""


async def body_of(request: Request, most_bytes: int) -> Any:
    """The JSON of a body. BadRequestError for one that is none, or too long.

    Python also reads numbers that JSON does not have, and halves of characters, which no answer
    could repeat.
    """
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most_bytes:
            raise _too_long(most_bytes)
    try:
        body = json.loads(data, parse_float=_finite, parse_constant=_finite)
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise refused("the body has half a character, as \\ud800 is, which is no UTF-8") from error
    except RecursionError as error:
        raise refused("the body is no JSON: it is nested too deep") from error
    except ValueError as error:
        reason = str(error).partition("; use sys.")[0]  # a number of too many digits
        raise refused(f"the body is no JSON: {reason}") from error
    return body


def among(value: Any, names: Container[str]) -> bool:
    """Whether something in a body, which can be of any type, is one of some names."""
    return isinstance(value, str) and value in names


def _finite(written: str) -> float:
    number = float(written)
    if not isfinite(number):
        raise ValueError(f"{written} is no number that it can have")
    return number


def _too_long(most_bytes: int) -> LocalspecError:
    return BadRequestError(Problem(413, f"the body is longer than {most_bytes:,} bytes"))
