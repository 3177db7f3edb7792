"""The text that ships: the Queries of Isaac Newton's Opticks, about 100 kB of old English prose.

Fourth edition, London 1730, Book Three: long in the public domain. Transcribed by the volunteers of
pgdp.net (Suzanne Lybarger, Steve Harris, Josephine Paolucci and others); taken from Go's test data
(`testdata/Isaac.Newton-Opticks.txt` in Debian's golang-1.19-src 1.19.8-2), with paragraphs on one
line each and the marks of italics taken out.
"""

from functools import cache
from importlib.resources import files
from pathlib import Path

from localspec.errors import UserError

NAME = "Newton's Opticks (1730), the Queries"


@cache
def shipped_text() -> str:
    """The whole of it."""
    return (files("localspec.quality") / "opticks.txt").read_text(encoding="utf-8")


def text_of(path: Path) -> str:
    """A text of the user's. UserError where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"the text {path} cannot be read ({reason}): check --text") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the text {path} is not UTF-8: convert it to UTF-8") from error
