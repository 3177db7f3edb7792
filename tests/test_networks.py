"""Networks as people sit in them: proxies, certificates of their own, mirrors, portals."""

import sys
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from command import Run, assert_refused, localspec
from hub import Handler, Hub
from proxies import Authority, Proxy, authority

from localspec.errors import UserError
from localspec.gguf import hub_library

REPO, FILE = "owner/repo-GGUF", "model-Q4_0.gguf"
NAME = f"hf:{REPO}/{FILE}"
DATA = b"GGUF" + bytes(range(256)) * 400
PORTAL = ("is answered with a web page", "log in to this network", "HF_ENDPOINT")


@pytest.fixture
def hub() -> Generator[Hub]:
    hub = Hub()
    hub.add(REPO, FILE, DATA)
    with hub.running():
        yield hub


@pytest.fixture
def pull(hub: Hub, tmp_path: Path) -> Callable[..., Run]:
    def run(name: str = NAME, **more: str) -> Run:
        environment = hub.environment(tmp_path / "hf") | {"NO_PROXY": ""} | more
        return localspec("pull", name, "--json", **environment)

    return run


def assert_pulled(run: Run) -> None:
    assert run.code == 0, run.stderr
    (file,) = run.document["files"]
    assert Path(file["path"]).read_bytes() == DATA


# --- variables that are wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("HF_HUB_DOWNLOAD_TIMEOUT", "abc", ("='abc' is no number of seconds", "unset it")),
        ("HF_HUB_ETAG_TIMEOUT", "1.5", ("='1.5' is no number of seconds",)),
        ("HF_ENDPOINT", "hf-mirror.com", ("is no address", "https://host")),
        ("SSL_CERT_FILE", "/nonexistent.pem", ("=/nonexistent.pem", "is not there")),
        ("HTTPS_PROXY", "htp://me:secret@host:1", ("htp://host:1 is no proxy", "socks5://")),
        ("ALL_PROXY", "socks4://host:1", ("socks4://host:1 is no proxy",)),
    ],
)
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: tuple[str, ...]
) -> None:
    """As the first thing that needs the hub finds it, before anything is asked."""
    from huggingface_hub.utils import close_session

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, value)
    close_session()
    with pytest.raises(UserError) as caught:
        hub_library.http_client()
    monkeypatch.undo()
    close_session()
    sentence = str(caught.value)
    assert sentence.startswith(f"{variable}=")
    assert [word for word in words if word not in sentence] == [], sentence
    assert "secret" not in sentence


def test_a_wrong_variable_ends_a_command_in_one_sentence(pull: Callable[..., Run]) -> None:
    run = pull(HF_HUB_DOWNLOAD_TIMEOUT="abc")
    assert_refused(run, 2, "HF_HUB_DOWNLOAD_TIMEOUT='abc' is no number of seconds")


def test_a_socks_proxy_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import close_session

    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "socksio", None)
    close_session()
    with pytest.raises(UserError, match=r"ALL_PROXY=socks5://127.0.0.1:9 .*pip install socksio"):
        hub_library.http_client()
    monkeypatch.undo()
    close_session()


# --- proxies -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_socks_proxy_is_used(hub: Hub, pull: Callable[..., Run]) -> None:
    pytest.importorskip("socksio", reason="SOCKS proxies need the package socksio")
    with Proxy("socks").running() as proxy:
        assert_pulled(pull(ALL_PROXY=proxy.address))
    assert proxy.asked[0].startswith("SOCKS 127.0.0.1:")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ("407 Proxy Authentication Required", ("wants a login", "http://name:password@host")),
        ("403 Forbidden", ("refuses", "403 Forbidden")),
    ],
)
def test_a_proxy_that_refuses_is_named(
    pull: Callable[..., Run], refusal: str, words: tuple[str, ...]
) -> None:
    with Proxy(refusal=refusal).running() as proxy:
        run = pull(HF_ENDPOINT="https://hub.invalid", HTTPS_PROXY=proxy.address)
        assert_refused(run, 1, f"HTTPS_PROXY={proxy.address}", *words)
        assert proxy.asked == ["CONNECT hub.invalid:443"]


@pytest.mark.slow
def test_a_proxy_that_is_not_there_is_named(pull: Callable[..., Run]) -> None:
    run = pull(HTTP_PROXY="http://me:secret@127.0.0.1:9")
    assert_refused(run, 1, "does not answer", "through HTTP_PROXY=http://127.0.0.1:9")
    assert "secret" not in run.stderr


# --- certificates ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def closed(own: Authority) -> Generator[Hub]:
    """A hub whose certificate only its own authority has signed."""
    hub = Hub(tls=own.server)
    hub.add(REPO, FILE, DATA)
    with hub.running():
        yield hub


@pytest.mark.slow
def test_an_authority_of_one_s_own_is_trusted_if_it_is_named(
    closed: Hub, tmp_path: Path, own: Authority
) -> None:
    environment = closed.environment(tmp_path / "hf")
    run = localspec("pull", NAME, "--json", **environment)
    assert_refused(run, 1, "certificate is not trusted here", "SSL_CERT_FILE", "log in to this")
    trusted = environment | {"SSL_CERT_FILE": str(own.certificates)}
    assert_pulled(localspec("pull", NAME, "--json", **trusted))


@pytest.mark.slow
@pytest.mark.parametrize("by_tls", [False, True])
def test_an_https_hub_is_reached_through_a_proxy(
    closed: Hub, tmp_path: Path, own: Authority, by_tls: bool
) -> None:
    trusted = {"SSL_CERT_FILE": str(own.certificates), "NO_PROXY": ""}
    with Proxy(tls=own.server if by_tls else None).running() as proxy:
        environment = closed.environment(tmp_path / "hf") | trusted
        run = localspec("pull", NAME, "--json", **environment, HTTPS_PROXY=proxy.address)
        assert_pulled(run)
    assert {ask.partition(" ")[0] for ask in proxy.asked} == {"CONNECT"}


# --- mirrors and portals -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_mirror_may_have_a_path(hub: Hub, pull: Callable[..., Run]) -> None:
    hub.path = "/hf"
    mirror = f"{hub.address}/hf"
    assert_pulled(pull(HF_ENDPOINT=mirror))
    assert_pulled(pull(f"{mirror}/{REPO}/blob/main/{FILE}", HF_ENDPOINT=mirror))
    assert_pulled(pull(f"https://huggingface.co/{REPO}/blob/main/{FILE}", HF_ENDPOINT=mirror))
    assert all(ask.path.startswith(("/hf/", "/storage/")) for ask in hub.asked)


def page(request: BaseHTTPRequestHandler, status: int = 200, **headers: str) -> bool:
    body = b"<html><title>Hotel WiFi</title>"
    request.send_response(status)
    for name, value in {"Content-Type": "text/html; charset=utf-8", **headers}.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
    return True


def answers_with_a_page(request: Handler) -> bool:
    return page(request)


def leads_to_a_login(request: Handler) -> bool:
    if request.path.startswith("/login"):
        return page(request)
    return page(request, 302, Location=f"{request.hub.storage}/login?from=hub")


def wants_a_login(request: Handler) -> bool:
    return page(request, 511)


@pytest.mark.slow
@pytest.mark.parametrize("portal", [answers_with_a_page, leads_to_a_login, wants_a_login])
@pytest.mark.parametrize("name", [NAME, f"{REPO}:Q4_0"])
def test_a_portal_is_told_from_the_hub(
    hub: Hub, pull: Callable[..., Run], portal: Callable[[Handler], bool], name: str
) -> None:
    hub.faults.append(portal)
    assert_refused(pull(name), 1, *PORTAL)
    read = localspec("predict", NAME, "--probe", "off", **hub.environment(Path("/nonexistent")))
    assert_refused(read, 1, *PORTAL)


@pytest.mark.slow
def test_a_portal_in_the_middle_spoils_nothing(hub: Hub, pull: Callable[..., Run]) -> None:
    """The part that has come is kept, and no page becomes part of a model."""

    def half(request: Handler) -> bool:
        if not request.is_storage:
            return False
        if request.ask.begin:
            return page(request)
        request.send_part(50_000)
        request.connection.close()
        return True

    hub.faults.append(half)
    run = pull()
    assert run.code == 1
    assert all(words in run.stderr.splitlines()[-1] for words in PORTAL)
    hub.faults.clear()
    again = pull()
    assert_pulled(again)
    assert again.document["files"][0]["fetched_bytes"] == len(DATA) - 50_000
