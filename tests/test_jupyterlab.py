"""Every notebook as a reader meets it: opened in JupyterLab in a browser, and run from the menu.

It is run on the stand-in, so that the whole series takes minutes. What the numbers are is for
other tests; here it is what can be seen.
"""

import json
import re
import urllib.request

import nbformat
import pytest
from browser import (
    PATIENCE,
    TOKEN,
    chromium,
    jupyterlab,
    open_notebook,
    run_all,
    screenshot,
    sync_api,
)
from conftest import NOTEBOOKS, code_cells, copy_tree, read

pytestmark = pytest.mark.slow

STDERR = "[data-mime-type='application/vnd.jupyter.stderr']"  # JupyterLab shows errors so, too
# Some cells draw only if there is something to draw, such as MNIST's own doubtful labels.
MAY_DRAW_NOTHING = re.compile(r"^if ", re.M)


def figures(cell):
    """Count the figures in a cell's outputs."""
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A copy of the project whose notebooks have no outputs, so that what is seen is new.

    Returns the copy and the notebooks as they are stored, {name: notebook}.
    """
    tree, stored = copy_tree(tmp_path_factory.mktemp("jupyterlab") / "tree"), {}
    for path in (tree / "notebooks").glob("*.ipynb"):
        stored[path.name], notebook = read(path), read(path)
        for cell in code_cells(notebook):
            cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    return tree, stored


@pytest.fixture(scope="module")
def lab(series, tmp_path_factory, stand_in):
    """JupyterLab on the copy; its address."""
    home = tmp_path_factory.mktemp("lab")
    with jupyterlab(series[0], home, environment={"DIGITS_DATA": str(stand_in)}) as (_, address):
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def shut_down(lab):
    """Shut the kernels down after each notebook, for the memory."""
    yield

    def ask(method, path):
        request = urllib.request.Request(lab + path, method=method)
        request.add_header("Authorization", f"token {TOKEN}")
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    for kernel in json.loads(ask("GET", "/api/kernels")):
        ask("DELETE", f"/api/kernels/{kernel['id']}")


def check_folding(cell):
    """See to it that a code cell is folded, unfolds on a click, and folds again."""
    expect, editor = sync_api.expect, cell.locator(".jp-InputArea-editor")
    placeholder = cell.locator(".jp-InputPlaceholder")
    expect(editor).to_be_hidden()
    expect(placeholder).to_contain_text("# @title ")  # a folded cell says what is in it
    placeholder.click()
    expect(editor).to_be_visible()
    expect(placeholder).to_be_hidden()
    cell.locator(".jp-InputCollapser").click()
    expect(editor).to_be_hidden()
    expect(placeholder).to_be_visible()


def wait_until_run(page):
    """Wait until no cell waits or runs, and each has its number or one has failed."""
    page.wait_for_function(
        """stderr => {
            const notebook = document.querySelector(".jp-Notebook");
            const prompts = Array.from(
                notebook.querySelectorAll(".jp-CodeCell .jp-InputArea-prompt"), p => p.innerText);
            return !prompts.some(p => p.includes("*"))
                && (notebook.querySelector(stderr) || prompts.every(p => /\\d/.test(p)));
        }""",
        arg=STDERR,
        timeout=6 * PATIENCE,  # some notebooks train more than once
    )
    page.wait_for_selector("#jp-main-statusbar >> text=/\\| Idle/")


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_notebook_runs_in_jupyterlab(name, series, lab, browser, shut_down):
    page = open_notebook(browser, lab, f"notebooks/{name}")
    assert page.locator(".jp-Dialog").count() == 0
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    stored = [cell for cell in series[1][name].cells if cell.cell_type == "code"]
    sync_api.expect(cells).to_have_count(len(stored))
    for number, cell in enumerate(stored):
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            check_folding(cells.nth(number))
        else:
            sync_api.expect(cells.nth(number).locator(".jp-InputArea-editor")).to_be_visible()
    screenshot(page, f"{name}-opened")

    run_all(page)
    wait_until_run(page)
    screenshot(page, f"{name}-run")
    assert page.locator(f".jp-Notebook {STDERR}").all_inner_texts() == []
    assert sum(map(figures, stored)) > 0
    for number, cell in enumerate(stored):
        images = cells.nth(number).locator(".jp-OutputArea .jp-RenderedImage img")
        if images.count() or not MAY_DRAW_NOTHING.search(cell.source):
            # The last figure may come a moment after its cell's number.
            sync_api.expect(images, cell.source).to_have_count(figures(cell), timeout=60_000)
        widths = images.evaluate_all(
            """images => Promise.all(
                images.map(image => image.decode().then(() => image.naturalWidth)))"""
        )
        assert all(widths), "every figure shows"
        if cell.source.endswith("show_pad()"):
            sync_api.expect(cells.nth(number).locator(".pad canvas").first).to_be_visible()
        if cell.source.endswith("show_page(page_file)"):
            inside = cells.nth(number).frame_locator("iframe")
            sync_api.expect(inside.locator("#verdict")).to_contain_text("Prediction")

    link = page.locator(".jp-Notebook .jp-MarkdownCell a[href*='.ipynb']").last
    following = re.search(r"[\w-]+\.ipynb", link.get_attribute("href"))[0]
    assert following == NOTEBOOKS[(int(name[:2]) + 1) % len(NOTEBOOKS)].name
    link.click()
    sync_api.expect(page.locator("#jp-main-dock-panel .lm-mod-current")).to_have_text(following)
    assert page.errors == []
    page.close()
