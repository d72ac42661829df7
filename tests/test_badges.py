"""badges.py, on copies: badges are written, replaced and taken out again without a trace."""

import json
import os
import re
import shutil

import pytest
import test_results
import test_structure
from conftest import NOTEBOOKS, ROOT, read

import badges

LINK = re.compile(
    r"\[!\[Open in Colab\]\(https://colab\.research\.google\.com/assets/colab-badge\.svg\)\]"
    r"\(https://colab\.research\.google\.com/github/([^)]*)/blob/([^)]*)/notebooks/([^)/]*)\)"
)


@pytest.fixture
def tree(tmp_path):
    """A copy of what the badges are written into; without badges, should they be in already."""
    (tmp_path / "notebooks").mkdir()
    for path in [ROOT / "README.md", *NOTEBOOKS]:
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    assert badges.main([""], tmp_path) == 0
    return tmp_path


def content(tree):
    return {path.relative_to(tree): path.read_bytes() for path in tree.rglob("*.*")}


def links(path):
    return LINK.findall(path.read_text(encoding="utf-8"))


def test_notebooks_are_laid_out_as_jupyter_writes_them():
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n" == text, path.name


def test_written_replaced_and_taken_out_again(tree, capsys):
    before = content(tree)
    assert badges.main(["ann/digits"], tree) == 0
    names = [path.name for path in NOTEBOOKS]
    assert links(tree / "README.md") == [("ann/digits", "main", name) for name in names]
    for name in names:
        assert links(tree / "notebooks" / name) == [("ann/digits", "main", name)]
    assert badges.main(["Bob-2/my.digits_3", "--branch", "draft/v2"], tree) == 0
    for path in [tree / "README.md", *(tree / "notebooks" / name for name in names)]:
        assert {link[:2] for link in links(path)} == {("Bob-2/my.digits_3", "draft/v2")}
    assert f"{len(names) + 1} files changed" in capsys.readouterr().out
    assert badges.main([""], tree) == 0
    assert content(tree) == before


def test_a_second_run_changes_nothing(tree, capsys):
    badges.main(["ann/digits"], tree)
    before = content(tree)
    capsys.readouterr()
    assert badges.main(["ann/digits"], tree) == 0
    assert "0 files changed" in capsys.readouterr().out
    assert content(tree) == before


def test_lines_that_end_as_on_windows_stay_so(tree):
    for path in tree.rglob("*.*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    before = content(tree)
    assert badges.main(["ann/digits"], tree) == 0
    assert content(tree) != before
    assert badges.main([""], tree) == 0
    assert content(tree) == before


def test_every_link_names_a_file_that_is_there(tree):
    badges.main(["ann/digits"], tree)
    for path in [tree / "README.md", *(tree / "notebooks").iterdir()]:
        for _, _, name in links(path):
            assert (ROOT / "notebooks" / name).exists(), name


def test_notebooks_with_badges_are_still_lessons(tree, monkeypatch):
    badges.main(["ann/digits"], tree)
    copies = sorted((tree / "notebooks").iterdir())
    monkeypatch.setattr(test_structure, "NOTEBOOKS", copies)
    for path in copies:
        test_structure.test_begins_and_ends_as_a_lesson(path)
        test_structure.test_links_lead_somewhere(path)
        first_line = read(path).cells[0].source.splitlines()[0]
        assert first_line.startswith("[") and LINK.search(first_line)


def test_readme_with_badges_is_still_right(tree):
    before = (tree / "README.md").read_text(encoding="utf-8")
    badges.main(["ann/digits"], tree)
    after = (tree / "README.md").read_text(encoding="utf-8")
    test_results.check_links_and_commands(after, ROOT)
    for old, new in zip(before.splitlines(), after.splitlines(), strict=True):
        assert new.count("|") == old.count("|"), "as many columns as before"
        assert new.split("|")[2:] == old.split("|")[2:], "only the first column has changed"


@pytest.mark.parametrize(
    "arguments",
    [
        ["digits"],
        ["ann/"],
        ["/digits"],
        ["ann/.."],
        ["ann/digits/notebooks"],
        ["ann/digits.git"],
        ["https://github.com/ann/digits"],
        ["ann/digits)"],
        ["ann/digits\n"],
        [" "],
        ["ann/digits", "--branch", ""],
        ["ann/digits", "--branch", "a b"],
        ["ann/digits", "--branch", "a)"],
        [],
    ],
    ids=str,
)
def test_a_bad_name_is_refused_and_nothing_changes(tree, arguments, capsys):
    badges.main(["ann/digits"], tree)
    before = content(tree)
    with pytest.raises(SystemExit) as refusal:
        badges.main(arguments, tree)
    assert refusal.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert content(tree) == before


@pytest.mark.parametrize("where", ["README.md", "notebook"])
def test_without_a_place_for_every_badge_nothing_changes(tree, where, capsys):
    path = tree / "README.md" if where == "README.md" else tree / "notebooks" / NOTEBOOKS[-1].name
    text = path.read_text(encoding="utf-8")
    if where == "README.md":
        text = text.replace(f"(notebooks/{NOTEBOOKS[-1].name})", "(elsewhere)")
    else:
        text = text.replace('"[', '"Links: [', 1)
    path.write_bytes(text.encode("utf-8"))
    before = content(tree)
    assert badges.main(["ann/digits"], tree) == 1
    said = capsys.readouterr().err
    assert path.name in said and "no place for" in said
    assert content(tree) == before


def test_a_failed_write_leaves_whole_files(tree, monkeypatch, capsys):
    def full(*_):
        raise OSError("No space left on device")

    before = content(tree)
    monkeypatch.setattr(os, "replace", full)
    assert badges.main(["ann/digits"], tree) == 1
    assert "No space left" in capsys.readouterr().err
    assert content(tree) == before
