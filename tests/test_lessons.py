"""How the lessons are built: light cells, folded plumbing, predictions, exercises, words."""

import ast
import re
import statistics
from pathlib import Path

import pytest
from conftest import NOTEBOOKS, ROOT, code_cells, read, syntax

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
LESSONS = NOTEBOOKS[1:]  # 00 is the map: it has no exercises
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def tags(cell):
    return cell.metadata.get("tags", [])


def folded(cell):
    return cell.metadata.get("jupyter", {}).get("source_hidden", False)


def lines(cell):
    return len(cell.source.splitlines())


def printed(cell):
    """What a cell has printed."""
    return "".join(out.text for out in cell.outputs if out.output_type == "stream")


# --- cells --------------------------------------------------------------------------------------


@every_notebook
def test_visible_cells_are_short(path):
    visible = [cell for cell in code_cells(read(path)) if not folded(cell)]
    assert statistics.median(lines(cell) for cell in visible) <= 5
    for cell in visible:
        # A class or function that is the lesson itself may be longer; its cell says so by a tag.
        limit = 30 if "long-lesson" in tags(cell) else 20
        assert lines(cell) <= limit, cell.source
        if "long-lesson" in tags(cell):
            assert isinstance(syntax(cell).body[0], ast.FunctionDef | ast.ClassDef)


@every_notebook
def test_folded_cells_have_a_title(path):
    for cell in code_cells(read(path)):
        if folded(cell):
            assert re.match(r"# @title \S", cell.source), cell.source
            assert cell.metadata["cellView"] == "form"
        else:
            assert "cellView" not in cell.metadata and "# @title" not in cell.source


@every_notebook
def test_one_setup_and_one_recap_cell_then_the_lesson(path):
    cells = code_cells(read(path))
    number = path.name[:2]
    assert [cell for cell in cells if "setup" in tags(cell)] == cells[:1]
    recaps = [cell for cell in cells if "recap" in tags(cell)]
    assert len(recaps) == (0 if number == "01" else 1)
    if number not in ("00", "01", "07"):  # 07 installs a package in between
        assert recaps == cells[1:2]
    assert all(folded(cell) for cell in cells[:1] + recaps)


def test_copies_are_as_the_script_writes_them(monkeypatch, capsys):
    import recaps

    monkeypatch.setattr("sys.argv", ["recaps.py", "--check"])
    assert recaps.main() == 0, f"run recaps.py: {capsys.readouterr().out}"


@every_lesson
def test_a_prediction_comes_before_the_result(path):
    """After "Predict:" the stored output is collapsed, and only there."""
    notebook = read(path)
    asked, count = False, 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            asked = "Predict:" in cell.source.replace('"Predict:"', "")  # 00 explains the word
            assert not asked or "\n\nPredict:" in "\n\n" + cell.source, "begin a paragraph with it"
            continue
        if not cell.outputs:
            continue
        hidden = cell.metadata.get("jupyter", {}).get("outputs_hidden", False)
        assert hidden == asked, cell.source
        assert cell.metadata.get("collapsed", False) == asked, cell.source
        count += asked
        asked = False
    assert count >= 1, "ask the reader to predict something"


# --- exercises ----------------------------------------------------------------------------------


def section(notebook, heading):
    """The cells from an H2 heading to the next one."""
    inside, cells = False, []
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and re.search(r"^## ", cell.source, re.M):
            inside = bool(re.search(rf"^## {heading}$", cell.source, re.M))
        if inside:
            cells.append(cell)
    return cells


def text_of(cells):
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@every_lesson
def test_three_exercises_and_their_solutions(path):
    notebook = read(path)
    headings = re.findall(r"^## (.+)", text_of(notebook.cells), re.M)
    assert headings[-3:] == ["What we learned", "Exercises", "Solutions"]
    exercises, solutions = section(notebook, "Exercises"), section(notebook, "Solutions")
    heading = r"^### Exercise (\d)\n\n\*([\w ]+) · \d+(?: to \d+)? minutes · \[solution]"
    assert re.findall(heading + r"\(#Solution-\1\)\*", text_of(exercises), re.M) == [
        ("1", "Change and see"),
        ("2", "Write and check"),
        ("3", "Experiment"),
    ]
    heading = r"^### Solution (\d)\n\n\*\[back to exercise \1]\(#Exercise-\1\)\*"
    assert re.findall(heading, text_of(solutions), re.M) == ["1", "2", "3"]
    for cell in solutions:
        if cell.cell_type == "code":
            assert folded(cell) and "solution" in tags(cell)
    assert sum(cell.cell_type == "code" for cell in solutions) >= 3
    assert not any("solution" in tags(cell) for cell in notebook.cells if cell not in solutions)


@every_lesson
def test_each_lesson_has_a_check_and_its_stored_verdicts_are_right(path):
    cells = code_cells(read(path))
    checks = [cell for cell in cells if "check" in tags(cell)]
    names = re.findall(r"^def check_(\w+)\(", "\n".join(cell.source for cell in checks), re.M)
    assert names and all(folded(cell) for cell in checks)
    for name in names:
        (stub,) = (cell for cell in cells if f"check_{name}({name})" in cell.source)
        (solved,) = (cell for cell in cells if f"check_{name}({name}_solution)" in cell.source)
        assert "exercise" in tags(stub) and not folded(stub)
        assert "Not done yet" in printed(stub)
        assert "solution" in tags(solved)
        assert re.search(r"^Correct", printed(solved), re.M)


# --- words --------------------------------------------------------------------------------------

BANNED = (
    r"pictures?|set-up|story so far|by heart|over-fitting|overfits? on|hard core|held back|besides"
    r"|anew|upright|other people's|at ease|way back|in use,|hand(ed)? in|dear(er|est)?|half file"
    r"|fall of P|running deviation|whole numbers?|five views|nothing bent|given up"
)
ALLOWED = ("Dear reader, I am not a picture.",)


def sources():
    for path in NOTEBOOKS:
        for cell in read(path).cells:
            yield path.name, cell.source
    names = ["README.md", "CONTRIBUTING.md", "TEACHING.md", "data/README.md"]
    names += ["data/get_mnist.py", "run.py", "recaps.py", "badges.py"]
    names += ["tests/benchmarks/benchmark.py"]
    names += [str(path.relative_to(ROOT)) for path in sorted((ROOT / "web").iterdir())]
    for name in names:
        yield name, Path(ROOT / name).read_text(encoding="utf-8")


def test_the_words_are_those_of_the_field():
    found = []
    for name, text in sources():
        for sentence in ALLOWED:
            text = text.replace(sentence, "")
        for match in re.finditer(rf"\b({BANNED})\b", text, re.I):
            found.append(f"{name}: …{text[max(0, match.start() - 40) : match.end() + 30]!r}")
    assert not found, "\n".join(found)


def test_percentages_are_written_without_a_space():
    found = [
        f"{name}: {hit}" for name, text in sources() for hit in re.findall(r"\d %(?!\w)", text)
    ]
    assert not found, found
