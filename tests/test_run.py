"""run.py without the series: what it writes, prints, and returns, for small notebooks."""

import base64
import io
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

import run

NAMES = ["00-start", "07-the-last-of-the-core", "08-more"]


def png(compress_level=0):
    """A PNG file of 40 × 30 pixels, in base64, and its pixels."""
    pixels = np.random.default_rng(0).integers(0, 2, (30, 40), np.uint8) * 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=compress_level)
    return base64.b64encode(file.getvalue()).decode(), pixels


def lesson(name, outputs=False):
    """A small notebook, with what executing it would give if outputs is true."""
    folded = {"jupyter": {"source_hidden": True}, "cellView": "form"}
    cells = [
        new_markdown_cell(
            f"[→ 08](08-more.ipynb) · [![Open in Colab](a.svg)](https://b)\n\n# Lesson {name}\n\n"
            "## [another](08-more.ipynb#part) and [elsewhere](https://example.org/x.ipynb)"
        ),
        new_code_cell("# @title Setup: <all>\nx = 1", metadata=folded),
        new_code_cell("print(x)", metadata={"tags": ["headline"]}),
        new_code_cell("draw()", metadata={"jupyter": {"outputs_hidden": True}}),
        new_code_cell("draw()", metadata={"tags": ["readme-image"] if name == NAMES[0] else []}),
    ]
    notebook = new_notebook(cells=cells)
    if outputs:
        cells[2].outputs = [new_output("stream", text=f"headline of {name}\n")]
        data = {"image/png": png()[0], "text/plain": "<Figure>"}
        for cell in cells[3:]:
            cell.outputs = [new_output("display_data", data=data)]
        notebook.metadata["measured"] = {"seconds": 90 + len(name)}
    return notebook


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of three notebooks, which are only said to be executed. Yields its folder."""
    monkeypatch.delenv("DIGITS_DATA", raising=False)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data").mkdir()
    for name in NAMES:
        nbformat.write(lesson(name), tmp_path / "notebooks" / f"{name}.ipynb")
    nbformat.write(lesson("draft"), tmp_path / "notebooks" / "draft.ipynb")
    for name, folder in (("ROOT", ""), ("NOTEBOOKS", "notebooks"), ("PAGES", "pages")):
        monkeypatch.setattr(run, name, tmp_path / folder)
    monkeypatch.setattr(run, "DATA", tmp_path / "data")
    monkeypatch.setattr(run.get_mnist, "main", lambda arguments: 0)
    monkeypatch.setattr(run, "execute", lambda path: lesson(path.stem, outputs=True))
    return tmp_path


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["run.py", *arguments])
    return run.main()


def stored(project):
    return {path.name: path.read_bytes() for path in (project / "notebooks").iterdir()}


def test_the_core_is_executed_and_the_rest_is_shown(project, monkeypatch, capsys):
    before = stored(project)
    assert call(monkeypatch) == 0
    out = capsys.readouterr().out
    assert stored(project) == before and not (project / "README.png").exists()
    pages = {path.name for path in (project / "pages").iterdir()}
    assert pages == {
        *(f"{name}.html" for name in NAMES),
        *(f"{name}.ipynb" for name in NAMES[:2]),
        "index.html",
    }
    index = (project / "pages" / "index.html").read_text(encoding="utf-8")
    items = re.findall(r'<li><a href="(.+?)">(.+?)</a> <small>(.+?)</small></li>', index)
    assert items == [
        ("00-start.html", "Lesson 00-start", "98 s"),
        ("07-the-last-of-the-core.html", "Lesson 07-the-last-of-the-core", "113 s"),
        ("08-more.html", "Lesson 08-more")
        + ("with its stored outputs; <code>make all</code> executes it",),
    ]
    headlines = "headline of 00-start\nheadline of 07-the-last-of-the-core"
    assert f"<pre>{headlines}</pre>" in index
    assert f"All of it took {(98 + 113) / 60:.1f} minutes.\n\n{headlines}\n" in out
    assert "Shown with stored outputs: 08-more (make all executes them)" in out
    assert f"Predictions: {project / 'data' / 'result.csv'}" in out
    assert out.startswith("00-start\n\r    done in 98 s\n07-the-last-of-the-core\n")


def test_all_are_executed_if_that_is_asked_for(project, monkeypatch, capsys):
    before = stored(project)
    assert call(monkeypatch, "--all") == 0
    assert stored(project) == before
    assert "Shown with stored outputs" not in capsys.readouterr().out
    assert (project / "pages" / "08-more.ipynb").exists()
    assert not (project / "pages" / "draft.ipynb").exists()


def test_outputs_are_stored_if_that_is_asked_for(project, monkeypatch):
    assert call(monkeypatch, "--store") == 0
    for name in NAMES:
        notebook = nbformat.read(project / "notebooks" / f"{name}.ipynb", as_version=4)
        assert notebook.cells[2].outputs[0].text == f"headline of {name}\n"
    assert (project / "README.png").read_bytes() == base64.b64decode(png()[0])


def test_a_notebook_that_was_edited_meanwhile_is_not_overwritten(project, monkeypatch, capsys):
    path = project / "notebooks" / f"{NAMES[1]}.ipynb"

    def execute(executed):
        notebook = nbformat.read(path, as_version=4)
        notebook.cells[0].source += " edited"
        nbformat.write(notebook, path)
        return lesson(executed.stem, outputs=True)

    monkeypatch.setattr(run, "execute", execute)
    assert call(monkeypatch, "--store") == 0
    assert f"{NAMES[1]}.ipynb was edited" in capsys.readouterr().out
    assert nbformat.read(path, as_version=4).cells[0].source.endswith(" edited")
    assert not nbformat.read(path, as_version=4).cells[2].outputs
    assert sorted(path.name for path in path.parent.iterdir()) == sorted(
        f"{name}.ipynb" for name in [*NAMES, "draft"]
    )


def test_other_data_is_named_and_never_stored(project, monkeypatch, capsys):
    mine = project / "mine.npz"
    mine.write_bytes(b"")
    monkeypatch.setenv("DIGITS_DATA", str(mine))
    before = stored(project)
    assert call(monkeypatch, "--store") == 2
    assert "Stored outputs come from data/mnist.npz" in capsys.readouterr().out
    assert stored(project) == before and not (project / "pages").exists()
    assert call(monkeypatch) == 0
    assert "NOT MNIST, but the data that DIGITS_DATA names: mine.npz" in capsys.readouterr().out
    assert "mine.npz" in (project / "pages" / "index.html").read_text(encoding="utf-8")


def test_a_failure_ends_the_run_and_nothing_is_stored(project, monkeypatch, capsys):
    def execute(path):
        if path.stem == NAMES[1]:
            raise RuntimeError("07 failed in code cell [3]")
        return lesson(path.stem, outputs=True)

    monkeypatch.setattr(run, "execute", execute)
    before = stored(project)
    assert call(monkeypatch, "--store") == 1
    assert "07 failed in code cell [3]" in capsys.readouterr().err
    assert stored(project) == before
    assert not (project / "pages" / "index.html").exists()


@pytest.mark.parametrize("status", [1, 2])
def test_without_data_nothing_is_executed(project, monkeypatch, status):
    monkeypatch.setattr(run, "choose_data", lambda: status)
    assert call(monkeypatch) == status
    assert not (project / "pages").exists()


def test_the_data_that_is_named_is_found_from_any_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.npz").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIGITS_DATA", "mine.npz")
    assert run.choose_data() == 0
    assert run.os.environ["DIGITS_DATA"] == str((tmp_path / "mine.npz").resolve())
    assert "DIGITS_DATA names the data" in capsys.readouterr().out
    monkeypatch.setenv("DIGITS_DATA", str(tmp_path))  # a folder is no file
    assert run.choose_data() == 2


def test_mnist_that_is_there_is_used(monkeypatch, capsys):
    monkeypatch.delenv("DIGITS_DATA", raising=False)
    monkeypatch.setattr(run.get_mnist, "main", lambda arguments: 0)
    assert run.choose_data() == 0
    assert "DIGITS_DATA" not in run.os.environ and capsys.readouterr().out == ""


def test_a_page_links_to_pages_and_folds_what_is_folded(project):
    (project / "pages").mkdir()
    notebook = lesson("00-start", outputs=True)
    run.write_page("00-start", notebook)
    page = (project / "pages" / "00-start.html").read_text(encoding="utf-8")
    assert re.findall(r'href="([^"#]*\.(?:html|ipynb))', page) == [
        *("08-more.html", "08-more.html", "https://example.org/x.ipynb")
    ]
    assert "Open in Colab" not in page and "Lesson 00-start" in page
    assert "<summary>Setup: &lt;all&gt;" in page
    assert page.count('<details class="folded">') == 2
    assert page.count("<summary>Show the result</summary>") == 1
    assert "<title>Lesson 00-start</title>" in page
    assert not re.search(r'<script[^>]* src="http', page), "nothing comes from the internet"
    assert not re.search(r'<div class="[^"]*(InputPrompt|OutputPrompt)', page)
    assert 'class="anchor-link"' not in page
    assert notebook.cells[0].source.startswith("[→ 08](08-more.ipynb)"), "it stays as it is"


def figure(kind):
    """A figure as Matplotlib writes it (RGBA), of one of these kinds."""
    random = np.random.default_rng(0)
    pixels = np.full((60, 80, 4), 255, np.uint8)
    pixels[..., :3] = random.integers(256, size=(60, 80, 3)) if kind == "many colors" else 250
    pixels[10:30, 10:50, :3] = [[200, 30, 60]] if kind != "many colors" else pixels[0, 0, :3]
    pixels[40:50, 10:50, 3] = 128 if kind == "transparent" else 255
    return pixels


@pytest.mark.parametrize("kind", ["few colors", "many colors", "transparent"])
def test_a_figure_looks_as_before_when_it_is_shrunk(kind):
    pixels, file = figure(kind), io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    notebook = lesson("00-start", outputs=True)
    data = notebook.cells[3].outputs[0].data
    data["image/png"] = base64.b64encode(file.getvalue()).decode()
    run.shrink_figures(notebook)
    small = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert small.mode == {"few colors": "P", "many colors": "RGB", "transparent": "RGBA"}[kind]
    assert np.array_equal(np.asarray(small.convert("RGBA")), pixels)


def test_figures_keep_their_pixels_in_fewer_bytes():
    data, pixels = png()
    notebook = lesson("00-start", outputs=True)
    run.shrink_figures(notebook)
    small = notebook.cells[3].outputs[0].data["image/png"]
    assert len(small) < len(data) / 2
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(small)))), pixels)
    assert notebook.cells[2].outputs[0].text == "headline of 00-start\n"


def test_what_notebooks_have_printed_is_no_html(project):
    (project / "pages").mkdir()
    run.write_index({}, {}, "accuracy < 100% & more")
    index = (project / "pages" / "index.html").read_text(encoding="utf-8")
    assert "<pre>accuracy &lt; 100% &amp; more</pre>" in index


@pytest.mark.parametrize("script", ["run.py", "data/get_mnist.py"])
def test_a_script_tells_the_shell_that_it_has_failed(tmp_path, script):
    (tmp_path / "data").mkdir()
    for name in ("run.py", "recaps.py", "data/get_mnist.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "data" / "mnist.npz").write_text("not MNIST")
    environment = {key: value for key, value in os.environ.items() if key != "DIGITS_DATA"}
    command = [sys.executable, tmp_path / script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 2 and "is not MNIST" in result.stderr


def test_only_streams_of_cells_with_the_tag_are_printed():
    notebook = lesson("00-start", outputs=True)
    assert run.printed(notebook, "headline") == "headline of 00-start"
    notebook.cells[2].outputs.append(new_output("display_data", data={"text/plain": "x"}))
    notebook.cells[2].outputs.append(new_output("stream", text="and more\n"))
    assert run.printed(notebook, "headline") == "headline of 00-start\nand more"
    assert run.printed(notebook, "another tag") == ""


def test_a_kernel_is_reached_through_files_where_that_is_possible(tmp_path, monkeypatch):
    address = run.connection(tmp_path)
    if run.os.name == "posix" and len(str(tmp_path)) < 90:
        assert address["transport"] == "ipc"
        assert address["ip"] == str(tmp_path / "kernel")
        assert address["connection_file"] == str(tmp_path / "kernel.json")
    longest = run.Path("/" + "x" * 93)  # with /kernel and what Jupyter appends: 103 characters
    assert run.connection(longest) or run.os.name != "posix"
    assert run.connection(run.Path("/" + "x" * 94)) == {}, "macOS takes no longer ones"
    monkeypatch.setattr(run, "os", SimpleNamespace(name="nt", fsencode=run.os.fsencode))
    assert run.connection(tmp_path) == {}


def test_a_failure_names_the_cell_and_the_reason():
    notebook = new_notebook(
        cells=[
            new_markdown_cell("# A title"),
            new_code_cell("first = 1"),
            new_code_cell(""),  # is not executed, and not counted
            new_code_cell("second = 2\nmore"),
        ]
    )
    client = SimpleNamespace(code_cells_executed=2)
    error = SimpleNamespace(ename="NameError", evalue="more is not defined")
    path = run.Path("notebooks/04-train.ipynb")
    message = run.failure(path, notebook, client, error)
    assert message == (
        "04-train.ipynb failed in code cell [2], which begins with\n    second = 2\n"
        "NameError: more is not defined"
    )
    message = run.failure(path, notebook, client, DeadKernelError("dead"))
    assert message.endswith("ran out of memory: close other programs, and run this again")


def test_epochs_are_shown_while_a_notebook_runs(capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(run.NotebookClient, "process_message", lambda *a: shown.append(a[1:]))
    client = run.Client(lesson("00-start"))
    text = "Epoch 1/5\n430/430 - 22s - 51ms/step - loss: 0.1\nother\n"
    message = {"msg_type": "stream", "content": {"text": text}}
    client.process_message(message, None, 1)
    assert capsys.readouterr().out == "\r    430/430 - 22s - 51ms/step - loss: 0.1\n"
    client.process_message({"msg_type": "execute_input"}, None, 1)
    assert capsys.readouterr().out == "", "cells are counted on a terminal only"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    client.process_message({"msg_type": "execute_input"}, None, 1)
    assert capsys.readouterr().out == "\r    cell 2 of 5 "
    assert [index for _, _, index in shown] == [1, 1, 1], "and Jupyter gets every message"


def test_a_notebook_is_executed_in_its_folder_and_timed(tmp_path, monkeypatch):
    source = "from pathlib import Path\nPath('here').touch()\nprint('done')"
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), tmp_path / "00-a.ipynb")
    clock = iter([100.0, 107.4])
    monkeypatch.setattr(run, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    notebook = run.execute(tmp_path / "00-a.ipynb")
    assert (tmp_path / "here").exists()
    assert notebook.cells[0].outputs[0].text == "done\n"
    assert notebook.metadata["measured"] == {"seconds": 7}
    assert "widgets" not in notebook.metadata and "execution" not in notebook.cells[0].metadata
    assert nbformat.read(tmp_path / "00-a.ipynb", as_version=4).cells[0].outputs == []
