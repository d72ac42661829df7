"""The script that writes the cells which stand in several notebooks."""

import ast

import pytest

import recaps


def cell(source, *tags):
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": [source]}


LESSONS = [
    recaps.Lesson({"cells": [cell(source) for source in sources]})
    for sources in (
        (
            "import os\nfrom scipy import ndimage as ndi",
            "LIMIT = 3\n\n\ndef area(shape):\n    return ndi.sum_labels(shape) > LIMIT",
        ),
        (
            "from math import pi, sqrt\nimport numpy as np",
            "def radius(shape):\n    os = 1\n    return sqrt(area(shape) / pi) * os",
            "radius = radius(np.ones(3))",
        ),
    )
]
NUMPY = (0, "import numpy as np")


def test_a_recap_has_what_it_needs_before_it_and_nothing_else():
    text = recaps.recap("# @title Recap: radius", LESSONS, {NUMPY})
    assert text.splitlines()[2:] == [
        "from math import pi, sqrt",
        "",
        "from scipy import ndimage as ndi",
        "",
        "LIMIT = 3",
        "",
        "",
        "def area(shape):",
        "    return ndi.sum_labels(shape) > LIMIT",
        "",
        "",
        "def radius(shape):",
        "    os = 1",
        "    return sqrt(area(shape) / pi) * os",
    ]
    ast.parse(text)


def test_what_setup_imports_is_not_imported_again():
    text = recaps.recap("# @title Recap: radius", LESSONS, {NUMPY, (1, "math", "pi")})
    assert "from math import sqrt\n" in text


def test_an_unknown_name_is_named():
    with pytest.raises(SystemExit, match="No notebook defines volume"):
        recaps.recap("# @title Recap: volume", LESSONS, set())


def test_copies_are_written_and_everything_else_stays(tmp_path):
    path = tmp_path / "02-some.ipynb"
    notebook = {
        "cells": [cell("old", "setup"), cell("# @title Recap: area\nold", "recap"), cell("area(1)")]
    }
    changed = recaps.changed_cells(path, notebook, "# @title Setup\nnew", LESSONS, set())
    assert changed == ["# @title Setup", "# @title Recap: area"]
    setup, recap, lesson = (recaps.source(one) for one in notebook["cells"])
    assert setup == "# @title Setup\nnew"
    assert "def area(shape):" in recap and "old" not in recap
    assert lesson == "area(1)"
    assert recaps.changed_cells(path, notebook, setup, LESSONS, set()) == []
