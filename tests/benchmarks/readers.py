"""What each source of training images contributes to the reader of notebook 09.

A reader is trained as the notebook trains it, but one thing is left out. It is measured on images
that it is not trained on; the pages and MNIST's digits are from the half of the validation images
that the notebook uses for development, so its own result on the other half stays what it is.
"""

import tempfile
from pathlib import Path

import keras
import numpy as np
from conftest import ROOT, definitions, run_cells
from sklearn.metrics import roc_auc_score

MODEL = ROOT / "data" / "model.keras"  # of notebook 04: what the readers are trained further from
N_IMAGES = 1000  # as in the notebook, which trains on about 44 times as many images
N_PAGES = 10
CELLS = ["from itertools import chain ", "# @title STYLES", "# @title draw_example"]  # its data


def notebook_09(folder):
    """Return a new namespace with notebook 09's functions and its data."""
    names = run_cells(definitions("09", DATA=ROOT / "data"), "09", *CELLS)
    names["DATA"] = Path(folder)  # the readers themselves are not kept
    # What is left out below would not reach other processes
    names["Parallel"] = lambda n_jobs: lambda jobs: [f(*args, **kw) for f, args, kw in jobs]
    return names


def without_source(names, gone):
    """Let MNIST's digits take the place of a source, "Turkish" or "drawn"."""
    draw = names["draw_example"]
    names["draw_example"] = lambda rng, sources, source: draw(
        rng, sources, "MNIST" if source == gone else source
    )


def without_shear(names):
    """Let the shear be as small as that of straight lines is."""
    distort = names["distort"]
    names["distort"] = lambda image, rng, shear=0.4, *others: distort(
        image, rng, min(shear, 0.1), *others
    )


def without_pens(names):
    """Let single digits keep the width of their pen."""
    names["with_any_pen"] = lambda shape, rng: (
        names["fit_in_frame"](shape) if shape.sum() >= 4 else np.zeros((28, 28), "float32")
    )


LEFT_OUT = {
    "reader": lambda names: None,
    "reader without digits from Turkey": lambda names: without_source(names, "Turkish"),
    "reader without drawn digits": lambda names: without_source(names, "drawn"),
    "reader without touching digits": lambda names: names.update(
        candidates=lambda labels, owner, rng: ([], [])
    ),
    "reader without letters and scribbles": lambda names: names.update(
        draw_other=lambda rng: np.zeros((56, 56), bool)  # nothing on it: not a digit, either
    ),
    "reader without strong shear": without_shear,
    "reader without other pens": without_pens,
}


def read_pages(names, reader):
    """Read generated pages: how many digits are on them, how many are lost or wrong, and false."""
    counts = np.zeros(3, int)
    for seed in range(N_PAGES):
        rng = np.random.default_rng([2025, seed])
        page, height, truth = names["write_page"](names["x_dev"], names["y_dev"], rng)
        line = 0.25 if seed % 2 else 0.45
        photo = names["take_photo"](page, height, rng, squared=seed % 3 == 2, line=line)
        correct, false = names["count_page"](truth, names["read_digits"](photo, reader))
        written = sum(map(len, truth))
        counts += [written, written - correct, false]
    return counts


def measure_reader(name, seed):
    """Train a reader and measure it. Returns a dict: the columns of a row that it determines.

    Raises FileNotFoundError if notebook 04 has left no model.
    """
    if not MODEL.exists():
        raise FileNotFoundError(f"{MODEL} is missing: run notebook 04 first")
    with tempfile.TemporaryDirectory() as folder:
        names, changed = notebook_09(folder), notebook_09(folder)
        LEFT_OUT[name](changed)
        model = keras.models.load_model(MODEL)
        keras.utils.set_random_seed(seed)
        reader = changed["train_reader"](model, N_IMAGES)
    sources = {
        "MNIST": (names["x_dev"], names["y_dev"]),
        "Turkish": (names["x_turkey_heldout"], names["y_turkey_heldout"]),
    }
    images, classes = names["make_reader_data"](np.random.default_rng(2), sources, 60)
    is_other = classes == names["NOT_A_DIGIT"]
    wrong = {}
    prepared = [names["to_mnist_style"](np.kron(i, np.ones((4, 4)))) for i in sources["Turkish"][0]]
    for source, x in (("MNIST", sources["MNIST"][0]), ("Turkish", np.array(prepared))):
        digits = reader.predict(x[..., np.newaxis], verbose=0)[:, :10].argmax(axis=1)
        wrong[source] = digits != sources[source][1]
    n_written, n_lost, n_false = read_pages(names, reader)
    return {
        "data": names["data_name"],
        "val_images": len(wrong["MNIST"]),
        "val_errors": int(wrong["MNIST"].sum()),
        "val_wrong": " ".join(map(str, np.flatnonzero(wrong["MNIST"]))),
        "turkish_images": len(wrong["Turkish"]),
        "turkish_errors": int(wrong["Turkish"].sum()),
        "auroc": round(roc_auc_score(is_other, reader.predict(images, verbose=0)[:, -1]), 5),
        "page_digits": int(n_written),
        "page_errors": int(n_lost),
        "page_false": int(n_false),
    }
