"""What a file is that is named like a model and is none: told from its first bytes, with a way out.

A download can leave the pointer of Git LFS, a web page, or the words by which a server refused; a
renamed file keeps the mark of its own format. Sources: the specification of Git LFS; the formats of
safetensors, ZIP (PyTorch), HDF5 and archives; llama.cpp's magics before GGUF, and its tools/imatrix
before it wrote GGUF.
"""

import json
import re
from typing import Any

from localspec.gguf.cursor import shown

BEGINNING_BYTES = 512
_GET = "get the model with `localspec pull`"
_MARKS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", f"a Git LFS pointer: run `git lfs pull`, or {_GET}"),
    (
        b"PK\x03\x04",
        "a ZIP archive, perhaps of PyTorch weights: unpack it, or download a .gguf file",
    ),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"\xfd7zXZ", "an xz archive: unpack it first"),
    (b"Rar!", "a RAR archive: unpack it first"),
    (b"\x89HDF", "Keras or HDF5 weights: download a .gguf file of the model"),
    (b"MZqFpD", "a llamafile, which is a program: download the .gguf file of its model"),
    (b"d8:announce", "a torrent, which only names the file: fetch it with a torrent program"),
    (b"# xet version", f"a pointer of the hub's storage (Xet): {_GET}"),
    (b'{"schemaVersion"', "a manifest of Ollama: name the model, as in ollama:NAME"),
    (b"\x80\x02", "PyTorch weights (a pickle): download a .gguf file of the model"),
)
_OLD = (b"lmgg", b"fmgg", b"tjgg", b"algg")
_OLD_MATRIX = re.compile(rb".{4}.\0\0\0(blk\.\d+|output|token_embd)\.", re.DOTALL)
_MODELFILE = re.compile(rb"(#[^\n]*\n|\s)*FROM\s", re.IGNORECASE)
_PAGE = re.compile(
    r"\s*(<!--.*?-->\s*)?<(!doctype|html|head|body|\?xml)", re.IGNORECASE | re.DOTALL
)
_TITLE = re.compile(r"<title[^>]*>\s*([^<]+?)\s*</title>", re.IGNORECASE)
_REFUSAL = re.compile(
    r"(entry |repository |file )?not found|invalid (user|token|cred)|access (to|denied)"
    r"|unauthorized|forbidden|error|rate limit|too many requests",
    re.IGNORECASE,
)


def not_gguf(start: bytes) -> str:
    """What is wrong with a file that begins so, to follow its name in a sentence."""
    if not start:
        return "is not a GGUF file (it is empty); download it again"
    if not start.strip(b"\0"):
        return (
            "is not a GGUF file (it begins with zeros); its download was broken off: get it again"
        )
    mark = next((what for begin, what in _MARKS if start.startswith(begin)), None)
    what = mark or _by_text(start) or _by_format(start)
    if what is None:
        return f"is not a GGUF file (it begins with {shown(start[:4])}); name a .gguf file"
    return f"is not a GGUF file but {what}"


def _by_text(start: bytes) -> str | None:
    """Of a page, or of a server's refusal that was saved under the file's name."""
    text = start.decode("utf-8-sig", "replace")
    if _PAGE.match(text):
        title = _TITLE.search(text)
        called = f" ({shown(title[1])})" if title else ""
        return f"a web page that was saved{called}: {_GET}"
    if re.match(r'\s*\{\s*"(architectures|model_type|_name_or_path|metadata)"', text):
        return f"a configuration of a model, without its weights: {_GET}"
    message = _json_error(text)
    first = text.strip().partition("\n")[0]
    if message is None and first.isprintable() and _REFUSAL.match(first):
        message = first
    if message is None:
        return None
    return f"a server's answer ({shown(message)}): {_GET}"


def _json_error(text: str) -> str | None:
    """The message of `{"error": ...}`, which may be cut off here."""
    try:
        document: Any = json.loads(text)
    except ValueError:
        found = re.match(r'\s*\{\s*"(?:error|message|detail)"\s*:\s*"([^"]*)', text)
        return found[1] if found else None
    if not isinstance(document, dict):
        return None
    answer: dict[str, Any] = document
    said = next((answer[key] for key in ("error", "message", "detail") if key in answer), None)
    return None if said is None else str(said)


def _by_format(start: bytes) -> str | None:
    if _OLD_MATRIX.match(start):
        return "an importance matrix of llama.cpp's old format, which serves quantizing"
    if _MODELFILE.match(start):
        return "a Modelfile: name the model that its line FROM names"
    if start[:4] == b"FUGG":
        return "one for big-endian machines: download a little-endian file"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model: download a .gguf file of the model"
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it first"
    if start[:4] in _OLD:
        return "of llama.cpp's format before it: download a file that was converted since 2023"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 30:
        return "a safetensors file, which llama.cpp does not read: download a .gguf of the model"
    return None
