"""What people write for a model of the Hugging Face hub, and what it means.

    hf:owner/repo/file.gguf[@revision]      one file
    hf:owner/repo[:TAG][@revision]          a repository; TAG is a quantization, a folder or a file
    hf://owner/repo@revision/file.gguf      as the file system of the hub writes it
    hf.co/owner/repo:TAG                    as Ollama and llama.cpp write it, with any host name
    https://huggingface.co/owner/repo       a page: also /tree/REVISION/FOLDER, /blob/REVISION/FILE,
                                            /resolve/REVISION/FILE?download=true
    owner/repo[:TAG]                        where nothing else is called so (`bare_hub_name`)

Hosts have no case; HF_ENDPOINT adds its own, perhaps with a path before the repository. The
addresses of huggingface.co mean the same repository there.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from localspec.errors import UserError

HUB = "hf:"
FORM = "hf:owner/repo/file.gguf"
MAIN = "main"
_HOSTS = ("huggingface.co", "hf.co")
_PREFIX = re.compile(r"(?:hf|huggingface):(?://)?", re.IGNORECASE)
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_STEP = re.compile(r"[A-Za-z0-9_][\w.-]*")
_FILES = ("blame", "blob", "resolve", "raw")
_PAGES = ("commit", "commits", "discussions", "edit", "settings", "tree", "upload")
_OTHER_KINDS = {
    "datasets": "a data set",
    "spaces": "a space",
    "collections": "a collection",
    "papers": "a paper",
    "models": "a list of models",
    "docs": "a page of the documentation",
    "blog": "a page of the blog",
    "organizations": "the page of an organization",
}
"""What pages of the hub are that are no model's, by the first step of their path."""
_TABS = (*tuple(_OTHER_KINDS)[:5], "activity")  # of an owner's page
_REVISION = re.compile(r"(refs/(?:pr|convert)/[^/:]+|[^/:]+)(?=[/:])(.*)")
_API = re.compile(r"/*api/(?:resolve-cache/)?models/", re.IGNORECASE)
_QUOTES = "\"'`<>"
_FILE_ENDING = re.compile(r"\.(gguf|safetensors|bin|pth?|onnx|json|txt|md|zip)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the hub; `revision` None is its main branch."""

    repository: str
    file: str
    revision: str | None = None

    @property
    def name(self) -> str:
        return f"{HUB}{self.repository}/{self.file}{_at(self.revision)}"


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A repository, of which one model is wanted: by `tag`, or the one in `folder`."""

    repository: str
    tag: str | None = None
    folder: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        folder = f"/{self.folder}" if self.folder else ""
        tag = f":{self.tag}" if self.tag else ""
        return f"{HUB}{self.repository}{folder}{tag}{_at(self.revision)}"


HubName = HubFile | HubRepository


def _at(revision: str | None) -> str:
    return f"@{revision}" if revision else ""


def hub_name_of(reference: str) -> HubName | None:
    """What a reference that names the hub means; None for every other name, path and address.

    Raises UserError if it names the hub and neither a file nor a repository.
    """
    text = reference.strip().strip(_QUOTES)
    prefix = _PREFIX.match(text)
    rest = text[prefix.end() :] if prefix else text
    if _SCHEME.match(rest):
        return _of_address(rest)
    host = _host_before(rest)
    if prefix is None and host is None:
        return None
    path = rest[len(host or "") :]
    if host is None and path.startswith("/"):
        raise UserError(f"{reference!r} is not of the form {FORM}")
    return _of_path(*_without_query(path, reference), reference)


def bare_hub_name(reference: str) -> HubName | None:
    """The same for `owner/repo[:TAG]`, a folder or a file of it, without a prefix."""
    reference = reference.strip().strip(_QUOTES)
    base = _without_query(reference, reference)[0].rstrip("/")
    steps = base.split("/")
    if len(steps) < 2 or not all(map(_STEP.fullmatch, (steps[0], steps[1].partition(":")[0]))):
        return None
    if steps[0].lower() in _OTHER_KINDS:  # a folder of one's own, rather
        return None
    is_near = base.lower().endswith(".gguf") and ":" not in base and len(steps) < 3
    if is_near or ".." in steps:
        return None
    return _of_path(*_without_query(reference, reference), reference)


def is_of_hub(reference: str) -> bool:
    """Whether a reference names the hub, well or not."""
    try:
        return hub_name_of(reference) is not None
    except UserError:
        return True


def _of_address(address: str) -> HubName | None:
    """The path is taken as it is: an address has no @revision."""
    parts = urlsplit_or_refuse(address)
    on_hub = _path_on_hub(parts)
    if on_hub is None:
        host = _plain_host(parts)
        if host.endswith(tuple(f".{name}" for name in _HOSTS)):
            # Whatever a browser was sent to for the bytes is signed, and holds for an hour.
            raise UserError(
                f"{parts.scheme}://{host}{parts.path} is a passing address of the hub's storage:"
                f" name the file as {FORM}"
            )
        return None
    shown = parse_qs(parts.query).get("show_file_info")
    found = _of_path(on_hub, None, address)
    return HubFile(found.repository, shown[0], found.revision) if shown else found


def urlsplit_or_refuse(address: str) -> SplitResult:
    """Its parts. UserError for what is no http(s) address."""
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise UserError(f"{address!r} is no address ({error}): check it") from error
    if not is_whole:
        raise UserError(f"{address!r} is neither {FORM} nor the http(s) address of a file")
    return parts


def _path_on_hub(parts: SplitResult) -> str | None:
    """The path behind the hub's own, perhaps still quoted; None on another host."""
    if _plain_host(parts) in _HOSTS:
        return parts.path
    mirror = _mirror()
    if mirror is None or _plain_host(mirror) != _plain_host(parts):
        return None
    start = mirror.path.rstrip("/")
    return parts.path.removeprefix(start) if parts.path.startswith(f"{start}/") else None


def _mirror() -> SplitResult | None:
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        return urlsplit(endpoint) if endpoint else None
    except ValueError:
        return None


def _plain_host(parts: SplitResult) -> str:
    """In lower case, without `www.` and without the port that the scheme has anyway."""
    host = (parts.hostname or "").removeprefix("www.")
    try:
        port = parts.port
    except ValueError:
        return ""
    is_usual = port in (None, {"http": 80, "https": 443}.get(parts.scheme))
    return host if is_usual else f"{host}:{port}"


def _host_before(text: str) -> str | None:
    """The host that a name begins with: `hf.co/`, `www.HuggingFace.co/`."""
    host, slash, _ = text.partition("/")
    if not slash:
        return None
    plain = host.lower().removeprefix("www.").removesuffix(":443")
    mirror = _mirror()
    is_mirror = mirror is not None and not mirror.path.strip("/") and plain == _plain_host(mirror)
    return host if plain in _HOSTS or is_mirror else None


def _without_query(path: str, reference: str) -> tuple[str, str | None]:
    """Path and revision of `owner/repo/file.gguf?download=true@revision`.

    What follows a revision belongs to the path: a file or a tag; else it is a branch with slashes.
    """
    path, _, revision = path.partition("@")
    found = _REVISION.fullmatch(revision)
    if found and (found[2].startswith(":") or _FILE_ENDING.search(found[2])):
        path, revision = path + found[2], found[1]
    return re.split(r"[?#]", path, maxsplit=1)[0], unquote(revision) or None


def _of_path(path: str, revision: str | None, reference: str) -> HubName:
    steps = [unquote(step) for step in _API.sub("", path).split("/") if step]
    steps = steps[1:] if len(steps) > 2 and steps[0] == "models" else steps
    if what := _other_kind(steps):
        raise UserError(f"{reference!r} is {what} of the hub and no model: name one as {FORM}")
    if len(steps) > 1 and ":" in steps[1]:
        steps[1], _, tag = steps[1].partition(":")
        return _tagged(_repository(steps, reference), "/".join([tag, *steps[2:]]), revision)
    repository, rest = _repository(steps, reference), steps[2:]
    if rest and rest[0] in (*_FILES, *_PAGES) and len(rest) > 1:
        return _of_page(repository, rest, revision)
    if not rest or rest[0] in _PAGES:
        return HubRepository(repository, revision=revision)
    return _inside(repository, "/".join(rest), revision, reference)


def _other_kind(steps: list[str]) -> str | None:
    """What is at a path that leads to no model."""
    if len(steps) == 1 and steps != ["models"]:
        return "an owner"
    is_tab = len(steps) == 2 and steps[1].lower() in _TABS
    return "a list" if is_tab else _OTHER_KINDS.get("".join(steps[:1]).lower())


def _repository(steps: list[str], reference: str) -> str:
    """Its name, without the ending of an address that `git clone` takes."""
    if len(steps) < 2 or not all(map(_STEP.fullmatch, steps[:2])) or ".." in steps:
        raise UserError(f"{reference!r} is not of the form {FORM}")
    return f"{steps[0]}/{steps[1].removesuffix('.git')}"


def _tagged(repository: str, tag: str, revision: str | None) -> HubName:
    """`repo:Q8_0`, and `repo:folder/file.gguf`, which is a file."""
    if "/" in tag and "*" not in tag and _FILE_ENDING.search(tag):
        return HubFile(repository, tag, revision)
    return HubRepository(repository, _tag(tag), None, revision)


def _tag(tag: str) -> str | None:
    """Ollama's `latest` asks for nothing in particular."""
    return None if tag.lower() in ("", "latest") else tag


def _of_page(repository: str, rest: list[str], revision: str | None) -> HubName:
    """Of `tree/REVISION/FOLDER` and `blob/REVISION/FILE`; a revision may be `refs/pr/1`."""
    n_steps = 3 if rest[1] == "refs" and len(rest) > 3 else 1
    shown, inside = "/".join(rest[1 : 1 + n_steps]), "/".join(rest[1 + n_steps :])
    revision = revision or (None if shown == MAIN else shown)
    if rest[0] in _FILES and inside:
        return HubFile(repository, inside, revision)
    folder, at = (inside or None, revision) if rest[0] == "tree" else (None, None)
    return HubRepository(repository, folder=folder, revision=at)


def _inside(repository: str, inside: str, revision: str | None, reference: str) -> HubName:
    """A file, or a folder and perhaps a tag in it; with `*` a pattern of files."""
    if "*" in inside:
        return HubRepository(repository, inside, revision=revision)
    if _FILE_ENDING.search(inside):
        return HubFile(repository, inside, revision)
    folder, _, tag = inside.partition(":")
    if folder:
        return HubRepository(repository, _tag(tag), folder, revision)
    raise UserError(f"{reference!r} is not of the form {FORM}")


def file_of(reference: str) -> HubFile | None:
    """A file of the hub; None for an address of another server.

    Raises UserError for a repository, of which a file must be named, and for what is neither.
    """
    if isinstance(found := hub_name_of(reference), HubRepository):
        raise UserError(f"{reference!r} is a repository: name a file of it, as in {FORM}")
    if found is None and not _SCHEME.match(reference):
        raise UserError(f"{reference!r} is neither {FORM} nor the http(s) address of a file")
    return found


def with_file(name: HubRepository, file: str) -> HubFile:
    """One file of a repository, in the same revision."""
    return HubFile(name.repository, file, name.revision)
