"""The hub's cache as disks have it: without links, moved, read-only, full, or of another user."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from babbling import write_babbling_model
from command import Run, assert_refused, clean_environment, localspec
from hub import Hub

from localspec.model.synthetic import Shape
from localspec.registry.manifest import pulled

REPO, FILE = "owner/repo-GGUF", "model-F16.gguf"
NAME = f"hf:{REPO}/{FILE}"
TINY = Shape(n_layers=1, n_embd=64, n_heads=2, n_kv_heads=1, n_ff=128, n_vocab=320)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_babbling_model(path, TINY)
    return path.read_bytes()


@pytest.fixture
def hub(tiny: bytes) -> Generator[Hub]:
    with Hub().running() as running:
        running.add(REPO, FILE, tiny)
        yield running


class Cache:
    """A cache without links, and commands that use it."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub, self.home = hub, home
        self.environment = hub.environment(home) | {"HF_HUB_DISABLE_SYMLINKS": "1"}

    def __call__(self, *arguments: str, **more: str) -> Run:
        return localspec(*arguments, **(self.environment | more))

    @property
    def n_bytes(self) -> int:
        """Of all files, also of those that nothing names."""
        files = (path for path in self.home.rglob("*") if path.is_file() and not path.is_symlink())
        return sum(path.stat().st_size for path in files if path.suffix not in (".lock", ".TAG"))

    def pull(self, *more: str) -> dict[str, Any]:
        run = self("pull", NAME, "--json", *more)
        assert run.code == 0, run.stderr
        (file,) = run.document["files"]
        return file

    def by_the_library(self, call: str = f"hf_hub_download('{REPO}', '{FILE}')") -> Path:
        """What the hub's own client puts there."""
        program = f"from huggingface_hub import *; print({call})"
        environment = clean_environment() | self.environment | {"HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return Path(done.stdout.strip())


@pytest.fixture
def cache(hub: Hub, tmp_path: Path) -> Cache:
    return Cache(hub, tmp_path / "hf")


def flip(path: Path, at: int = 5000) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


# --- without links -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_bytes_are_there_once_from_pull_to_remove(cache: Cache, tiny: bytes) -> None:
    path = Path(cache.pull()["path"])
    n_names = 40 + 1  # refs/main
    assert not path.is_symlink()
    assert path.read_bytes() == tiny
    assert len(tiny) <= cache.n_bytes <= len(tiny) + n_names
    assert cache.hub.n_stored_sent == len(tiny)
    assert cache.pull()["fetched_bytes"] == 0

    flip(path)
    assert "is damaged" in cache("verify").stdout
    mended = cache("verify", "--repair")
    assert "whole again" in mended.stdout, mended.stderr
    assert path.read_bytes() == tiny, "the file that is used is the one that is mended"
    assert cache("verify", HF_HUB_OFFLINE="1").code == 0

    path.write_bytes(tiny[:3000])
    assert cache("verify", "--repair").code == 0
    assert path.read_bytes() == tiny
    assert cache.n_bytes <= len(tiny) + n_names

    before = cache.n_bytes
    freed = cache("remove", NAME, "--yes", "--json").document["freed_bytes"]
    assert freed == len(tiny)
    assert before - cache.n_bytes >= freed
    assert cache.n_bytes == 0


@pytest.mark.slow
def test_a_file_of_the_hub_s_client_is_found_and_not_fetched(cache: Cache, tiny: bytes) -> None:
    path = cache.by_the_library()
    n_sent = cache.hub.n_stored_sent
    file = cache.pull()
    assert (file["path"], file["fetched_bytes"]) == (str(path), 0)
    assert cache.hub.n_stored_sent == n_sent
    assert cache("verify").code == 0
    assert_refused(cache("remove", NAME, "--yes"), 2, "was here before localspec")
    assert path.read_bytes() == tiny


@pytest.mark.slow
@pytest.mark.parametrize("links", ["", "1"])
def test_a_snapshot_of_the_hub_s_client_is_found_by_any_name(
    cache: Cache, links: str, tiny: bytes
) -> None:
    cache.environment["HF_HUB_DISABLE_SYMLINKS"] = links
    snapshot = cache.by_the_library(f"snapshot_download('{REPO}')")
    n_sent = cache.hub.n_stored_sent
    assert cache.pull()["path"] == str(snapshot / FILE)
    assert_refused(cache("pull", f"{REPO.upper()}:f16"), 2, "is here already")
    assert (cache.hub.n_stored_sent, n_sent) == (len(tiny), len(tiny))


@pytest.mark.slow
def test_bytes_of_the_client_s_former_local_folders_are_found(
    cache: Cache, tiny: bytes, tmp_path: Path
) -> None:
    """It kept a blob in the cache, a link to it in the folder, and no snapshot."""
    cache.environment["HF_HUB_DISABLE_SYMLINKS"] = ""
    folder = cache.home / "hub" / f"models--{REPO.replace('/', '--')}"
    blob = folder / "blobs" / sha256(tiny).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(tiny)
    (tmp_path / FILE).symlink_to(blob)
    assert cache.pull()["fetched_bytes"] == 0
    assert cache.hub.n_stored_sent == 0
    assert cache.n_bytes <= len(tiny) + 41
    assert_refused(cache("remove", NAME, "--yes"), 2, "was here before localspec")
    assert blob.read_bytes() == tiny


@pytest.mark.slow
def test_other_capitals_bring_no_second_copy(cache: Cache, tiny: bytes) -> None:
    """The hub leads them to the right ones, and the cache has a folder a spelling."""
    cache.hub.renamed["OWNER/Repo-gguf"] = REPO
    for name in (f"hf:OWNER/Repo-gguf/{FILE}", "OWNER/Repo-gguf:f16"):
        run = cache("pull", name, "--json")
        assert run.code in (0, 2), run.stderr
    assert cache.pull()["fetched_bytes"] == 0
    n_headers = 1  # read by range before
    assert cache.hub.n_stored_sent <= (1 + n_headers) * len(tiny)
    assert cache.n_bytes <= len(tiny) + 41
    assert cache("remove", "owner/repo-gguf:F16", "--yes", "--json").document["freed_bytes"] == len(
        tiny
    )
    assert cache.n_bytes == 0


@pytest.mark.slow
def test_the_hub_s_client_finds_what_was_pulled(cache: Cache) -> None:
    path = cache.pull()["path"]
    n_sent = cache.hub.n_stored_sent
    assert str(cache.by_the_library()) == path
    assert cache.hub.n_stored_sent == n_sent


@pytest.mark.slow
def test_a_second_copy_is_freed_with_the_first(cache: Cache, tiny: bytes) -> None:
    """As copying a cache from a disk with links leaves them."""
    path = Path(cache.pull()["path"])
    (entry,) = pulled()
    blob = path.parents[2] / "blobs" / str(entry.sha256)
    blob.parent.mkdir(exist_ok=True)
    shutil.copy(path, blob)
    assert cache("remove", NAME, "--yes", "--json").document["freed_bytes"] == 2 * len(tiny)
    assert cache.n_bytes == 0


@pytest.mark.slow
@pytest.mark.parametrize("links", ["", "1"])
def test_another_revision_with_the_same_bytes_is_not_fetched(
    cache: Cache, tiny: bytes, links: str
) -> None:
    """Where no link can lead to them, the file gets a second name, or is copied."""
    cache.environment["HF_HUB_DISABLE_SYMLINKS"] = links
    first = Path(cache.pull()["path"])
    cache.hub.add(REPO, "README.md", b"new")
    second = cache.pull()
    assert (second["fetched_bytes"], cache.hub.n_stored_sent) == (0, len(tiny))
    assert Path(second["path"]) != first
    assert Path(second["path"]).read_bytes() == tiny
    removed = cache("remove", f"{REPO}:F16", "--yes", "--json")
    assert removed.document["freed_bytes"] == len(tiny), "the last name goes with the other"
    assert cache.n_bytes == 0


# --- moved, read-only, of another user, full ---------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("links", ["", "1"])
def test_a_cache_that_moved_is_still_known(cache: Cache, links: str, tiny: bytes) -> None:
    cache.environment["HF_HUB_DISABLE_SYMLINKS"] = links
    cache.pull()
    moved = cache.home.with_name("elsewhere")
    cache.home.rename(moved)
    elsewhere = {"HF_HOME": str(moved)}
    run = cache("verify", "--json", **elsewhere)
    (file,) = run.document["files"]
    assert (run.code, file["state"]) == (0, "whole")
    assert Path(file["path"]).is_relative_to(moved)
    rows = cache("list", "--json", **elsewhere).document["models"]
    assert NAME in {row["name"] for row in rows}
    n_sent = cache.hub.n_stored_sent
    assert cache("pull", NAME, "--json", **elsewhere).document["files"][0]["fetched_bytes"] == 0
    assert cache.hub.n_stored_sent == n_sent
    assert len(pulled()) == 1


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Callable[[str], Path]]:
    """A small file system that is mounted anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a file system of its own needs root and mount: not tested here")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


@pytest.mark.slow
def test_a_cache_that_is_only_read_is_used_and_named(
    hub: Hub, disk: Callable[[str], Path], tiny: bytes
) -> None:
    cache = Cache(hub, disk("size=20m"))
    cache.environment["HF_HUB_DISABLE_SYMLINKS"] = ""
    cache.by_the_library()
    disk("remount,ro,size=20m")
    n_sent = hub.n_stored_sent
    file = cache.pull()
    assert (file["fetched_bytes"], hub.n_stored_sent) == (0, n_sent)
    hub.add(REPO, "other-F16.gguf", tiny + b"other")
    run = cache("pull", f"hf:{REPO}/other-F16.gguf")
    assert_refused(run, 1, "cannot be written", "may only be read", "HF_HOME")


@pytest.mark.slow
def test_what_may_only_be_read_is_neither_mended_nor_removed(
    hub: Hub, disk: Callable[[str], Path]
) -> None:
    cache = Cache(hub, disk("size=300m"))
    flip(Path(cache.pull()["path"]))
    disk("remount,ro,size=300m")
    for command in (("verify", "--repair"), ("remove", NAME, "--yes")):
        run = cache(*command)
        assert (run.code, run.stdout) == (1, "")
        last = run.stderr.splitlines()[-1]
        assert "Read-only file system; make its folder writable" in last


@pytest.mark.slow
@pytest.mark.parametrize("links", ["", "1"])
def test_a_full_disk_has_room_for_a_repair(
    hub: Hub, disk: Callable[[str], Path], links: str
) -> None:
    """Damaged blocks are written in place."""
    data = hub.add(REPO, FILE, b"GGUF" + os.urandom(6_000_000))
    folder = disk("size=300m")
    cache = Cache(hub, folder)
    cache.environment["HF_HUB_DISABLE_SYMLINKS"] = links
    path = Path(cache.pull()["path"])
    flip(path)
    free = shutil.disk_usage(folder).free
    (folder / "other").write_bytes(bytes(free - 100_000))
    assert cache("verify", "--repair").code == 0
    assert path.read_bytes() == data


@pytest.mark.slow
def test_a_lock_that_another_program_holds_is_waited_for(cache: Cache, tiny: bytes) -> None:
    fcntl = pytest.importorskip("fcntl")
    lock = cache.home / "hub/.locks" / f"models--{REPO.replace('/', '--')}"
    lock.mkdir(parents=True)
    with (lock / f"{sha256(tiny).hexdigest()}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        environment = clean_environment() | cache.environment
        command = [sys.executable, "-m", "localspec", "pull", NAME]
        pull = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert pull.stderr
        assert "another program is fetching" in pull.stderr.readline()
        assert cache.hub.n_stored_sent == 0
    assert pull.wait(30) == 0
    pull.stderr.close()


def test_another_user_s_lock_is_a_sentence_with_its_place(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its owner may write the lock of a shared cache; root may all, so it is refused here."""
    from localspec.errors import HardwareError
    from localspec.registry import pull
    from localspec.registry.remote_file import CachePaths, RemoteFile

    def refused(path: Path, on_wait: Callable[[], None]) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(pull, "in_turn", refused)
    remote = RemoteFile(NAME, "", {}, 10, None, None, None)
    places = [tmp_path / name for name in ("blob", "partial", "lock", "pointer")]
    monkeypatch.setattr(pull, "shelf_of", lambda file: CachePaths(*places))
    with pytest.raises(HardwareError, match=r"lock: Permission denied\): make it writable"):
        pull.pull_file(remote, None, lambda text: None, lambda *progress: None)
    places[0].write_bytes(b"0123456789")
    monkeypatch.setattr(pull, "publish", lambda file, shelf: shelf.blob)
    entry, n_fetched = pull.pull_file(remote, None, lambda text: None, lambda *progress: None)
    assert (entry.n_bytes, n_fetched) == (10, 0)


@pytest.mark.slow
def test_a_cache_of_another_user_is_used_and_what_is_missing_named(
    hub: Hub, tmp_path: Path, tiny: bytes
) -> None:
    """Without the rights of root, files and locks of others may only be read."""
    like_a_user = ["setpriv", "--bounding-set=-dac_override,-fowner,-chown"]
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("files of another user need root and setpriv: not tested here")
    cache = Cache(hub, tmp_path / "hf")
    cache.pull()
    subprocess.run(["chown", "-R", "65534:65534", str(cache.home)], check=True)

    def as_another(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*like_a_user, sys.executable, "-m", "localspec", *arguments]
        environment = clean_environment() | cache.environment
        environment |= {"LOCALSPEC_HOME": str(tmp_path / "own"), "HOME": str(tmp_path)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    n_sent = hub.n_stored_sent
    done = as_another("pull", NAME)
    assert (done.returncode, hub.n_stored_sent) == (0, n_sent), done.stderr
    assert "whole" in as_another("verify").stdout
    hub.add(REPO, "other-F16.gguf", tiny + b"other")
    done = as_another("pull", f"hf:{REPO}/other-F16.gguf")
    assert done.returncode == 1
    assert "may only be read" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_full_disk_without_links_keeps_the_part(hub: Hub, disk: Callable[[str], Path]) -> None:
    data = hub.add(REPO, FILE, b"GGUF" + os.urandom(6_000_000))
    folder = disk("size=100m")
    cache = Cache(hub, folder)

    def fill(request: Any) -> bool:
        if request.is_storage:
            free = shutil.disk_usage(folder).free
            with (folder / "other").open("wb") as file:
                file.write(bytes(free - 3_000_000))
        return False

    hub.faults.append(fill)
    run = cache("pull", NAME)
    assert run.code == 1
    last = run.stderr.splitlines()[-1]
    assert [
        words for words in ("No space left", "make room", "are kept") if words not in last
    ] == []
    hub.faults.clear()
    (folder / "other").unlink()
    file = cache.pull()
    assert Path(file["path"]).read_bytes() == data
    assert 0 < file["fetched_bytes"] < len(data)
