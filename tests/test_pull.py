"""`pull` over a real connection: what is on the disk afterwards is the hub's, whatever happens."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from command import LOCALSPEC, Run, assert_refused, clean_environment, localspec
from hub import Handler, Hub

from localspec import paths
from localspec.registry import download as module
from localspec.registry import download as patience
from localspec.registry.manifest import pulled

pytestmark = pytest.mark.slow
"""Each command asks a hub on loopback, in a process of its own."""

REPO = "owner/repo-GGUF"
FILE = "model-Q4_0.gguf"


@pytest.fixture
def pull(hub: Hub, tmp_path: Path) -> Callable[..., Run]:
    def run(*arguments: str, command: str = "pull", **more: str) -> Run:
        environment = hub.environment(tmp_path / "hf") | more
        return localspec(command, *arguments, **environment)

    return run


def data_of(n_bytes: int, seed: int = 0) -> bytes:
    """Bytes that differ everywhere, with a model's first four."""
    return b"GGUF" + random.Random(seed).randbytes(n_bytes - 4)


def blobs(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "hf" / "hub").glob("models--*/blobs/*"))


def only_file(run: Run) -> dict[str, object]:
    assert run.code == 0, run.stderr
    (file,) = run.document["files"]
    return file


# --- what it is for ----------------------------------------------------------------------------


def test_a_file_is_here_whole_pinned_and_where_other_programs_look(
    hub: Hub, pull: Callable[..., Run], tmp_path: Path
) -> None:
    data = hub.add(REPO, f"sub/{FILE}", data_of(3_000_000))
    file = only_file(pull(f"hf:{REPO}/sub/{FILE}", "--json"))
    digest = hashlib.sha256(data).hexdigest()
    assert (file["sha256"], file["bytes"]) == (digest, len(data))
    assert file["revision"] == hub.commit(REPO)
    path = Path(str(file["path"]))
    assert path.read_bytes() == data
    assert (
        path
        == tmp_path / "hf/hub/models--owner--repo-GGUF/snapshots" / hub.commit(REPO) / "sub" / FILE
    )
    assert [blob.name for blob in blobs(tmp_path)] == [digest]
    (entry,) = pulled()
    assert (entry.sha256, entry.n_bytes, entry.revision) == (digest, len(data), file["revision"])
    assert hub.n_stored_sent == len(data)
    found = subprocess.run(
        [
            LOCALSPEC.with_name("python"),
            "-c",
            "import sys; from huggingface_hub import hf_hub_download as d;"
            f"print(d('{REPO}', 'sub/{FILE}', local_files_only=True))",
        ],
        env=clean_environment() | hub.environment(tmp_path / "hf"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(path)


def test_a_second_pull_fetches_nothing(hub: Hub, pull: Callable[..., Run]) -> None:
    hub.add(REPO, FILE, data_of(100_000))
    first = only_file(pull(f"hf:{REPO}/{FILE}", "--json"))
    n_sent = hub.n_stored_sent
    run = pull(f"{hub.address}/{REPO}/blob/main/{FILE}", "--json")  # the page's address
    assert only_file(run)["path"] == first["path"]
    assert hub.n_stored_sent == n_sent


@pytest.mark.slow
def test_kill_9_at_ten_random_points_costs_no_byte_twice(hub: Hub, tmp_path: Path) -> None:
    """What is on the disk is never asked for again, and the file is the same in the end."""
    data = hub.add(REPO, FILE, data_of(200_000_000))
    hub.pace_bytes_per_s = 150e6
    environment = clean_environment() | hub.environment(tmp_path / "hf")
    command = [LOCALSPEC, "pull", f"hf:{REPO}/{FILE}"]
    partial = (
        tmp_path
        / "hf/hub/models--owner--repo-GGUF/blobs"
        / (hashlib.sha256(data).hexdigest() + ".incomplete")
    )
    points = sorted(random.Random(time.time()).sample(range(1, len(data)), 10))
    kept: list[int] = []
    for point in points:
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
        while size_of(partial) < point and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr and process.stderr.read()
        assert process.stderr is not None
        process.stderr.close()
        kept.append(size_of(partial))
        assert partial.parent.joinpath(partial.stem).exists() is False
    done = subprocess.run(
        [*command, "--json"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (file,) = json.loads(done.stdout)["files"]
    assert Path(file["path"]).read_bytes() == data
    assert not partial.exists()
    # A killed process may not have opened its request yet; each that was opened began at the end
    # of what had been kept.
    assert set(hub.begins) <= {0, *kept}
    assert file["fetched_bytes"] == len(data) - kept[-1]
    # What was on its way when a process died is lost: sockets hold a few megabytes.
    assert hub.n_stored_sent - len(data) <= 10 * (8 << 20)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.slow
def test_two_pulls_at_once_end_with_one_good_file(hub: Hub, tmp_path: Path) -> None:
    data = hub.add(REPO, FILE, data_of(20_000_000))
    hub.pace_bytes_per_s = 10e6
    environment = clean_environment() | hub.environment(tmp_path / "hf")
    command = [LOCALSPEC, "pull", f"hf:{REPO}/{FILE}", "--json"]
    both = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    files = [json.loads(stdout)["files"][0] for stdout, _ in outputs]
    assert files[0]["path"] == files[1]["path"]
    assert Path(files[0]["path"]).read_bytes() == data
    assert hub.n_stored_sent == len(data)
    assert sorted(file["fetched_bytes"] for file in files) == [0, len(data)]
    assert any("waiting" in stderr for _, stderr in outputs)
    assert len(blobs(tmp_path)) == 1


# --- what goes wrong on the way ----------------------------------------------------------------


def cut_after(n_bytes: int, times: int, *, silent_s: float = 0.0) -> Callable[[Handler], bool]:
    """The connection breaks in the middle of an answer, or the server falls silent first."""
    left = [times]

    def fault(request: Handler) -> bool:
        if not (request.is_storage and left[0]):
            return False
        left[0] -= 1
        request.send_part(n_bytes)
        request.wfile.flush()
        time.sleep(silent_s)
        if not silent_s:
            request.connection.close()
        return True

    return fault


def answers(status: int, times: int, **headers: str) -> Callable[[Handler], bool]:
    """A server that is busy for the first requests for bytes."""
    left = [times]

    def fault(request: Handler) -> bool:
        if not (request.is_storage and left[0]):
            return False
        left[0] -= 1
        request.refuse(status, **headers)
        return True

    return fault


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "n_requests"),
    [
        (cut_after(700_000, 3), 4),
        (cut_after(1_000_000, 1, silent_s=3), 2),
        (answers(503, 2), 3),
        (answers(500, 1), 2),
        (answers(429, 1, Retry_After="1"), 2),
    ],
    ids=["cut", "stall", "503", "500", "429"],
)
def test_a_bad_connection_is_made_again_and_goes_on(
    hub: Hub, pull: Callable[..., Run], fault: Callable[[Handler], bool], n_requests: int
) -> None:
    data = hub.add(REPO, FILE, data_of(4_000_000))
    hub.faults.append(fault)
    file = only_file(pull(f"hf:{REPO}/{FILE}", "--json"))
    assert Path(str(file["path"])).read_bytes() == data
    assert len(hub.begins) == n_requests
    assert hub.begins == sorted(hub.begins)
    assert hub.n_stored_sent == len(data)


@pytest.mark.slow
def test_retry_after_is_obeyed(hub: Hub, pull: Callable[..., Run]) -> None:
    hub.add(REPO, FILE, data_of(1000))
    times: list[float] = []

    def busy(request: Handler) -> bool:
        if request.command != "HEAD":
            return False
        times.append(time.monotonic())
        if len(times) == 1:
            request.refuse(429, Retry_After="2")
        return len(times) == 1

    hub.faults.append(busy)
    run = pull(f"hf:{REPO}/{FILE}")
    assert run.code == 0, run.stderr
    assert times[1] - times[0] >= 2
    assert "too many requests" in run.stderr


@pytest.mark.slow
def test_a_server_that_stays_busy_is_given_up_and_the_part_is_kept(
    hub: Hub, pull: Callable[..., Run], tmp_path: Path
) -> None:
    data = hub.add(REPO, FILE, data_of(2_000_000))

    def down(request: Handler) -> bool:
        if request.is_storage and request.ask.begin:
            request.refuse(503, Retry_After="0")
            return True
        return False

    hub.faults += [cut_after(500_000, 1), down]
    run = pull(f"hf:{REPO}/{FILE}")
    assert run.code == 1
    assert "503" in run.stderr.splitlines()[-1]
    assert "0.5 MB are kept" in run.stderr
    hub.faults.clear()
    file = only_file(pull(f"hf:{REPO}/{FILE}", "--json"))
    assert Path(str(file["path"])).read_bytes() == data
    assert file["fetched_bytes"] == len(data) - 500_000


def test_bytes_that_are_not_the_hub_s_are_dropped(
    hub: Hub, pull: Callable[..., Run], tmp_path: Path
) -> None:
    """A proxy that changes a byte must not leave a model that answers nonsense."""
    data = hub.add(REPO, FILE, data_of(300_000))
    wrong = bytearray(data)
    wrong[123_456] ^= 1

    def corrupt(request: Handler) -> bool:
        if not request.is_storage:
            return False
        request.send_response(206)
        request.send_header("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.send_bytes(bytes(wrong), 0, len(wrong))
        return True

    hub.faults.append(corrupt)
    run = pull(f"hf:{REPO}/{FILE}")
    assert run.code == 1
    assert "SHA-256" in run.stderr
    assert blobs(tmp_path) == []
    assert run.stdout == ""


def test_a_server_without_ranges_sends_the_file_again_as_a_whole(
    hub: Hub, pull: Callable[..., Run]
) -> None:
    data = hub.add(REPO, FILE, data_of(1_000_000))
    hub.hides_ranges = True
    file = only_file(pull(f"hf:{REPO}/{FILE}", "--json"))
    assert Path(str(file["path"])).read_bytes() == data


@pytest.mark.slow
def test_refusals_are_sentences(hub: Hub, pull: Callable[..., Run]) -> None:
    hub.add(REPO, FILE, data_of(1000))
    hub.add("owner/gated-GGUF", FILE, data_of(1000))
    hub.gated["owner/gated-GGUF"] = "hf_good"
    for reference, words, environment in (
        (f"hf:owner/nothing/{FILE}", ("does not exist or is private", "HF_TOKEN"), {}),
        (f"hf:{REPO}/other.gguf", ("other.gguf", "does not exist in its repository"), {}),
        (f"hf:{REPO}/{FILE}@v9", ("revision",), {}),
        (f"hf:owner/gated-GGUF/{FILE}", ("gated", "accept its licence"), {}),
        (f"hf:owner/gated-GGUF/{FILE}", ("gated",), {"HF_TOKEN": "hf_bad"}),
    ):
        assert_refused(pull(reference, **environment), 1, *words)
    assert pull(f"hf:owner/gated-GGUF/{FILE}", HF_TOKEN="hf_good").code == 0
    for ask in hub.asked:
        if ask.path.startswith("/storage/"):
            assert ask.token is None, "the token went to the storage"


def test_without_a_network_it_is_said_at_once(pull: Callable[..., Run], hub: Hub) -> None:
    run = pull(f"hf:{REPO}/{FILE}", HF_ENDPOINT="http://127.0.0.1:9")
    assert_refused(run, 1, "does not answer")
    assert_refused(pull(f"hf:{REPO}/{FILE}", "--offline"), 1, "--offline")
    assert hub.asked == []


def test_what_is_here_needs_no_network(hub: Hub, pull: Callable[..., Run]) -> None:
    hub.add(REPO, FILE, data_of(1000))
    assert pull(f"hf:{REPO}/{FILE}").code == 0
    n_asked = len(hub.asked)
    assert only_file(pull(f"hf:{REPO}/{FILE}", "--offline", "--json"))["fetched_bytes"] == 0
    assert len(hub.asked) == n_asked


def test_a_repository_on_xet_storage_is_pulled_over_http(
    hub: Hub, pull: Callable[..., Run]
) -> None:
    """hf_xet, which is installed here, neither resumes across processes nor is needed."""
    data = hub.add(REPO, FILE, data_of(100_000))
    hub.xet = True
    file = only_file(pull(f"hf:{REPO}/{FILE}", "--json"))
    assert Path(str(file["path"])).read_bytes() == data


def test_a_file_of_another_server_is_pulled_too(
    hub: Hub, pull: Callable[..., Run], tmp_path: Path
) -> None:
    data = hub.add(REPO, FILE, data_of(1_000_000))
    address = f"{hub.storage}/storage/{REPO}/{FILE}"
    hub.faults.append(cut_after(300_000, 1))
    file = only_file(pull(address, "--json"))
    assert Path(str(file["path"])).read_bytes() == data
    assert Path(str(file["path"])).is_relative_to(paths.data_dir())
    assert hub.n_stored_sent == len(data)
    assert_refused(pull(f"{hub.storage}/nothing/at/all.gguf"), 1, "does not exist")


def test_a_small_file_is_proved_by_git_s_hash(hub: Hub, pull: Callable[..., Run]) -> None:
    data = hub.add(REPO, FILE, data_of(10_000))
    hub.plain = True
    file = only_file(pull(f"hf:{REPO}/{FILE}", "--json"))
    assert Path(str(file["path"])).read_bytes() == data
    assert file["sha256"] == hashlib.sha256(data).hexdigest()


def test_a_renamed_repository_is_followed(hub: Hub, pull: Callable[..., Run]) -> None:
    data = hub.add("new/name-GGUF", FILE, data_of(10_000))
    hub.renamed[REPO] = "new/name-GGUF"
    file = only_file(pull(f"hf:{REPO}/{FILE}", "--json"))
    assert Path(str(file["path"])).read_bytes() == data


@pytest.mark.parametrize("seed", range(6))
def test_any_run_of_cuts_ends_with_the_same_bytes(
    hub: Hub, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a server sends no more than so much at once, as the hub does of large files."""
    chance = random.Random(seed)
    data = hub.add(REPO, FILE, data_of(500_000, seed))
    monkeypatch.setattr(module, "MOST_AT_ONCE_BYTES", chance.choice((100_000, 1 << 30)))
    monkeypatch.setattr(patience, "FIRST_WAIT_S", 0.0)
    for _ in range(chance.randrange(12)):
        hub.faults.append(cut_after(chance.choice((1, 1000, 65_536, 200_000)), 1))
    partial = tmp_path / "partial"
    n_before = chance.choice((0, 1, 250_000, len(data), len(data) + 1))
    partial.write_bytes((data + b"!")[:n_before])
    heard: list[int] = []
    wanted = module.Download(FILE, f"{hub.storage}/storage/{REPO}/{FILE}", {}, len(data))
    module.download(wanted, partial, heard.append, lambda message: None)
    assert partial.read_bytes() == data
    assert heard == sorted(heard) or n_before > len(data)
    kept = n_before if n_before <= len(data) else 0
    assert hub.n_stored_sent == len(data) - kept


# --- disks -------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 100 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(options, capture_output=True).returncode:
        pytest.skip("a small file system needs root and mount: full disks are not tested here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_what_does_not_fit_is_refused_before_a_byte_moves(
    hub: Hub, pull: Callable[..., Run], small_disk: Path
) -> None:
    hub.add(REPO, FILE, data_of(60_000_000))
    run = pull(f"hf:{REPO}/{FILE}", HF_HOME=str(small_disk))
    assert_refused(run, 1, "are free", "HF_HOME")
    assert hub.n_stored_sent == 0
    assert list(small_disk.rglob("*.gguf")) == []


def test_a_disk_that_fills_meanwhile_ends_with_a_sentence_and_no_model(
    hub: Hub, pull: Callable[..., Run], small_disk: Path
) -> None:
    data = hub.add(REPO, FILE, data_of(30_000_000))

    def fill(request: Handler) -> bool:
        if request.is_storage:
            with suppress_full(), (small_disk / "other").open("wb") as file:
                file.write(bytes(75_000_000))
        return False

    hub.faults.append(fill)
    run = pull(f"hf:{REPO}/{FILE}", HF_HOME=str(small_disk))
    assert run.code == 1
    assert "No space left" in run.stderr.splitlines()[-1]
    assert list(small_disk.rglob("*.gguf")) == []
    left = [path for path in small_disk.rglob("*") if path.is_file() and path.name != "other"]
    assert all(path.suffix in (".incomplete", ".lock", ".TAG") for path in left), left
    hub.faults.clear()
    (small_disk / "other").unlink()
    file = only_file(pull(f"hf:{REPO}/{FILE}", "--json", HF_HOME=str(small_disk)))
    assert Path(str(file["path"])).read_bytes() == data
    assert int(str(file["fetched_bytes"])) < len(data)


def suppress_full():
    from contextlib import suppress

    return suppress(OSError)


# --- other ends --------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_keeps_what_came(hub: Hub, tmp_path: Path) -> None:
    data = hub.add(REPO, FILE, data_of(20_000_000))
    hub.pace_bytes_per_s = 5e6
    environment = clean_environment() | hub.environment(tmp_path / "hf")
    process = subprocess.Popen(
        [LOCALSPEC, "pull", f"hf:{REPO}/{FILE}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell would hand its deafness down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not any(size_of(blob) > 1_000_000 for blob in blobs(tmp_path)):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stdout == ""
    assert "the same command goes on from there" in stderr
    assert "Traceback" not in stderr
    hub.pace_bytes_per_s = None
    (partial,) = blobs(tmp_path)
    n_kept = partial.stat().st_size
    done = localspec("pull", f"hf:{REPO}/{FILE}", "--json", **hub.environment(tmp_path / "hf"))
    assert only_file(done)["fetched_bytes"] == len(data) - n_kept


@pytest.mark.engine
def test_the_starter_is_pulled_and_used_without_a_network() -> None:
    """The first minutes with localspec must not depend on a hub, nor wait for one."""
    alone = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": "http://127.0.0.1:9"}
    file = only_file(localspec("pull", "starter", "--json", **alone))
    assert Path(str(file["path"])).exists()
    run = localspec("chat", "--temp", "0", "-n", "4", stdin=b"Hello\n", **alone)
    assert run.code == 0, run.stderr
    assert run.stdout.strip()


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_a_cache_that_cannot_be_written_is_named(
    hub: Hub, pull: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "hf").write_text("a file")
    hub.add(REPO, FILE, data_of(1000))
    assert_refused(pull(f"hf:{REPO}/{FILE}"), 1, str(tmp_path / "hf"))
