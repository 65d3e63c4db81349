"""The page of a run in a real browser: Chromium without a window, on a screen of a phone's size and on a wide one."""

import html
import io
import json
import pathlib
import re
import shlex
import shutil
import types

import keras
import numpy as np
import pytest
from PIL import Image

from keras_ssl import report
from keras_ssl.cli import main, pretrain
from keras_ssl.cli.flags import default_backbone
from keras_ssl.cli.run_folder import RunFolder
from keras_ssl.cli.run_info import run_info
from keras_ssl.data import Data, Split, load
from keras_ssl.data.split import hold_out
from keras_ssl.evaluate import plots
from keras_ssl.report.html import NARROW, WIDE, HtmlPage

pytestmark = pytest.mark.slow

SCREENS = {"phone": (390, 844), "wide": (1440, 900)}
# Pictures are drawn with 160 pixels an inch, and text of 9 points in them is 12 pixels of a screen at 96 an inch.
LOOK = """() => {
  const own = node => [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim());
  const images = [...document.images];  // those that are hidden from a reader aloud are the words in another one
  const seen = images.filter(image => !image.hasAttribute("aria-hidden"));
  const page = document.documentElement;
  return {
    scroll: page.scrollWidth - page.clientWidth,
    title: document.title,
    lang: page.lang,
    broken: images.filter(image => !image.naturalWidth).map(image => image.alt),
    silent: seen.filter(image => !image.alt.trim()).length,
    shrunk: images.filter(image => image.naturalWidth && image.clientWidth < 0.99 * image.naturalWidth * 96 / 160)
      .map(image => image.alt),
    small: [...document.body.querySelectorAll("*")]
      .filter(node => own(node) && parseFloat(getComputedStyle(node).fontSize) < 12).map(node => node.textContent),
    images: seen.length,
    onScreen: [...document.querySelectorAll("h1, table")].slice(0, 2)
      .filter(node => node.getBoundingClientRect().bottom < innerHeight).length,
  };
}"""


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("This test needs the package playwright (no browser of its own): pip install 'keras-ssl[browser]'.")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("This test needs Chromium: apt-get install -y chromium.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], headless=True)
        yield browser
        browser.close()


def look(browser, path, screen, scheme="light"):
    """`(complaints, what the page is like, its screenshot)`: all that a reader on such a screen would complain of."""
    width, height = SCREENS[screen]
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    said, asked = [], []
    tab.on("console", lambda message: said.append(f"console: {message.type}: {message.text}"))
    tab.on("pageerror", lambda error: said.append(f"error: {error}"))
    tab.on("request", lambda request: asked.append(request.url))
    address = pathlib.Path(path).resolve().as_uri()
    tab.goto(address, wait_until="load")
    found = tab.evaluate(LOOK)
    picture = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("L")
    tab.close()

    complaints = [words for words in said if words.startswith(("console: error", "console: warning", "error"))]
    complaints += [f"request: {url}" for url in asked if url != address and not url.startswith("data:")]
    if found["scroll"] > 0:
        complaints.append(f"scrolls sideways by {found['scroll']} pixels")
    complaints += [f"no {name}" for name in ("title", "lang") if not found[name]]
    complaints += [f"does not load: {alt}" for alt in found["broken"]]
    complaints += ["a picture without alt"] * found["silent"]
    complaints += [f"text in a picture below 12 pixels: {alt}" for alt in found["shrunk"]]
    complaints += [f"text below 12 pixels: {words}" for words in found["small"]]
    return complaints, found, picture


@pytest.fixture(scope="module")
def photos(sample, tmp_path_factory):
    """A folder of 120 gray pictures: three classes in sub-folders, one of them with a long name."""
    folder = tmp_path_factory.mktemp("photos")
    for label, name in ((1, "trousers"), (8, "bags, purses & rucksacks for $5 to $50"), (9, "boots")):
        (folder / name).mkdir()
        for number, row in enumerate(np.flatnonzero(sample.train.labels == label)[:40]):
            Image.fromarray(sample.train.images[row, :, :, 0]).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def page_of(photos, tmp_path_factory):
    """The page of a run of the command, by method."""
    pages = {}

    def make(method, epochs):
        if method not in pages:
            folder = tmp_path_factory.mktemp("runs") / method
            flags = [f"--data={photos}", f"--method={method}", f"--epochs={epochs}", f"--output={folder}"]
            assert main(["pretrain", *flags, "--image_size=28", "--batch_size=32"]) == 0
            history = json.loads((folder / "history.json").read_text())
            assert len(history["loss"]) == epochs
            pages[method] = folder / "report.html"
        return pages[method]

    return make


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("method", ["simclr", "jigsaw"])
def test_the_page_of_a_run_reads_well(browser, page_of, method, screen, scheme):
    path = page_of(method, epochs=3)
    complaints, found, picture = look(browser, path, screen, scheme)
    assert complaints == []
    # Nine curves, two pictures of views, the map, the neighbors, the similarities, and either the cross-correlation
    # or the task; three checkpoints say nothing of the loss as an indicator.
    assert found["images"] == 15
    assert (np.median(np.asarray(picture)) < 40) == (scheme == "dark")
    assert found["onScreen"] >= (2 if screen == "wide" else 1), "it begins with what was trained and what it is worth"
    assert picture.width == SCREENS[screen][0]
    # Something is to be seen on every screenful but the last, which may be short.
    gray, height = np.asarray(picture, "float32"), SCREENS[screen][1]
    screenfuls = [gray[top : top + height] for top in range(0, len(gray) - height, height)]
    assert min(part.std() for part in screenfuls) > 10
    assert path.stat().st_size <= 1.5e6


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_in_a_picture_stand_out_from_the_page(browser, tmp_path, scheme):
    page = HtmlPage("A page")
    page.panels({"loss": plots.curves({"loss": [3.0, 2.0, 1.0]})}, "a curve with its words")
    page.save(tmp_path / "page.html")
    tab = browser.new_page(color_scheme=scheme)
    tab.goto((tmp_path / "page.html").as_uri())
    picture = np.asarray(Image.open(io.BytesIO(tab.locator("figure .layers").first.screenshot())).convert("L"), "int32")
    tab.close()
    background, least, most = np.median(picture), picture.min(), picture.max()
    assert (background < 40) if scheme == "dark" else (background > 240)
    assert max(background - least, most - background) > 180, "the words are as far from it as may be"


def test_on_a_phone_the_first_column_of_a_table_stays(browser, page_of):
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    tab.goto(page_of("simclr", epochs=3).resolve().as_uri())
    lefts = """table => {
      const box = table.closest(".scroll"), cells = table.rows[1].cells;
      const left = () => [cells[0], cells[1]].map(cell => cell.getBoundingClientRect().left);
      const before = left();
      box.scrollLeft = 100;
      return [before, left(), box.scrollLeft];
    }"""
    before, after, scrolled = tab.locator("table").first.evaluate(lefts)
    tab.close()
    assert scrolled > 50, "it is wider than the phone"
    assert after[0] == pytest.approx(before[0], abs=1)
    assert after[1] == pytest.approx(before[1] - scrolled, abs=1)


def test_a_run_is_repeated_by_the_command_on_its_page(page_of):
    """The command on the page, given to the parser, makes the settings that the run was started with."""
    path = page_of("simclr", epochs=3)
    command = re.search(r"<pre[^>]*><code>(.*?)</code></pre>", path.read_text(encoding="utf-8"))[1]
    program, name, *arguments = shlex.split(html.unescape(command))
    assert (program, name) == ("keras-ssl", "pretrain")
    flags = pretrain.FLAGS
    flags.unparse_flags()
    flags(["keras-ssl pretrain", *arguments])
    flags.backbone = flags.backbone or default_backbone(["SimCLR"])  # as check does
    settings = json.loads((path.parent / "settings.json").read_text())
    own = [flag.name for flag in flags.get_flags_for_module(pretrain.__name__) if flag.name in settings]
    assert {name: flags[name].value for name in own if name != "output"} == {
        name: settings[name] for name in own if name != "output"
    }
    assert len(own) > 10


def words(path):
    return re.sub(r'(src|srcset)="data:[^"]*"', "", path.read_text(encoding="utf-8"))


def test_a_page_made_again_from_the_files_of_its_run_says_the_same(page_of, photos, tmp_path):
    path = page_of("simclr", epochs=3)
    model = keras.models.load_model(path.parent / "model.keras")
    history, table, settings = (
        json.loads((path.parent / f"{name}.json").read_text()) for name in ("history", "table", "settings")
    )
    settings = types.SimpleNamespace(**settings)
    data, held_out = hold_out(load(settings.data, image_size=settings.image_size), settings.seed)
    options = {"run": run_info(RunFolder(path.parent)), "held_out": held_out}
    report.write(tmp_path / "again.html", model, data, history=history, table=table, **options)
    assert words(tmp_path / "again.html") == words(path)
    again, first = (len(file.read_bytes()) for file in (tmp_path / "again.html", path))
    assert again == pytest.approx(first, rel=1e-2)
    # A run that was cut off before its table, of images without labels.
    train, test = (Split(split.images, None) for split in (data.train, data.test))
    report.write(tmp_path / "little.html", model, Data(train, test), history={"loss": [2.0]}, **options)
    little = words(tmp_path / "little.html")
    for heading in ("What the features are worth", "Colors are labels", "Probes learn from"):
        assert heading in words(path)
        assert heading not in little


BREAKS = {
    "an element that is too wide": ('<div style="width: 2000px">wide</div>', "scrolls sideways"),
    "a picture that does not load": ('<img alt="a broken one" src="data:image/png;base64,AAAA">', "does not load"),
    "a picture without a text": ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', "without alt"),
    "small print": ('<p style="font-size: 8px">small print</p>', "below 12 pixels: small print"),
    "a script that fails": ("<script>undefined.name</script>", "error"),
    "a script that warns": ("<script>console.warn('mind')</script>", "console: warning: mind"),
    "something from elsewhere": (
        '<img alt="far" src="http://127.0.0.1:9/far.png">',
        "request: http://127.0.0.1:9/far.png",
    ),
}


@pytest.fixture(scope="module")
def small_page(tmp_path_factory):
    page = HtmlPage("A page", "that has what a report has")
    page.table(["", "a"], [["b", "1"]])
    history = {"loss": [3.0, 2.0, 1.0], "knn_accuracy": [0.1, 0.2, 0.3]}
    wide, narrow = (plots.loss_correlation(history, "loss", "knn_accuracy", width=width) for width in (WIDE, NARROW))
    page.figure(wide, "both", narrow)
    page.figure(wide, "the wide one, scrolled in its frame")
    return page.html()


@pytest.mark.parametrize("name", BREAKS)
def test_what_breaks_a_page_is_seen(browser, small_page, tmp_path, name):
    (tmp_path / "good.html").write_text(small_page, encoding="utf-8")
    assert look(browser, tmp_path / "good.html", "phone")[0] == []
    element, words = BREAKS[name]
    (tmp_path / "bad.html").write_text(small_page.replace("</body>", f"{element}</body>"), encoding="utf-8")
    assert any(words in complaint for complaint in look(browser, tmp_path / "bad.html", "phone")[0])


def test_a_picture_that_is_shrunk_below_legibility_is_seen(browser, small_page, tmp_path):
    """Without its narrow twin the wide picture would be fitted to the phone's width."""
    shrunk = small_page.replace("(max-width: 44rem)", "(max-width: 1px)", 2)
    (tmp_path / "bad.html").write_text(shrunk, encoding="utf-8")
    assert "text in a picture below 12 pixels: both" in look(browser, tmp_path / "bad.html", "phone")[0]
