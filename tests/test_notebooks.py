"""Every notebook is executed: together in order, alone in an empty folder, and after a kill."""

import importlib
import json
import os
import re
import subprocess
import sys
import time

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import NOTEBOOKS, ROOT, code_cells, read


def test_all_notebooks_give_their_stored_outputs(nbval):
    _, status = nbval
    assert status == 0, "nbval found cells that fail or print something else than what is stored"


def test_elsewhere_keras_downloads_the_data_that_is_served(stand_in, tmp_path):
    """What `make test-colab` and `make test-backends` rest on, which `make test` does not run."""
    environment = os.environ | {
        "KERAS_HOME": str(tmp_path),
        "MNIST_URL": stand_in.as_uri(),
        "PYTHONPATH": str(ROOT / "tests" / "elsewhere"),
    }
    code = "import keras; print(keras.datasets.mnist.load_data()[0][0].sum())"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with np.load(stand_in) as file:
        assert run.stdout.split()[-1] == str(file["x_train"].sum())


@pytest.mark.parametrize(
    "text",
    [
        "UserWarning: predict is deprecated and will be removed in a future version",
        "FutureWarning: the default will change",
        "DeprecationWarning: use another name",
        "in the future, you will use fewer epochs",
    ],
)
@pytest.mark.parametrize("where", ["stdout", "stderr", "html"])
def test_elsewhere_warnings_of_deprecation_are_seen(text, where, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "elsewhere"))
    output = nbformat.v4.new_output("stream", text=text, name=where)
    if where == "html":
        output = nbformat.v4.new_output("display_data", {"text/html": f"<p>{text}</p>"})
    cell = nbformat.v4.new_code_cell("predict(x)", outputs=[output])
    found = importlib.import_module("alone").deprecation(nbformat.v4.new_notebook(cells=[cell]))
    assert (found is None) == text.startswith("in the future") and (found is None or text in found)


@pytest.fixture(scope="module")
def alone(stand_in, tmp_path_factory, two_at_once):
    """All notebooks, executed each in an empty folder, and how that ended: {name: future}."""
    # The long ones are the last ones: they begin first, so that both cores are busy to the end.
    notebooks = {path.stem: read(path) for path in reversed(NOTEBOOKS)}
    return notebooks, two_at_once(notebooks, tmp_path_factory.mktemp, DIGITS_DATA=str(stand_in))


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_runs_alone_in_an_empty_folder(alone, name):
    notebooks, ends = alone
    ends[name].result()
    printed = "".join(
        output.text
        for cell in code_cells(notebooks[name])
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stdout"
    )
    assert "This is stand-in" in printed, "the notebook should name the data set it got"
    assert "MNIST" not in re.findall(r"This is (\S+)", printed)


@pytest.fixture
def training_script(tmp_path):
    """Notebook 04, without its exercises, as a script in an empty folder; a function starts it."""
    path = next(path for path in NOTEBOOKS if path.name.startswith("04"))
    cells = read(path).cells
    end = next(k for k, cell in enumerate(cells) if "## Exercises" in cell.source)
    source = "\n\n".join(cell.source for cell in cells[:end] if cell.cell_type == "code")
    (tmp_path / "training.py").write_text(source, encoding="utf-8")

    def start(stand_in):
        return subprocess.Popen(
            [sys.executable, "-u", "training.py"],
            cwd=tmp_path,
            env=os.environ | {"DIGITS_DATA": str(stand_in), "MPLBACKEND": "agg"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def epochs_in(folder):
    """How many epochs the log of an unfinished training in `folder` holds."""
    for log in folder.glob("data/training-*/log.csv"):
        return max(0, len(log.read_text().splitlines()) - 1)
    return 0


def test_a_killed_training_goes_on_from_its_last_epoch(tmp_path, stand_in, training_script):
    killed = training_script(stand_in)
    deadline = time.monotonic() + 900
    while epochs_in(tmp_path) < 3:
        assert killed.poll() is None, f"ended too early:\n{killed.stdout.read()}"
        assert time.monotonic() < deadline, "no epoch finished in a quarter of an hour"
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "data" / "model.keras").exists()
    backup = next(tmp_path.glob("data/training-*/backup/training_metadata.json"))
    finished = json.loads(backup.read_text())["epoch"]
    assert finished >= 2

    text, _ = (again := training_script(stand_in)).communicate(timeout=600)
    assert again.returncode == 0, text
    assert f"continuing after epoch {finished}." in text
    first = int(re.findall(r"Epoch (\d+)/", text[text.index("continuing") :])[0])
    assert first == finished + 1, "the second run should begin where the first one ended"

    history = pd.read_csv(tmp_path / "data" / "history.csv")
    assert list(history["epoch"]) == list(range(1, len(history) + 1)), "each epoch exactly once"
    assert f"Epoch {len(history)}/{len(history)}" in text
    assert (tmp_path / "data" / "model.keras").exists()
    assert not list(tmp_path.glob("data/training-*")), "the working folder should be gone"


def test_a_training_with_other_settings_starts_anew(tmp_path, stand_in, training_script):
    script = tmp_path / "training.py"
    source = script.read_text(encoding="utf-8")
    few = re.sub(r'"epochs": \d+', '"epochs": 2', source)
    assert few != source
    # An interruption: the folder of a training with other settings is left behind.
    end = "shutil.rmtree(folder, ignore_errors=True)  # only now"
    assert few.count(end) == 1
    script.write_text(few.replace(end, "pass  #"), encoding="utf-8")
    assert training_script(stand_in).wait(timeout=600) == 0
    left = list(tmp_path.glob("data/training-*"))
    assert len(left) == 1
    script.write_text(re.sub(r'"epochs": \d+', '"epochs": 3', source), encoding="utf-8")
    text, _ = training_script(stand_in).communicate(timeout=600)
    assert "Starting with epoch 1." in text
    assert list(tmp_path.glob("data/training-*")) == left, "the other training's folder is kept"


def test_the_runner_says_which_cell_failed_and_why(tmp_path):
    import run

    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# A title"),
            nbformat.v4.new_code_cell("fine = 1"),
            nbformat.v4.new_code_cell("# this one fails\nfine / 0"),
        ]
    )
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    with pytest.raises(RuntimeError) as failure:
        run.execute(tmp_path / "broken.ipynb")
    message = str(failure.value)
    assert "broken.ipynb failed in code cell [2]" in message
    assert "# this one fails" in message
    assert "ZeroDivisionError: division by zero" in message


def test_without_mnist_the_runner_goes_on_loudly(monkeypatch, capsys):
    import run

    calls = []

    def no_network(arguments):
        calls.append(arguments)
        return 0 if arguments else 1

    monkeypatch.delenv("DIGITS_DATA", raising=False)
    monkeypatch.setattr(run.get_mnist, "main", no_network)
    monkeypatch.setattr(run.os, "environ", dict(os.environ))
    assert run.choose_data() == 0
    assert calls == [[], ["--stand-in"]]
    assert run.os.environ["DIGITS_DATA"].endswith("stand-in.npz")
    assert "MNIST IS NOT HERE" in capsys.readouterr().out


def test_a_missing_data_file_stops_the_runner(monkeypatch, capsys, tmp_path):
    import run

    monkeypatch.setenv("DIGITS_DATA", str(tmp_path / "nope.npz"))
    assert run.choose_data() == 2
    assert re.search(r"DIGITS_DATA names a missing file, .*nope\.npz", capsys.readouterr().out)


def test_the_runner_prints_no_warning_of_the_kernel(tmp_path, capfd):
    import run

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    nbformat.write(notebook, tmp_path / "tiny.ipynb")
    run.execute(tmp_path / "tiny.ipynb")
    # On a busy machine, ZeroMQ sometimes ends a kernel with this after the kernel's last answer.
    late = r"Assertion failed: pfd\.revents & POLLIN \(src/signaler\.cpp:\d+\)\n"
    assert re.sub(late, "", capfd.readouterr().err) == ""


def test_a_wrong_mnist_file_stops_the_runner(monkeypatch):
    import run

    monkeypatch.delenv("DIGITS_DATA", raising=False)
    monkeypatch.setattr(run.get_mnist, "main", lambda arguments: 2)
    assert run.choose_data() == 2
    assert "DIGITS_DATA" not in os.environ


def test_the_main_job_on_the_stand_in(tmp_path, stand_in):
    """What `make run` does after the setup: pages, result.csv, and the last words.

    With half of the notebooks: all of them, in order, are executed by nbval.
    """
    from conftest import copy_tree

    tree = copy_tree(tmp_path / "tree")
    for path in (tree / "notebooks").glob("*.ipynb"):
        if path.name[:2] not in ("00", "02", "05", "06", "08"):
            path.unlink()
    before = {path.name: path.read_bytes() for path in (tree / "notebooks").iterdir()}
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tree,
        env=os.environ | {"DIGITS_DATA": str(stand_in)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    for word in ("Test accuracy", "95% interval", "result.csv", "index.html", "NOT MNIST"):
        assert word in done.stdout
    assert (tree / "data" / "result.csv").exists()
    index = (tree / "pages" / "index.html").read_text(encoding="utf-8")
    assert "make all" in index, "the pages that show stored outputs should be named"
    for name in before:
        page = (tree / "pages" / name).with_suffix(".html")
        assert page.stat().st_size > 10_000
        assert page.name in index
        text = page.read_text(encoding="utf-8")
        assert "<summary>Setup: " in text, "the setup cell should be folded"
        for link in re.findall(r'href="(\d\d-[^"#]+)"', text):
            assert link.endswith(".html"), f"{page.name} links to {link}"
    assert "<summary>Show the result</summary>" in (
        tree / "pages/02-prepare-the-data.html"
    ).read_text(encoding="utf-8")
    after = {path.name: path.read_bytes() for path in (tree / "notebooks").iterdir()}
    assert after == before, "make run must leave the notebooks as they are"
