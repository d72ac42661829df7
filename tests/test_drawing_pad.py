"""The drawing pad in a real browser: JupyterLab, headless Chromium, digits drawn by mouse."""

import math
import re
import shutil

import nbformat
import pytest
from browser import PATIENCE, chromium, jupyterlab, open_notebook, run_all, screenshot, sync_api
from conftest import NOTEBOOKS, data_file

# Only the way to the pad is run: these cells are slow, or need a slow one, and the pad needs none.
SLOW = (
    *("# @title Plot: accuracy", "# @title Print: McNemar", "enlarged = ", "n_drawings = "),
    "with tempfile",
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory, left_file):
    """Start JupyterLab on a copy of the notebook that ends with the pad; return its address."""
    home = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(next(p for p in NOTEBOOKS if p.name.startswith("07")), as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code" and not c.source.startswith(SLOW)]
    last = next(i for i, c in enumerate(code) if c.source.endswith("show_pad()"))
    notebook.cells = code[: last + 1]
    for cell in notebook.cells:
        cell.outputs, cell.execution_count = [], None
    (home / "notebooks").mkdir()
    (home / "data").mkdir()
    nbformat.write(notebook, home / "notebooks" / "pad.ipynb")
    shutil.copy(left_file("model.keras"), home / "data")
    environment = {}
    if data_file().name == "mnist.npz":  # the data folder decides what the digits are called
        (home / "data" / "mnist.npz").symlink_to(data_file())
    else:
        environment["DIGITS_DATA"] = str(data_file())
    with jupyterlab(home, home, environment=environment) as (_, address):
        yield address


@pytest.fixture(scope="module")
def page(lab):
    """Open the notebook in Chromium, run all its cells, return the page when the pad is there."""
    with chromium() as browser:
        page = open_notebook(browser, lab, "notebooks/pad.ipynb")
        run_all(page)
        sync_api.expect(page.locator(".pad canvas").first).to_be_visible(timeout=PATIENCE)
        yield page


def draw(page, points):
    """Draw one stroke on the pad with the mouse. points: (x, y) from 0 to 280."""
    paper = page.locator(".pad canvas").first
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    where = [
        (box["x"] + x * box["width"] / 280, box["y"] + y * box["height"] / 280) for x, y in points
    ]
    page.mouse.move(*where[0])
    page.mouse.down()
    for x, y in where[1:]:
        page.mouse.move(x, y, steps=3)
    page.mouse.up()


def says(page, what):
    """Wait until the sentence on the pad matches; return it."""
    sentence = page.locator(".pad p")
    sync_api.expect(sentence).to_have_text(re.compile(what), timeout=PATIENCE)
    return sentence.inner_text()


def test_pad_reads_what_is_drawn(page):
    says(page, "Draw a digit")
    ring = [(140 + 50 * math.sin(t / 5), 140 - 80 * math.cos(t / 5)) for t in range(32)]
    draw(page, ring)
    first = says(page, r"I read a \d")
    assert page.locator(".pad .bars i").count() == 10
    ink = page.evaluate(
        "() => Array.from(document.querySelectorAll('.pad canvas')[1].getContext('2d')"
        ".getImageData(0, 0, 28, 28).data).filter((v, i) => i % 4 == 0 && v < 128).length"
    )
    assert 20 < ink < 400, "the image that the network sees has no digit in it"

    page.click(".pad button:has-text('Clear')")
    says(page, "Draw a digit")
    assert page.locator(".pad .bars i").count() == 0

    draw(page, [(140, 50), (138, 230)])
    second = says(page, r"I read a \d")
    screenshot(page, "pad")
    if data_file().name == "mnist.npz":  # the stand-in's model knows too little to be held to it
        assert first == "I read a 0."
        assert second == "I read a 1."


def test_undo_takes_back_one_stroke(page):
    page.click(".pad button:has-text('Clear')")
    says(page, "Draw a digit")
    draw(page, [(140, 50), (138, 230)])
    one = says(page, r"I read a \d")
    bars = page.locator(".pad .bars").inner_text()
    draw(page, [(60, 60), (220, 60), (220, 220), (60, 220)])
    sync_api.expect(page.locator(".pad .bars")).not_to_have_text(bars, timeout=PATIENCE)
    page.click(".pad button:has-text('Undo')")
    says(page, one)
    page.click(".pad button:has-text('Undo')")
    says(page, "Draw a digit")
