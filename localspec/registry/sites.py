"""Names and pages of sites that are not the Hugging Face hub, by one short name each.

    ollama:llama3.2:1b        ollama.com/library/llama3.2:1b, registry.ollama.ai, ollama://
    docker:ai/smollm2:360M    docker.io/ai/..., hub.docker.com/r/ai/..., docker://, oci://, ai/...
    lmstudio:qwen/qwen3-8b    lmstudio.ai/models/qwen/qwen3-8b
    ms:owner/repo[/file]      modelscope.cn/models/owner/repo, modelscope:, modelscope://
    hf:owner/repo             hf-mirror.com/owner/repo: a page; its files are fetched from there

`ollama/NAME`, `lm_studio/NAME` and `huggingface/owner/repo` are those of programs that ask many
servers, which put the server's name before the model's.

Docker's names in `ai/` are those of https://hub.docker.com/u/ai. ModelScope serves a file at
/models/OWNER/REPO/resolve/REVISION/FILE, as its own client asks for it.
"""

import re
import shlex
from urllib.parse import quote, unquote

from localspec.errors import UserError
from localspec.gguf.hub_name import HUB

ADDRESSES = ("http://", "https://")
FILE_ADDRESS = "file://"
OLLAMA, DOCKER, LM_STUDIO, MODEL_SCOPE = "ollama:", "docker:", "lmstudio:", "ms:"
MODEL_SCOPE_ADDRESS = "https://modelscope.cn/models/"
_WEB = r"(?:https?://)?(?:www\.)?"
_PREFIXES = {
    OLLAMA: rf"ollama(?:_chat)?(?::(?://)?|/(?!.*\.gguf$))(?:library/)?|library/(?=[^/]+$)|{_WEB}(?:ollama\.com|registry\.ollama\.ai)/(?:library/)?",
    DOCKER: r"(?:docker|oci):(?://)?(?:(?:index\.)?docker\.io/|registry-1\.docker\.io/)?"
    rf"|{_WEB}(?:index\.|registry-1\.)?docker\.io/|{_WEB}hub\.docker\.com/(?:r/|u/)?|(?=ai/[^/]+$)(?!.*\.gguf$)",
    LM_STUDIO: rf"lmstudio:(?!//)|lm_studio/(?!.*\.gguf$)|{_WEB}lmstudio\.ai/(?:models?/)?",
    MODEL_SCOPE: rf"(?:ms|modelscope):(?://)?(?:models/)?|{_WEB}modelscope\.(?:cn/|ai/(?!.*/resolve/))(?!collections/|datasets/|studios/)(?:(?:api/v1/)?models/)?",
}
_MIRROR = rf"{_WEB}hf-mirror\.com/(?!.*/resolve/)|huggingface/(?=[^/]+/[^/]+$)"
_BEGINNINGS = {prefix: re.compile(pattern, re.IGNORECASE) for prefix, pattern in _PREFIXES.items()}
_BEHIND = {
    OLLAMA: r"/(?:tags|blobs/.*)$",
    DOCKER: r"/(?:tags|general)?$",
    LM_STUDIO: r"/$",
    MODEL_SCOPE: r"/(?:files|summary|feedback)?$",
}
"""Tabs of a model's page."""
_MODEL_SCOPE_FILE = re.compile(r"([^/]+/[^/]+)/(?:resolve|file/view)/([^/]+)/(.+)")

_MODEL_SCOPE_QUERY = re.compile(r"([^/]+/[^/]+)/repo\?(?:.*&)?FilePath=([^&]+).*")


_SITES = {
    "github.com": "GitHub",
    "gitlab.com": "GitLab",
    "gitee.com": "Gitee",
    "ai.gitee.com": "Gitee",
    "kaggle.com": "Kaggle",
    "wisemodel.cn": "wisemodel",
    "modelers.cn": "Modelers",
    "civitai.com": "Civitai",
    "replicate.com": "Replicate",
    "openrouter.ai": "OpenRouter",
    "drive.google.com": "Google Drive",
    "dropbox.com": "Dropbox",
    "modelscope.cn": "ModelScope",
}
"""Whose pages people copy: a browser shows there what no program fetches."""
_PAGE = re.compile(rf"{_WEB}({'|'.join(map(re.escape, _SITES))})((?:[/?#].*)?)", re.IGNORECASE)


def short_name(text: str) -> str | None:
    """The name with its site's prefix; the text itself if it is of no such site.

    None for a link that another program opens: `lmstudio://...`, `jan://...`.
    """
    on_mirror = re.match(_MIRROR, text, re.IGNORECASE)
    if on_mirror:
        return HUB + text[on_mirror.end() :]
    for prefix, beginning in _BEGINNINGS.items():
        found = beginning.match(text)
        if found and len(text) > found.end():
            return prefix + _name_on(prefix, text[found.end() :])
    is_link = re.match(r"magnet:|.*://", text) and not text.lower().startswith(
        (*ADDRESSES, FILE_ADDRESS)
    )
    return None if is_link else text


def fetchable(text: str) -> str:
    """A page that shows a file on a site is the file's address. UserError for other pages there."""
    found = _PAGE.fullmatch(text)
    site = _SITES.get(found[1].lower()) if found else None
    if found is None or site is None:
        return text
    path, sign, query = found[2].partition("?")
    if path.lower().endswith(".gguf"):
        path = path.replace("/blob/", "/raw/", 1)
        return f"https://{found[1]}{path}{sign}{query.replace('dl=0', 'dl=1')}"
    search = quote(_model_in([unquote(step) for step in path.split("/") if step]))
    raise UserError(
        f"{text!r} is a page of {site} and no file: name the address of a .gguf file there, or look"
        f" for one at https://huggingface.co/models?library=gguf&search={search}"
    )


def _model_in(steps: list[str]) -> str:
    """`models/owner/model/...` or `owner/model/...`."""
    steps = steps[1:] if steps[:1] in (["models"], ["m"]) else steps
    return next(iter([*steps[1:2], *steps[:1]]), "")


def _name_on(prefix: str, rest: str) -> str:
    asked = _MODEL_SCOPE_QUERY.fullmatch(rest) if prefix == MODEL_SCOPE else None
    if asked:
        return f"{asked[1]}/{unquote(asked[2])}"
    name = unquote(re.split(r"[?#]", rest, maxsplit=1)[0])
    page = _MODEL_SCOPE_FILE.fullmatch(name) if prefix == MODEL_SCOPE else None
    if page:
        revision = "" if page[2] in ("master", "main") else f"@{page[2]}"
        return f"{page[1]}/{page[3]}{revision}"
    return re.sub(_BEHIND[prefix], "", name)


def model_scope_file(name: str) -> str:
    """The address of `owner/repo/file.gguf[@revision]`. UserError where it names no file."""
    base, _, revision = name.partition("@")
    owner, _, rest = base.partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository):
        raise UserError(f"{MODEL_SCOPE}{name} is not of the form {MODEL_SCOPE}owner/repo/file.gguf")
    if not file.lower().endswith(".gguf"):
        repository = repository.partition(":")[0]
        raise UserError(
            f"{MODEL_SCOPE}{name} names no file, and localspec cannot list ModelScope's: name one,"
            f" as in {MODEL_SCOPE}{owner}/{repository}/file.gguf, or try hf:{owner}/{repository}"
        )
    path = f"{owner}/{repository}/resolve/{revision or 'master'}/{file}"
    return MODEL_SCOPE_ADDRESS + quote(path)


def not_here(prefix: str, name: str) -> UserError:
    """The error for a name of another program that is neither here nor in the catalog."""
    known = "`localspec list --known` shows what localspec can pull"
    if prefix == DOCKER:
        plain = quote(name.rpartition("/")[2].partition(":")[0])
        return UserError(
            f"{name!r} is in a registry of containers, from which localspec does not fetch: look"
            f" for a GGUF at https://huggingface.co/models?library=gguf&search={plain}; {known}"
        )
    program, command = ("Ollama", "ollama pull") if prefix == OLLAMA else ("LM Studio", "lms get")
    return UserError(
        f"{program} has no {name} on this disk: `{command} {shlex.quote(name)}` brings it, and"
        f" {known}"
    )
