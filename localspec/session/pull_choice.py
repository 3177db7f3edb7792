"""Which file of a repository to pull: the one that is named, or the one that fits this machine.

Headers decide what is a model at all; the smallest one's describes every quantization.

`sibling_head` finds the draft head that goes with it: names propose one, headers decide.
Repositories keep heads beside a model: `mtp-NAME.gguf`, `eagle3-NAME.gguf` or a folder `MTP/`; the
catalog names some. A few headers are read by range, and one that does not fit is left where it is.
A model whose file has its head inside needs none.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from localspec.errors import LocalspecError, ModelError, UserError
from localspec.forecast.machine import MachineChoice
from localspec.forecast.quantization import choose
from localspec.gguf.header import Header
from localspec.gguf.hub_name import HUB, HubFile, HubRepository, hub_name_of, with_file
from localspec.gguf.remote import read_remote
from localspec.model.facts import ModelFacts
from localspec.model.head_fit import head_of
from localspec.model.kind import kind_of
from localspec.model.usable import usable_facts
from localspec.notify import Notify
from localspec.registry.catalog import Entry
from localspec.registry.remote_file import RemoteFile, describe
from localspec.registry.repository import gguf_files, variants_of
from localspec.registry.resolve import hub_name
from localspec.registry.variants import Variant, model_of, names_a_head, quantization_of
from localspec.settings import OWN

MOST_READ = 4
"""Headers that are read to find the head."""


def sibling_head(
    header_of: Callable[[], Header], model: RemoteFile, entry: Entry | None, notify: Notify
) -> tuple[RemoteFile, ...]:
    """The files of the head that fits a model which will be fetched, or none.

    `header_of` reads the model's header, which is asked for where a name proposes a head.
    """
    names = list(islice(_proposed(model, entry, notify), MOST_READ))
    target = header_of() if names else None
    if target is None or not isinstance(head_of(target), str):
        return ()
    for proposed in names:
        try:
            files = describe(proposed, notify)
            if not isinstance(head_of(target, read_remote(files[0].pinned)), str):
                return files
        except LocalspecError:  # a head that cannot be had is no reason against the model
            continue
    return ()


def _proposed(model: RemoteFile, entry: Entry | None, notify: Notify) -> Iterator[str]:
    """References, the likeliest first: the catalog's, of the same model, of the same type."""
    if entry and entry.head not in (None, OWN):
        yield f"{HUB}{entry.head}"
    name = hub_name_of(model.reference)
    if not isinstance(name, HubFile):
        return
    try:
        files = gguf_files(HubRepository(name.repository, revision=name.revision), notify)
    except LocalspecError:
        return
    heads = [file for file in files if names_a_head(file.file)]
    own, kind = model_of(name.file), quantization_of(name.file)
    heads.sort(
        key=lambda file: (
            own not in model_of(file.file),
            quantization_of(file.file) != kind,
            file.n_bytes,
        )
    )
    for file in heads:
        yield HubFile(name.repository, file.file, name.revision).name


USUAL_BITS = 4.85
"""A weight of Q4_K_M."""

Chosen = tuple[str, tuple[str, ...]]
"""The reference of a file, and sentences on why it is this one."""


def of_repository(name: HubRepository, where: MachineChoice, notify: Notify) -> Chosen:
    """The file of a repository that is named by a tag, else the one that fits.

    Raises UserError or ModelError, also where no file of it can write text.
    """
    return _fitting_one(name, variants_of(name, notify), None, where, notify)


def of_entry(
    entry: Entry, draft: ModelFacts | None, where: MachineChoice, notify: Notify
) -> Chosen:
    """The quantization of an entry that fits, with its draft."""
    found = _listed(entry, notify)
    if len(found) < 2:
        return spelled(entry, None, notify), ()
    return _fitting_one(HubRepository(entry.repository), found, draft, where, notify)


def spelled(entry: Entry, kind: str | None, notify: Notify) -> str:
    """The reference of an entry's file, as its repository spells it today."""
    found, wanted = _listed(entry, notify), kind or quantization_of(entry.file)
    if any(variant.file == entry.file for variant in found) and kind is None:
        return hub_name(entry)
    fitting = [variant for variant in found if variant.type == wanted]
    if fitting:
        return with_file(HubRepository(entry.repository), fitting[0].file).name
    if kind and found:
        types = ", ".join(f"{entry.name}:{variant.type}" for variant in found if variant.type)
        raise UserError(f"{entry.name} has no {kind} in {entry.repository}: name one of {types}")
    return hub_name(entry, kind)


def _listed(entry: Entry, notify: Notify) -> list[Variant]:
    """The quantizations of an entry's repository; none where it cannot be listed."""
    try:
        return variants_of(HubRepository(entry.repository), notify, entry.file)
    except (ModelError, UserError):
        return []


def _fitting_one(
    name: HubRepository,
    found: list[Variant],
    draft: ModelFacts | None,
    where: MachineChoice,
    notify: Notify,
) -> Chosen:
    facts, found = _facts(name, found)
    if len(found) > 1 and (choice := choose(found, facts, draft, where, notify)):
        return with_file(name, choice.variant.file).name, choice.reasons
    # No published quality tells the types apart: the one nearest to Q4_K_M in bits.
    nearest = min(found, key=lambda one: abs(8 * one.n_bytes / facts.n_params - USUAL_BITS))
    return with_file(name, nearest.file).name, ()


def _facts(name: HubRepository, found: list[Variant]) -> tuple[ModelFacts, list[Variant]]:
    """Of the smallest file that is a model, and the files from there on."""
    for i, variant in enumerate(found, start=1):
        header = read_remote(with_file(name, variant.file).name)
        if kind_of(header).is_model or i == len(found):
            return usable_facts(header), found[i - 1 :]
    raise AssertionError("a repository without files is refused before")
