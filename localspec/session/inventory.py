"""The models on this machine, by the name that each is used by."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from localspec.engine.base import EngineConfig
from localspec.engine.graphics import graphics
from localspec.engine.threads import default_threads
from localspec.errors import LocalspecError
from localspec.forecast.forecast import Expectation
from localspec.gguf.reader import PART_NAME, Header, parts_of, read_header
from localspec.model.facts import ModelFacts
from localspec.model.head_fit import head_of
from localspec.model.kind import HEADS, WITH_HEAD, WRITERS, kind_of
from localspec.model.usable import usable_facts
from localspec.registry.catalog import load_catalog
from localspec.registry.local_models import FoundModel, found_models
from localspec.registry.manifest import Pulled, last_used, pulled_files
from localspec.registry.resolve import catalog_entry, local_file
from localspec.settings import OWN


@dataclass(frozen=True, slots=True)
class InventoryRow:
    """A model or a draft head; None means unknown. `problem` says why it cannot be used.

    `kind`: what its header says the file is. `head`: the draft head that fits it, `own` for the one
    inside. `drafts_for`: the models here that a head fits.
    """

    name: str
    path: Path
    origin: str
    n_bytes: int
    kind: str | None = None
    quantization: str | None = None
    n_ctx: int | None = None
    draft: str | None = None
    last_used: str | None = None
    predicted_tps: float | None = None
    problem: str | None = None
    head: str | None = None
    drafts_for: tuple[str, ...] = ()


def inventory(*, with_others: bool) -> list[InventoryRow]:
    """Models of the catalog and pulled ones; `with_others` adds those of other programs."""
    seen: set[Path] = set()
    rows: list[InventoryRow] = []
    for name, path, origin in _own():
        if path.resolve() not in seen:
            seen.add(path.resolve())
            rows.append(_row(name, path, origin))
    rows += [_unfinished(file) for file in pulled_files() if not file.is_whole]
    others: list[FoundModel] = found_models() if with_others else []
    for model in others:
        if model.path.resolve() not in seen:
            seen.add(model.path.resolve())
            rows.append(_row(model.name, model.path, model.origin))
    return _paired(rows)


def _paired(rows: list[InventoryRow]) -> list[InventoryRow]:
    """The same with who drafts for whom, by headers."""
    headers = {row.path: header for row in rows if (header := _whole_header(row)) is not None}
    heads = {row.path: row for row in rows if row.kind in HEADS}
    found: dict[Path, list[InventoryRow]] = {}
    own = [row.path for row in rows if row.kind == WITH_HEAD.name and _fits(headers, row.path)]
    for row in rows:
        for path in heads if row.kind in WRITERS else ():
            if _fits(headers, row.path, path):
                found.setdefault(path, []).append(row)
    by_model = {row.path: heads[path].name for path, fitting in found.items() for row in fitting}
    by_model |= dict.fromkeys(own, OWN)
    return [
        replace(
            row,
            head=by_model.get(row.path),
            drafts_for=tuple(each.name for each in found.get(row.path, ())),
        )
        for row in rows
    ]


def _whole_header(row: InventoryRow) -> Header | None:
    """Of what takes part in a pair."""
    if row.kind not in (*HEADS, *WRITERS) or (row.problem and row.kind in WRITERS):
        return None
    try:
        return read_header(row.path)
    except LocalspecError:
        return None


def _fits(headers: dict[Path, Header], target: Path, head: Path | None = None) -> bool:
    model, other = headers.get(target), headers.get(head) if head else None
    if model is None or (head and other is None):
        return False
    return not isinstance(head_of(model, other), str)


def _own() -> Iterator[tuple[str, Path, str]]:
    files = [file for file in pulled_files() if file.is_whole]
    origin = {file.path: "pulled" if file.fetched else "Hugging Face cache" for file in files}
    for entry in load_catalog().values():
        path = local_file(entry.name)
        if path is not None:
            package = f"package {entry.package}" if entry.package else "Hugging Face cache"
            yield entry.name, path, origin.get(str(path), package)
    for file in files:
        part = PART_NAME.fullmatch(Path(file.path).name)
        if Path(file.path).exists() and (part is None or int(part[2]) == 1):
            yield file.reference, Path(file.path), origin[file.path]


def _row(name: str, path: Path, origin: str) -> InventoryRow:
    entry = catalog_entry(name) if ":" not in name or name.startswith("hf:") else None
    kind, facts, problem = _read(path)
    return InventoryRow(
        name=name,
        path=path,
        origin=origin,
        n_bytes=sum(part.stat().st_size for part in parts_of(path)),
        kind=kind,
        quantization=facts.file_type if facts else None,
        n_ctx=facts.n_ctx_train if facts else None,
        draft=entry.draft if entry else None,
        last_used=last_used().get(str(path)),
        predicted_tps=_predicted_tps(path, facts) if facts else None,
        problem=problem,
    )


def _unfinished(file: Pulled) -> InventoryRow:
    partial = Path(file.partial or "")
    n_here = partial.stat().st_size if file.partial and partial.exists() else 0
    share = f"{100 * n_here / file.n_bytes:.0f} %" if file.n_bytes else "partly"
    problem = f"{share} downloaded; `localspec pull {file.name or file.reference}` resumes"
    name = file.name or file.reference
    return InventoryRow(name, Path(file.path), "unfinished", n_here, problem=problem)


def _read(path: Path) -> tuple[str | None, ModelFacts | None, str | None]:
    """The kind and the facts as far as the header tells them, and why it cannot be used."""
    kind = None
    try:
        header = read_header(path)
        kind = kind_of(header)
        if kind.name in HEADS:
            return kind.name, None, None
        return kind.name, usable_facts(header), kind.engine_problem
    except LocalspecError as error:
        return kind and kind.name, None, str(error)


def _predicted_tps(path: Path, facts: ModelFacts) -> float | None:
    """Of plain decoding with default settings; None unless a probe covers this model."""
    layers = -1 if graphics() else 0
    config = EngineConfig.of(path, ctx=4096, threads=default_threads(), gpu_layers=layers)
    expected = Expectation.of(config, facts)
    return expected and expected.decode(0).mid
