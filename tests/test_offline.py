"""Everything works with the network shut off, once the packages are there.

Programs run in a network of their own, which has nothing but loopback (Linux: unshare). What they
ask for outside is seen to fail, or, in the browser, is counted.
"""

import re
import shlex
import shutil
import subprocess
import sys

import nbformat
import pytest
from browser import CHROMIUM, PATIENCE, chromium, jupyterlab, screenshot
from conftest import HAS_MNIST, NOTEBOOKS, ROOT, copy_tree, read

pytestmark = pytest.mark.slow

# Without --map-root-user only root may do this.
OFFLINE = shlex.split("unshare --map-root-user --net sh -c 'ip link set lo up && exec \"$@\"' sh")


@pytest.fixture(scope="module", autouse=True)
def offline():
    """Skip where the network cannot be shut off; see to it that it is off where it can."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("the network cannot be shut off here: Linux with unshare and ip is needed")
    done = subprocess.run([*OFFLINE, "cat", "/proc/net/dev"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the network cannot be shut off here: {done.stderr.strip()}")
    assert re.findall(r"(\w+):", done.stdout) == ["lo"]


def offline_chromium(folder, *prefix):
    """Write a command that starts Chromium after `prefix`, in another network; start it so."""
    command = folder / "chromium"
    command.write_text(f'#!/bin/sh\nexec {shlex.join([*prefix, CHROMIUM])} "$@"\n')
    command.chmod(0o755)
    return chromium(command)


def run_offline(tree):
    """Run run.py in a copy of the tree that has the two quickest notebooks only."""
    for path in (tree / "notebooks").glob("*.ipynb"):
        if not path.name.startswith(("00", "02")):
            path.unlink()
    command = [*OFFLINE, "env", "-u", "DIGITS_DATA", sys.executable, "run.py"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True)


def which_digits(tree):
    """Return what notebook 00 said about the data when it was run."""
    notebook = nbformat.read(next((tree / "pages").glob("00*.ipynb")), as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return next(o.text for o in outputs if o.get("text", "").startswith("This is "))


def test_run_goes_on_with_the_stand_in(tmp_path):
    tree = copy_tree(tmp_path / "tree")
    (tree / "data" / "mnist.npz").unlink(missing_ok=True)
    done = run_offline(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MNIST IS NOT HERE" in done.stdout
    assert "NOT MNIST" in done.stdout.split("All of it took")[1], "nor is it forgotten at the end"
    assert which_digits(tree).startswith("This is stand-in: 1,397 ")
    assert {path.stem for path in (tree / "pages").glob("*.html")} > {"index"}


@pytest.mark.skipif(not HAS_MNIST, reason="no MNIST here")
def test_run_uses_the_mnist_that_is_there(tmp_path):
    tree = copy_tree(tmp_path / "tree")
    done = run_offline(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "complete and verified" in done.stdout
    assert "Downloading" not in done.stdout + done.stderr
    assert which_digits(tree).startswith("This is MNIST: 60,000 ")


def test_pages_need_nothing_but_themselves(tmp_path, monkeypatch):
    import run

    monkeypatch.setattr(run, "PAGES", tmp_path)
    with offline_chromium(tmp_path, *OFFLINE) as browser:
        for path in NOTEBOOKS:
            notebook = read(path)
            run.write_page(path.stem, notebook)
            address = (tmp_path / f"{path.stem}.html").as_uri()
            page, asked = browser.new_page(), []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(address, wait_until="networkidle")
            assert [url for url in asked if not url.startswith("data:")] == [address]
            widths = page.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
            outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
            assert len(widths) == sum("image/png" in o.get("data", {}) for o in outputs) > 0
            assert all(widths), "every figure shows"
            screenshot(page, f"page-{path.stem}")
            page.close()


def test_notebooks_have_no_formulas():
    """Pages come without MathJax, which would have to be fetched: formulas would show as code."""
    for path in NOTEBOOKS:
        for cell in read(path).cells:
            if cell.cell_type == "markdown":
                prose = re.sub(r"```.*?```|`[^`]*`", "", cell.source, flags=re.S)
                assert not re.search(r"\$.+\$|\\\(|\\\[|\\begin", prose), f"{path.name}: {prose}"


def test_jupyterlab_comes_up(tmp_path):
    tree, home = copy_tree(tmp_path / "tree"), tmp_path / "home"
    home.mkdir()
    first = ("--ServerApp.root_dir=.", "notebooks/00-start-here.ipynb")
    started = f"jupyter lab {' '.join(first)}\n"
    assert started in (ROOT / "Makefile").read_text()  # as it is started below
    with jupyterlab(tree, home, *first, prefix=OFFLINE, settings={}) as (server, address):
        enter = ["nsenter", f"--target={server.pid}", "--user", "--net", "--preserve-credentials"]
        with offline_chromium(tmp_path, *enter) as browser:
            page, asked, failed = browser.new_page(), [], []
            page.on("request", lambda request: asked.append(request.url))
            page.on("requestfailed", lambda request: failed.append(request.url))
            page.on("pageerror", lambda error: failed.append(str(error)))
            # Jupyter leaves a page that leads to the notebook; this is what it opens for a reader.
            start = next((home / "runtime").glob("jpserver-file-to-run-*-open.html"))
            page.goto(start.as_uri())
            page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=PATIENCE)
            page.wait_for_selector("#jp-main-statusbar >> text=/\\| Idle/", timeout=PATIENCE)
            screenshot(page, "offline-jupyterlab")
            outside = [u for u in asked if not u.startswith((address, "file:", "data:", "blob:"))]
            assert outside == []
            assert failed == []
