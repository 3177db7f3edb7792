"""The draft head that goes with a model that is pulled: names propose it, headers decide.

Repositories keep heads beside a model: `mtp-NAME.gguf`, `eagle3-NAME.gguf` or a folder `MTP/`; the
catalog names some. A few headers are read by range, and one that does not fit is left where it is.
A model whose file has its head inside needs none.
"""

from collections.abc import Callable, Iterator
from itertools import islice

from localspec.errors import LocalspecError
from localspec.gguf.header import Header
from localspec.gguf.hub_name import HUB, HubFile, HubRepository, hub_name_of
from localspec.gguf.remote import read_remote
from localspec.model.head_fit import head_of
from localspec.notify import Notify
from localspec.registry.catalog import Entry
from localspec.registry.remote_file import RemoteFile, describe
from localspec.registry.repository import gguf_files
from localspec.registry.variants import model_of, names_a_head, quantization_of
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
