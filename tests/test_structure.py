"""What holds for every notebook as it lies in the repository."""

import ast
import base64
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import NOTEBOOKS, ROOT, code_cells, read, syntax

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def text_of(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def tags(cell):
    return cell.metadata.get("tags", [])


def test_the_series_is_complete():
    numbers = [path.name[:2] for path in NOTEBOOKS]
    assert numbers == [f"{k:02d}" for k in range(len(numbers))]
    assert len(numbers) >= 7


@every_notebook
def test_executed_in_one_pass_without_errors(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", output.text


@every_notebook
def test_outputs_give_nothing_away(path):
    notebook = read(path)
    outputs = json.dumps([cell.outputs for cell in code_cells(notebook)])
    assert not re.search(r"(/(home|root|tmp|work|Users|content)/|[A-Z]:\\\\)", outputs)
    assert "widgets" not in notebook.metadata
    if path.name[:2] != "00":
        assert "This is MNIST" in outputs, "stored outputs come from MNIST"


@every_notebook
def test_figures_are_light(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                size = len(base64.b64decode(output.data["image/png"]))
                assert size < 80_000, f"{size / 1000:.0f} kB: {cell.source[:80]}"


def test_all_notebooks_together_are_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 4_500_000


@every_notebook
def test_begins_and_ends_as_a_lesson(path):
    notebook = read(path)
    text = text_of(notebook)
    first, last = notebook.cells[0].source, notebook.cells[-1].source
    assert len(re.findall(r"^# ", text, re.M)) == 1, "one H1"
    assert re.search(rf"^# {path.name[:2]} ", first, re.M)
    assert "ou will" in first and "**Time:**" in first and "**Builds on:**" in first
    assert "## What we learned" in text
    position = NOTEBOOKS.index(path)
    for neighbour in NOTEBOOKS[max(0, position - 1) : position + 2]:
        if neighbour != path:
            assert f"({neighbour.name})" in first, f"link to {neighbour.name} at the top"
            assert f"({neighbour.name})" in last, f"link to {neighbour.name} at the end"


@every_notebook
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)]+)\)", text_of(read(path))):
        if not link.startswith("https://"):
            assert (path.parent / link.split("#")[0]).exists(), link


@every_notebook
def test_reads_as_a_lesson(path):
    notebook = read(path)
    text = text_of(notebook)
    tables = re.findall(r"^\|.*$", text, re.M)  # for looking things up, not for reading
    words = len(text.split()) - len(" ".join(tables).split())
    exercises = len(text.partition("\n## Exercises\n")[2].split())
    assert words >= 800
    # 09 builds a whole system, and may take longer
    assert words - exercises <= (5000 if path.name.startswith("09") else 2300)


@every_notebook
def test_few_outputs_are_left_unchecked(path):
    cells = code_cells(read(path))
    ignored = [cell for cell in cells if "nbval-ignore-output" in tags(cell)]
    assert len(ignored) < len(cells) / 3
    assert not any({"nbval-skip", "raises-exception"} & set(tags(cell)) for cell in cells)


@every_notebook
def test_no_output_is_hidden_by_a_semicolon(path):
    """Tools that keep no history of the cells, such as nbval, show that output nevertheless."""
    for cell in code_cells(read(path)):
        end = cell.source.rpartition("\n")[2].partition("  #")[0]
        assert not end.rstrip().endswith(";") or "nbval-ignore-output" in tags(cell), cell.source


@every_notebook
def test_imports_nothing_of_ours(path):
    ours = {file.stem for file in ROOT.glob("**/*.py") if ".venv" not in str(file)}
    for cell in code_cells(read(path)):
        for node in ast.walk(syntax(cell)):
            if isinstance(node, ast.Import):
                assert not ours & {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in ours


def test_a_definition_is_the_same_wherever_it_stands():
    seen = defaultdict(set)
    for path in NOTEBOOKS:
        for cell in code_cells(read(path)):
            for node in syntax(cell).body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    seen[node.name].add(ast.get_source_segment(cell.source, node))
    assert {"load_digits", "build_cnn", "RandomAffine"} <= set(seen)
    for name, versions in seen.items():
        assert len(versions) == 1, f"{name} differs between notebooks"


def test_the_setup_cell_is_the_same_everywhere():
    setups = {code_cells(read(path))[0].source for path in NOTEBOOKS}
    assert len(setups) == 1


def setup_cell():
    return code_cells(read(NOTEBOOKS[0]))[0].source


def test_the_setup_cell_shows_what_a_broken_installation_says(tmp_path):
    """A Keras that complains, from C as TensorFlow does, and then cannot be imported."""
    (tmp_path / "keras.py").write_text(
        "import os\nos.write(2, b'libcuda is too old\\n')\nraise ImportError('no backend')\n"
    )
    broken = subprocess.run(
        [sys.executable, "-c", setup_cell()],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert broken.returncode == 1
    assert "libcuda is too old" in broken.stderr
    assert "ImportError: no backend" in broken.stderr


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
def test_the_setup_cell_is_quiet_and_leaves_nothing_open(tmp_path):
    run_twice = (
        "import os, sys\n"
        "cell = sys.argv[1]\n"
        "exec(cell)\n"
        "before = len(os.listdir('/proc/self/fd'))\n"
        "exec(cell)\n"
        "assert len(os.listdir('/proc/self/fd')) == before, 'a descriptor is left open'\n"
        "os.write(2, b'stderr is back')\n"
    )
    fine = subprocess.run(
        [sys.executable, "-c", run_twice, setup_cell()],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert fine.returncode == 0, fine.stderr
    assert fine.stderr == "stderr is back" and fine.stdout == ""


def new_terms(path):
    """The terms in bold, but for labels such as "Time:"."""
    bold = re.findall(r"\*\*(.+?)\*\*", text_of(read(path)))
    return [term.lower() for term in bold if not term.endswith(":")]


def test_every_new_term_is_in_the_glossary():
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|$", text_of(read(NOTEBOOKS[0])), re.M)
    glossary = {term.lower(): place for term, place in rows}
    assert len(glossary) > 40
    for path in NOTEBOOKS:
        for term in new_terms(path):
            assert term in glossary, f"{term} ({path.name}) is not in the glossary"
            assert path.name in glossary[term] or path == NOTEBOOKS[0], f"{term}: where?"


def test_every_new_term_is_introduced_once():
    places = defaultdict(list)
    for path in NOTEBOOKS:
        for term in new_terms(path):
            places[term].append(path.name)
    assert not {term: names for term, names in places.items() if len(names) > 1}
