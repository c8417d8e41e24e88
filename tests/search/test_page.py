"""The page in a real browser."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import av
import numpy as np
import pytest
import uvicorn

import alpro
from alpro.commands.main import main
from alpro.search.answers import announce
from alpro.search.index import Index
from alpro.search.searcher import Searcher
from alpro.search.server.app import create_app
from alpro.search.updating import update_index
from tests.datasets.clips import write_image
from tests.search.fakes import fake_model, settings, write_levels

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NAME = "<img src=x onerror=window.broken=1>.mp4"
WAIT = 15_000  # milliseconds


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve an index at an address."""
    listening = socket.create_server(("127.0.0.1", 0))
    with Index(folder) as index:
        app = create_app(Searcher(index, fake_model))
        running = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()
            app.state.media.close()


def write_hevc_with_sound(path: Path) -> None:
    """Write three seconds as phones do; Chromium has no HEVC, and plays the silence."""
    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx265", rate=8, options={"x265-params": "log-level=none"})
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("aac", rate=48_000)
        assert isinstance(sound, av.AudioStream)
        for number in range(140):  # of 1,024 samples
            silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            silence.sample_rate, silence.pts = 48_000, 1024 * number
            container.mux(sound.encode(silence))
        for _ in range(24):
            grey = np.full((64, 64, 3), 180, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        for stream in (video, sound):
            container.mux(stream.encode())


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of two videos; a browser plays one of them only as a preview."""
    root = tmp_path_factory.mktemp("page")
    write_levels(root / "videos" / NAME, [3, 3, 3, 3, 9, 9, 9, 9, 3, 3, 9, 9])
    write_levels(root / "videos/old.avi", [15, 15, 15])
    update_index(root / "index", [root / "videos"], fake_model(), settings())
    with served(root / "index") as url:
        announce(root / "index", url=url, token=None)
        os.environ["ALPRO_TEST_INDEX"] = str(root / "index")
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = f"none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("ALPRO_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(reason)
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page whose errors fail the test."""
    context = browser.new_context(base_url=address, viewport={"width": 1000, "height": 800})
    opened, problems = context.new_page(), []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.set_default_timeout(WAIT)
    yield opened
    assert problems == []
    context.close()


def find(page: Page, text: str) -> Locator:
    page.get_by_role("searchbox").fill(text)
    page.keyboard.press("Enter")
    moment = page.locator(".moment").first
    moment.wait_for()
    return moment


def time_of(page: Page) -> float:
    page.wait_for_function("() => document.querySelector('dialog video').readyState >= 2")
    return float(page.evaluate("document.querySelector('dialog video').currentTime"))


def test_a_search_finds_a_moment_and_the_player_jumps_to_it(page: Page) -> None:
    page.goto("/")
    page.get_by_text("2 videos, 0:07 of video.").wait_for()
    assert not page.get_by_role("button", name="More", exact=True).is_visible()
    moment = find(page, "level 9")
    assert "0:02 – 0:04" in moment.inner_text()
    page.wait_for_function("() => document.querySelector('.strip img').naturalWidth > 0")
    moment.click()
    assert 2 <= time_of(page) <= 4
    # The other moment of the file is marked on the time line, and can be jumped to.
    page.get_by_role("button", name="moment at 0:05").click()
    page.wait_for_function("() => document.querySelector('dialog video').currentTime >= 5")
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()


def test_a_link_leads_back_to_a_moment(page: Page) -> None:
    page.goto("/")
    find(page, "level 9").click()
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    assert 2 <= time_of(page) <= 4
    assert page.get_by_role("searchbox").input_value() == "level 9"
    # Also where the moment is not among those that are found.
    page.goto(link.replace("q=level+9&", ""))
    assert 2 <= time_of(page) <= 4


def test_names_are_no_html(page: Page) -> None:
    page.goto("/")
    find(page, "level 9").click()
    assert page.locator("h2", has_text=NAME).count() == 2
    assert page.evaluate("window.broken") is None
    assert page.locator("h2 img").count() == 0


def test_what_a_browser_cannot_play_is_shown_as_a_preview(page: Page) -> None:
    page.goto("/?q=level+15&min_score=0.9")
    page.locator(".moment").first.click()
    page.get_by_text("this is a preview of the moment").wait_for()
    assert time_of(page) >= 0


def test_a_file_of_which_a_browser_plays_the_sound_alone_is_shown_as_a_preview(
    browser: Browser, tmp_path: Path
) -> None:
    write_hevc_with_sound(tmp_path / "videos/phone.mp4")
    update_index(tmp_path / "index", [tmp_path / "videos"], fake_model(), settings())
    with served(tmp_path / "index") as url:
        page = browser.new_page(base_url=url)
        page.set_default_timeout(WAIT)
        page.goto("/?id=1&t=1,2")
        page.get_by_text("this is a preview of the moment").wait_for()
        page.wait_for_function("() => document.querySelector('dialog video').videoWidth > 0")
        page.close()


def test_dates_of_a_link_stay_as_they_are(page: Page) -> None:
    page.goto("/?q=level+9")
    page.locator(".moment").first.wait_for()
    page.locator("summary").click()
    page.get_by_label("Changed since").fill("2020-01-02")
    page.get_by_label("until").fill("2035-03-04")
    find(page, "level 9")
    page.reload()
    page.locator(".moment").first.wait_for()
    dates = [page.locator(f"[name={name}]").input_value() for name in ("since", "until")]
    assert dates == ["2020-01-02", "2035-03-04"]


def test_more_like_this_and_a_dropped_picture(page: Page, tmp_path: Path) -> None:
    page.goto("/")
    find(page, "level 9").click()
    page.get_by_role("button", name="More like this").click()
    page.get_by_text("like <img").wait_for()
    page.locator(".moment").first.wait_for()
    assert "like=" in page.url
    picture = write_image(tmp_path / "p.jpg", 15)
    page.locator("#file").set_input_files(picture)
    page.get_by_text("like p.jpg").wait_for()
    page.locator("section h2", has_text="old.avi").first.wait_for()


def test_filters_and_errors_are_told(page: Page) -> None:
    page.goto("/")
    find(page, "level 9")
    page.get_by_text("Filters").click()
    page.get_by_label("Score at least").fill("0.99999")
    page.keyboard.press("Tab")
    page.get_by_text("No moment matches these filters.").wait_for()
    page.get_by_label("Score at least").fill("")
    page.route("**/api/search*", lambda route: route.fulfill(status=500, body="no JSON"))
    page.keyboard.press("Enter")
    page.get_by_text("the server answers 500").wait_for()


def test_keys_go_through_the_moments(page: Page) -> None:
    page.goto("/")
    find(page, "level 9")
    page.locator("summary").focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.className") == "moment"
    page.keyboard.press("Enter")
    page.locator("dialog").wait_for()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('dialog video').currentTime >= 5")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(
    browser: Browser, address: str, scheme: Literal["light", "dark"]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context(
        base_url=address, viewport={"width": 360, "height": 740}, color_scheme=scheme
    )
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.goto("/")
    moment = find(page, "level 9")
    page.locator("summary").click()
    for has_player in (False, True):
        if has_player:
            moment.click()
            time_of(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        problems = axe.run(page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in problems] == []
    context.close()


def test_the_command_asks_the_server(
    address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert address
    monkeypatch.setattr(alpro, "load", None, raising=False)  # it is not loaded
    index = os.environ["ALPRO_TEST_INDEX"]
    assert main(["search", "level 9", "--index", index, "--top", "1"]) == 0
    assert "0:02 - 0:04" in capsys.readouterr().out
    assert main(["search", " ", "--index", index]) == 2
    assert "nothing to search for" in capsys.readouterr().err


def test_the_command_does_not_ask_the_server_of_another_index(
    address: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A server that was killed has left its announcement, and another has its port.
    write_levels(tmp_path / "videos/own.mp4", [9, 9, 3, 3])
    update_index(tmp_path / "index", [tmp_path / "videos"], fake_model(), settings())
    announce(tmp_path / "index", url=address, token=None)
    monkeypatch.setattr(alpro, "load", lambda *_, **__: fake_model(), raising=False)
    assert main(["search", "level 9", "--index", str(tmp_path / "index"), "--top", "1"]) == 0
    assert "own.mp4\n  1.000  0:00 - 0:01\n3 windows" in capsys.readouterr().out
