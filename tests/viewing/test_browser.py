"""The page in a browser: what it draws, how it comes back, what a slow one costs, what it records.

For these `pip install -e '.[browser]'`, and Chromium (Debian: `chromium-headless-shell`).
"""

import contextlib
import gzip
import shutil
import threading
import time

import nibabel as nib
import numpy as np
import pytest
from seen import SPACING, shown

from ica_unet_jax.data.geometry import place
from ica_unet_jax.reporting.figures import PALETTE
from ica_unet_jax.streaming.segmenter import Result
from ica_unet_jax.streaming.tally import Tally
from ica_unet_jax.viewing.page import Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium"),
    # playwright leaves its loop to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SHAPE = (4, 40, 30)
RATE = 22


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as tool:
        opened = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def tab(browser):
    opened, faults = browser.new_page(viewport={"width": 1280, "height": 720}), []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    yield opened
    opened.close()
    assert not faults


def square(number, shape=SHAPE):
    """A frame whose slice k, and whose structure in each slice, lie where nobody can mistake them."""
    frame, labels = np.zeros(shape), np.zeros(shape, np.uint8)
    frame[:, :4] = 1000  # white above
    labels[:, 20:30, 10:20] = 1 + (np.arange(shape[0]) + number)[:, None, None] % 3
    volumes = {"RV": 100.0 + number % 7, "MYO": 90.0, "LV": 150.0 - number % 9}
    now = time.perf_counter()
    return frame, Result(number, labels, volumes, now, now + 0.02, 12.0, place(shape, SPACING, (4, 32, 32), 1.5))


class Streaming:
    """A stream of squares, `RATE` a second, that measures its hand-over."""

    def __init__(self, feed, shape=SHAPE):
        self.taken, self.number, self.made = [], 0, [square(n, shape) for n in range(1, 4)]
        self._feed, self._tally, self._stopped = feed, Tally(50.0), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stopped.wait(1 / RATE):
            self.number += 1
            frame, result = self.made[(self.number - 1) % 3]
            now = time.perf_counter()
            again = Result(self.number, result.labels, result.volumes_ml, now, now + 0.02, 12.0, result.placement)
            began = time.perf_counter()
            shown(self._feed, self._tally, (frame, again))
            self.taken.append(time.perf_counter() - began)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stopped.set()
        self._thread.join()


def colour(tab, x, y):
    """RGB of the canvas, at parts of its width and height."""
    get = "([x, y]) => { const c = document.getElementById('images'); return [...c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data] }"
    return np.array(tab.evaluate(get, [x, y])[:3])


def state(tab, text):
    tab.wait_for_function("text => document.getElementById('state').textContent.includes(text)", arg=text, timeout=20_000)


def number(tab):
    return int(tab.locator("#frame").text_content().split()[1])


def rgb(name):
    return np.array([int(PALETTE[name][at : at + 2], 16) for at in (1, 3, 5)])


def test_each_slice_has_its_masks_in_their_colours(tab):
    with Page() as page:
        shown(page.feed, Tally(50.0), square(3))  # slice k has the structure 1 + k % 3
        tab.goto(page.address)
        state(tab, "live")
        tab.locator("#opacity").fill("100")
        tiles = tab.evaluate("document.getElementById('images').width / document.getElementById('images').height")
        assert tiles == pytest.approx(4 * 30 * SPACING[2] / (40 * SPACING[1]), rel=0.05)  # four in a row
        for k, name in enumerate(("RV", "MYO", "LV", "RV")):
            x = (k + 0.5) / 4
            assert np.abs(colour(tab, x, 25 / 40) - rgb(name)).max() <= 2
            assert np.abs(colour(tab, x, 2 / 40) - 255).max() <= 2 and np.abs(colour(tab, x, 10 / 40)).max() <= 2
        tab.locator("#opacity").fill("0")
        assert np.abs(colour(tab, 0.125, 25 / 40)).max() <= 2
        tab.locator("#opacity").fill("50")
        assert np.abs(colour(tab, 0.125, 25 / 40) - rgb("RV") / 2).max() <= 2
        tab.keyboard.press("m")
        assert tab.locator("#which").text_content() == "3 of 4" and np.abs(colour(tab, 0.5, 25 / 40) - rgb("LV") / 2).max() <= 2
        tab.evaluate("document.activeElement.blur()")
        tab.keyboard.press("ArrowLeft")
        assert np.abs(colour(tab, 0.5, 25 / 40) - rgb("MYO") / 2).max() <= 2
        tab.locator("#zoom").check()  # the square and a fifth round it
        assert np.abs(colour(tab, 0.25, 0.25) - rgb("MYO") / 2).max() <= 2
        assert "152" not in tab.locator("#volumes").text_content() and "147" in tab.locator("#volumes").text_content()


def test_frames_arrive_and_a_pause_holds_them(tab):
    with Page() as page, Streaming(page.feed) as stream:
        tab.goto(page.address)
        state(tab, "live")
        first = number(tab)
        tab.wait_for_timeout(1000)
        assert number(tab) > first + RATE // 2
        tab.keyboard.press(" ")
        state(tab, "paused")
        tab.wait_for_timeout(300)
        held = number(tab)
        tab.wait_for_timeout(1000)
        assert number(tab) == held < stream.number - RATE // 2
        tab.locator("#pause").click()
        state(tab, "live")
        tab.wait_for_timeout(300)
        assert number(tab) > held + RATE // 2


def test_it_comes_back(tab):
    with Page() as page:
        shown(page.feed, Tally(50.0), square(1))
        tab.goto(page.address)
        state(tab, "live")
    state(tab, "no connection")
    with Page(port=page.port) as again:
        shown(again.feed, Tally(50.0), *map(square, range(1, 10)))
        state(tab, "live")
        assert number(tab) == 9 and "9 of 9" in tab.locator("#counts").text_content()


def test_a_wrong_token_is_told(tab):
    with Page(token="secret") as page:
        shown(page.feed, Tally(50.0), square(1))
        tab.goto(page.address.replace("secret", "secrets"))
        state(tab, "wrong token")
        tab.goto(page.address)
        state(tab, "live")


def test_a_slow_browser_skips_frames_and_costs_the_stream_nothing(browser):
    """Each draws in its own time; one of them needs 200 ms for it. Frames of 2 MB."""
    with contextlib.ExitStack() as stack:
        page = stack.enter_context(Page())
        tabs = [browser.new_page() for _ in range(2)]
        tabs[1].add_init_script("const draw = window.requestAnimationFrame.bind(window);"
                                "window.requestAnimationFrame = (f) => setTimeout(() => draw(f), 200)")  # fmt: skip
        stream = stack.enter_context(Streaming(page.feed, (10, 256, 216)))
        for tab in tabs:
            tab.goto(page.address)
            state(tab, "live")
        tabs[0].wait_for_timeout(5000)
        drawn = [float(tab.locator("#counts").inner_text().split("drawn here")[1].split()[0]) for tab in tabs]
        behind = [stream.number - number(tab) for tab in tabs]
        for tab in tabs:
            tab.close()
    print(f"drawn a second {drawn}, frames behind {behind}, hand-over ms {1e3 * np.median(stream.taken):.3f}, at most {1e3 * max(stream.taken):.2f}")
    assert drawn[1] < 6 < drawn[0] and max(behind) <= 2 * RATE
    assert np.median(stream.taken) < 2e-3


def test_what_was_recorded_is_what_was_seen(tab, tmp_path):
    with Page() as page, Streaming(page.feed) as stream:
        tab.goto(page.address)
        state(tab, "live")
        tab.keyboard.press("r")
        tab.wait_for_timeout(1500)
        tab.keyboard.press("r")
        tab.wait_for_selector("#files a")
        names = tab.locator("#files a").all_text_contents()
        assert {"view_images.nii.gz", "view_masks.nii.gz"} <= set(names)
        for name in names:
            with tab.expect_download() as download:
                tab.get_by_role("link", name=name).click()
            download.value.save_as(tmp_path / name)
    images, masks = (nib.load(tmp_path / f"view_{name}.nii.gz") for name in ("images", "masks"))
    assert masks.shape[:3] == SHAPE[::-1] and masks.shape[3] >= 10 and images.shape == masks.shape
    assert np.allclose(masks.header.get_zooms()[:3], SPACING[::-1]) and 0.5 / RATE < masks.header.get_zooms()[3] < 4 / RATE
    known = [result.labels for _, result in stream.made]
    for t in range(masks.shape[3]):
        assert any((np.asarray(masks.dataobj[..., t]).T == labels).all() for labels in known)
    assert gzip.decompress((tmp_path / "view_images.nii.gz").read_bytes())[344:348] == b"n+1\0" and np.asarray(images.dataobj).max() == 255
    assert any(name.startswith("view.") for name in names) and all((tmp_path / name).stat().st_size > 1000 for name in names if name.startswith("view."))
