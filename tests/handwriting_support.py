"""What the tests of notebook 07 share: its functions, loaded without running it, and the model."""

import ast
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import nbformat
import numpy as np
import pictures

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "07-read-your-own-handwriting.ipynb"


def definitions(notebook):
    """Return a name space with everything that the notebook imports and defines, and no more.

    Imports, functions and classes of all code cells are executed, and assignments of texts and
    numbers such as PAD_SCRIPT; nothing else.
    """
    body = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type != "code" or "%pip" in cell.source:
            continue
        for node in ast.parse(cell.source).body:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            constant = isinstance(node, ast.Assign | ast.AugAssign) and isinstance(
                node.value, ast.Constant
            )
            constant = constant and all(isinstance(target, ast.Name) for target in targets)
            kinds = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
            if constant or isinstance(node, kinds):
                body.append(node)
    names = {"__name__": "notebook_07", "DATA": ROOT / "data"}
    exec(compile(ast.Module(body, type_ignores=[]), str(notebook), "exec"), names)
    return names


def data_file():
    """The data that the notebooks use: what DIGITS_DATA names, MNIST, or the stand-in."""
    for path in (
        os.environ.get("DIGITS_DATA"),
        ROOT / "data/mnist.npz",
        ROOT / "data/stand-in.npz",
    ):
        if path and Path(path).exists():
            return Path(path).resolve()
    return None


def load_model(names, folder):
    """Load model.keras from `folder`, or train a quick one, with the notebook's own functions."""
    names["DATA"] = folder
    (x_all, y_all), _, name = names["load_digits"]()
    names["data_name"] = name
    names["x_train"], _, names["y_train"], _ = names["split"](names["scale"](x_all), y_all)
    names["model"] = names["load_or_train"]("model.keras")
    return names["model"]


def page_digits(part):
    """The MNIST pictures and labels of which `part`'s pages are made; None without MNIST."""
    with np.load(data_file()) as file:
        return pictures.mnist_part(file["x_train"], file["y_train"], part)


__all__ = ["NOTEBOOK", "ROOT", "data_file", "definitions", "keras", "load_model", "page_digits"]
