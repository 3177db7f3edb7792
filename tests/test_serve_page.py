"""The page at `/`: in a browser, on a phone and a desk, and the figures that it draws."""

import re
import threading
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import pytest
from browser import Tab, tab
from serving import Served, fake_server

from localspec.serve.messages import Pass
from localspec.serve.metrics import BIN_S, N_BINS, Recent

PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}


# the last minutes


def passed(n_tokens: int = 4, n_drafted: int = 2) -> Pass:
    return Pass(2, 1, n_tokens + n_drafted, n_drafted, n_tokens)


def test_the_last_minutes_are_told_by_the_second() -> None:
    recent = Recent()
    for i in range(10):
        recent.add(passed(), 0.2 * i, 0.2 * (i + 1))
    moment = recent.moment(BIN_S + 0.1)
    assert (moment.users, moment.waiting) == (2, 1)
    assert moment.tokens_per_s == pytest.approx(40 / BIN_S)
    assert moment.drafted_rows == pytest.approx(2)
    assert recent.moment(2 * BIN_S + 0.1).users == 0, "nobody was here since"


def test_a_long_pass_counts_in_all_the_time_that_it_took() -> None:
    """A slow machine's curve is no row of peaks with nothing between them."""
    recent = Recent()
    recent.add(passed(n_tokens=12), BIN_S / 2, 3.5 * BIN_S)
    curves = recent.curves(5 * BIN_S)
    assert curves["users"][-5:] == [2, 2, 2, 2, 0]
    rates = curves["tokens_per_s"]
    assert sum(rates) * BIN_S == pytest.approx(12)
    assert rates[-4] == pytest.approx(rates[-3]) == pytest.approx(2 * rates[-5])
    assert curves["drafted_rows"][-5:] == pytest.approx([2, 2, 2, 2, 0])


def test_what_is_long_ago_is_forgotten() -> None:
    recent = Recent()
    recent.add(passed(), 0, 1)
    recent.add(passed(), 0, 3 * N_BINS * BIN_S)
    late = 5 * N_BINS * BIN_S
    assert set(recent.curves(late)["users"]) == {0}
    assert len(recent.curves(late)["users"]) == N_BINS
    recent.add(passed(), late, late + 1)
    assert recent.curves(late + BIN_S)["users"][-2:] == [0, 2]


# what is sent


def test_the_page_loads_nothing_and_shows_nothing_of_anybody() -> None:
    with fake_server(keys=("secret",)) as server:
        status, html, headers = server.ask("GET", "/")
        assert status == 200
        assert headers["content-type"].startswith("text/html")
        assert not re.findall(r"(?:src|href)=\"(?!data:)", html)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
        assert "secret" not in html
        assert "default-src 'none'" in headers["content-security-policy"]
        assert server.ask("GET", "/status")[0] == 401
        given = {"authorization": "Bearer secret"}
        status, document, _ = server.ask("GET", "/status", headers=given)
        assert status == 200
        assert (document["model"], document["users"], document["n_ctx"]) == ("tiny", 2, 512)
        assert set(document["curves"]) == {"users", "waiting", "tokens_per_s", "drafted_rows"}


# in a browser


def opened(server: Served, page: Tab, path: str = "/") -> Any:
    page.page.goto(f"http://127.0.0.1:{server.port}{path}")
    return page.page


def until(page: Any, expression: str) -> None:
    """Wait for it; the page's policy forbids Playwright's own way."""
    started = perf_counter()
    while not page.evaluate(expression):
        assert perf_counter() - started < 20, expression
        page.wait_for_timeout(50)


def send(page: Any, text: str) -> None:
    page.fill("#text", text)
    page.click("#send")


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with fake_server(pass_s=0.01) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_a_person_talks_and_watches(server: Served, size: dict[str, int], scheme: Any) -> None:
    server.engine.eog = frozenset()
    with tab(viewport=size, color_scheme=scheme, has_touch=size is PHONE) as made:
        page = opened(server, made)
        until(page, "document.title === 'tiny'")
        send(page, "Hello <b>you</b>")
        page.wait_for_selector("#stop", state="visible")
        until(page, "document.querySelector('.answer .said')?.textContent.length > 4")
        page.click("#stop")
        page.wait_for_selector("#send", state="visible")
        assert page.inner_text(".user") == "Hello <b>you</b>", "text is text"
        assert "stopped" in page.inner_text(".answer")
        server.wait_until_idle()
        until(page, "[...document.querySelectorAll('figcaption b')].length === 4")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        box = page.locator("#send").bounding_box()
        assert box["y"] + box["height"] <= size["height"], "the button is in sight"
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        is_dark = sum(map(int, re.findall(r"\d+", paper)[:3])) < 3 * 128
        assert is_dark == (scheme == "dark")
    here = f"http://127.0.0.1:{server.port}/"
    assert all(url.startswith((here, "data:")) for url in made.requests)
    assert made.console == []


@pytest.mark.slow
def test_curves_show_who_was_here(server: Served) -> None:
    with tab(viewport=DESK) as made:
        page = opened(server, made)
        for _ in range(2):
            server.chat(max_tokens=60, temperature=0)
        until(page, "[...document.querySelectorAll('figure')].some(f => f.title !== 'at most 0')")
        titles = page.eval_on_selector_all("figure", "all => all.map(f => f.title)")
        assert titles[0] == "at most 1"
        assert titles[1] != "at most 0"


@pytest.mark.slow
def test_the_page_asks_for_the_key_and_goes_on() -> None:
    with fake_server(keys=("secret",)) as server, tab(viewport=PHONE) as made:
        page = opened(server, made)
        page.wait_for_selector("#key", state="visible")
        send(page, "Hello")
        page.wait_for_selector(".problem")
        assert "key" in page.inner_text(".problem")
        assert page.input_value("#text") == "Hello", "nothing is lost"
        page.fill("#key", "secret")
        page.click("#keys button")
        page.wait_for_selector("#key", state="hidden")
        send(page, "Hello again")
        until(page, "document.querySelectorAll('.answer .said').length > 0")
        server.wait_until_idle()


@pytest.mark.slow
def test_a_server_that_dies_in_mid_answer_loses_nothing_said() -> None:
    with tab(viewport=PHONE) as made:
        with fake_server(pass_s=0.02) as server:
            page = opened(server, made)
            send(page, "Hello")
            until(page, "document.querySelector('.answer .said')?.textContent.length>3")
            said = page.inner_text(".answer .said")
            threading.Thread(target=server.running.stop, args=(0.0,)).start()
            page.wait_for_selector(".problem", timeout=15_000)
        assert page.inner_text(".answer .said").startswith(said)
        until(page, "document.querySelector('#facts').textContent.includes('does not answer')")
        send(page, "Are you there?")
        until(page, "document.querySelectorAll('.problem').length === 2")
        assert page.input_value("#text") == "Are you there?"
