"""JupyterLab on a folder and headless Chromium, for the tests that see what a reader sees."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("Chromium is not here: apt-get install chromium", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

TOKEN = secrets.token_hex(16)  # lets nobody else on this machine in
PATIENCE = 600_000  # milliseconds; the first run may have to train a quick model on a busy machine
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight exist, too
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def jupyterlab(root, home, *arguments, environment=(), prefix=(), settings=SETTINGS):
    """Start JupyterLab on the folder `root`; give its process and address, stop it at the end.

    home: a folder for its settings and log. arguments, environment: further ones for JupyterLab.
    prefix: a command that starts JupyterLab in its turn, such as `unshare`.
    """
    for name, setting in settings.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))
    folders = {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    port = free_port()
    log = (home / "log.txt").open("w")
    server = subprocess.Popen(
        [*prefix, sys.executable, "-m", "jupyterlab", *arguments]
        + ["--no-browser", "--allow-root", "--ip=127.0.0.1"]
        + [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"],
        cwd=root, env=os.environ | folders | dict(environment), stdout=log,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        # The server leaves this file when it listens. It can be seen even from another network.
        for _ in range(600):
            if server.poll() is not None or list((home / "runtime").glob("jpserver-*-open.html")):
                break
            time.sleep(0.2)
        else:
            server.kill()
        assert server.poll() is None, (home / "log.txt").read_text()[-2000:]
        yield server, f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


@contextmanager
def chromium(executable=CHROMIUM):
    """Start headless Chromium; give the browser."""
    arguments = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-dev-shm-usage"
    arguments += " --disable-background-networking --disable-component-update --disable-sync"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=arguments.split(), timeout=PATIENCE
        )
        yield browser
        browser.close()


def open_notebook(browser, address, path):
    """Open a notebook in JupyterLab; return the page when its kernel is connected.

    The page has a list `errors` of what went wrong in the browser's own scripts.
    """
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.set_default_timeout(PATIENCE)
    page.add_locator_handler(  # should JupyterLab ask for the kernel all the same
        page.locator(".jp-Dialog button:has-text('Select')"), lambda button: button.click()
    )
    page.goto(f"{address}/lab/tree/{path}?reset&token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_selector("#jp-main-statusbar >> text=/\\| Idle/")  # the kernel is connected
    return page


def run_all(page):
    """Choose "Run All Cells" from the menu."""
    page.click("text=Run >> nth=0")
    page.click("li[data-command='runmenu:run-all']")


def screenshot(page, name):
    """Keep what the page shows, a notebook in its whole length, if SCREENSHOT_FOLDER is set."""
    if folder := os.environ.get("SCREENSHOT_FOLDER"):
        seen, scrolled = page.viewport_size, page.locator(".jp-WindowedPanel-outer")
        lengths = scrolled.evaluate_all("all => all.map(one => one.scrollHeight + 150)")
        page.set_viewport_size(seen | {"height": min(16_000, max([seen["height"], *lengths]))})
        scrolled.evaluate_all("all => all.forEach(one => one.scrollTo(0, 0))")
        page.screenshot(path=Path(folder) / f"{name}.png")
        page.set_viewport_size(seen)
