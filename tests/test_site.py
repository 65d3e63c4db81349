"""The site, built and opened in Chromium, on a phone's screen and on a wide one: nothing is fetched from elsewhere."""

import functools
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.one_backend]

ROOT = pathlib.Path(__file__).parent.parent
SCREENS = {"phone": (390, 844), "wide": (1280, 800)}
LOOK = """() => ({
  scroll: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  broken: [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src),
  silent: [...document.images].filter(image => !image.alt.trim()).map(image => image.src),
  headings: document.querySelectorAll("h1").length,
  squeezed: [...document.querySelectorAll(".md-content td")]
    .filter(cell => innerWidth < 500 && cell.textContent.trim().length > 60 && cell.clientWidth < 120)
    .map(cell => cell.textContent),
})"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(site):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium is not None, "This test needs Chromium: apt-get install -y chromium."
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], headless=True)
        yield browser
        browser.close()


def open_tab(browser, screen, address):
    """`(tab, complaints)`: what the console says and what is asked of other hosts is added to the list."""
    width, height = SCREENS[screen]
    tab, complaints = browser.new_page(viewport={"width": width, "height": height}), []
    tab.on(
        "console",
        lambda message: message.type in ("error", "warning") and complaints.append(f"{message.type}: {message.text}"),
    )
    tab.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    tab.on("response", lambda answer: answer.status >= 400 and complaints.append(f"{answer.status}: {answer.url}"))
    tab.on(
        "request",
        lambda request: (
            request.url.startswith((address, "data:", "blob:")) or complaints.append(f"request: {request.url}")
        ),
    )
    return tab, complaints


def look(tab, complaints, url):
    del complaints[:]
    tab.goto(url, wait_until="load")
    found = tab.evaluate(LOOK)
    said = list(complaints)
    if found["scroll"] > 0:
        said.append(f"scrolls sideways by {found['scroll']} pixels")
    said += [f"does not load: {source}" for source in found["broken"]]
    said += [f"no alt: {source}" for source in found["silent"]]
    said += [f"squeezed: {text}" for text in found["squeezed"]]
    if found["headings"] != 1:
        said.append(f"{found['headings']} headings of the first order")
    return said


def pages_of(site):
    return sorted(path.relative_to(site).as_posix() for path in site.glob("**/*.html") if path.name != "404.html")


@pytest.mark.parametrize("screen", SCREENS)
def test_pages_fit_the_screen_and_ask_nobody_else(browser, site, address, screen):
    tab, complaints = open_tab(browser, screen, address)
    pages = pages_of(site)
    assert len(pages) >= 30
    found = {page: look(tab, complaints, address + page) for page in pages}
    tab.close()
    assert {page: said for page, said in found.items() if said} == {}


def test_search_finds_a_page(browser, site, address):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert any("barlow" in entry["title"].lower() for entry in index["docs"])
    tab, complaints = open_tab(browser, "wide", address)
    tab.goto(address, wait_until="load")
    tab.click("input.md-search__input")  # which loads the index
    tab.keyboard.type("collapse", delay=20)  # the page listens to keys
    tab.wait_for_selector(".md-search-result__link", timeout=20_000)
    tab.close()
    assert complaints == []


def test_code_is_colored_and_can_be_copied_and_dark_follows_the_system(browser, address):
    tab, complaints = open_tab(browser, "wide", address)
    tab.emulate_media(color_scheme="dark")
    tab.goto(address + "getting_started.html", wait_until="load")
    tab.wait_for_selector("button[data-clipboard-target], .md-code__button", state="attached", timeout=20_000)
    assert tab.evaluate("document.body.getAttribute('data-md-color-scheme')") == "slate"
    colors = """() => new Set([...document.querySelectorAll(".highlight span[class]")]
        .map(node => getComputedStyle(node).color)).size"""
    assert tab.evaluate(colors) >= 4
    tab.emulate_media(color_scheme="light")
    tab.reload(wait_until="load")
    assert tab.evaluate("document.body.getAttribute('data-md-color-scheme')") == "default"
    tab.close()
    assert complaints == []


BREAKS = {
    "a wide element": ('<div style="width: 2000px">wide</div>', "scrolls sideways"),
    "a picture of another host": ('<img alt="far" src="http://127.0.0.1:9/far.png">', "request: http://127.0.0.1:9"),
    "a picture that is not there": ('<img alt="none" src="images/none.png">', "does not load"),
    "a script that fails": ("<script>undefined.name</script>", "error"),
    "a second heading": ("<h1>Again</h1>", "2 headings"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_a_page_is_seen(browser, site, address, name):
    element, words = BREAKS[name]
    text = (site / "index.html").read_text(encoding="utf-8")
    (site / "broken.html").write_text(text.replace("</article>", f"{element}</article>"), encoding="utf-8")
    tab, complaints = open_tab(browser, "phone", address)
    said = look(tab, complaints, address + "broken.html")
    tab.close()
    (site / "broken.html").unlink()
    assert any(words in line for line in said)
