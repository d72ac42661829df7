"""The drawing pad in a real browser: JupyterLab, headless Chromium, digits drawn by mouse."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest
from conftest import NOTEBOOKS, data_file

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("Chromium is not here: apt-get install chromium", allow_module_level=True)
if data_file() is None:
    pytest.skip("no MNIST here: the pad is tested with MNIST's model", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

# Only the way to the pad is run: these cells are slow and the pad does not need them.
SLOW = (
    "ways = {",
    "figure, ax",
    "rng = np.random",
    "ink = find_ink",
    "rows = read_digits",
    "with temp",
)
PATIENCE = 300_000  # milliseconds; the first run may have to train a quick model on a busy machine


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory, nbval):
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
    tree, _ = nbval
    shutil.copy(tree / "data" / "model.keras", home / "data")
    for name, setting in {
        "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight exist, too
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    if data_file().name == "mnist.npz":  # the data folder decides what the digits are called
        (home / "data" / "mnist.npz").symlink_to(data_file())
    else:
        environment["DIGITS_DATA"] = str(data_file())
    port = free_port()
    log = (home / "log.txt").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
        + [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={home}"]
        + ["--IdentityProvider.token=", "--ServerApp.password=", "--LabApp.news_url=None"]
        + ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
        cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/api/status", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None:
                    break
                time.sleep(0.2)
        else:
            server.kill()
        assert server.poll() is None, (home / "log.txt").read_text()[-2000:]
        yield address
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


@pytest.fixture(scope="module")
def page(lab):
    """Open the notebook in Chromium, run all its cells, return the page when the pad is there."""
    arguments = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage"
    arguments += " --disable-background-networking --disable-component-update --disable-sync"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=arguments.split(), timeout=PATIENCE
        )
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.add_locator_handler(  # should JupyterLab ask for the kernel all the same
            page.locator(".jp-Dialog button:has-text('Select')"), lambda button: button.click()
        )
        page.goto(f"{lab}/lab/tree/notebooks/pad.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_selector("#jp-main-statusbar >> text=/\\| Idle/")  # the kernel is connected
        page.click("text=Run >> nth=0")
        page.click("li[data-command='runmenu:run-all']")
        sync_api.expect(page.locator(".pad canvas").first).to_be_visible(timeout=PATIENCE)
        yield page
        browser.close()


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
    assert 20 < ink < 400, "the picture that the network sees has no digit in it"

    page.click(".pad button:has-text('Clear')")
    says(page, "Draw a digit")
    assert page.locator(".pad .bars i").count() == 0

    draw(page, [(140, 50), (138, 230)])
    second = says(page, r"I read a \d")
    if folder := os.environ.get("SCREENSHOT_FOLDER"):
        page.screenshot(path=Path(folder) / "pad.png")
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
