"""What goes from data/benchmarks.csv into notebook 08, and from the notebooks into the table.

Notebook 08 is often opened without its folder, and it should show the real measurements there, too.
So it holds a compact copy: counts, and bits that say which runs share their errors, but no lists of
images. And the training runs of the notebooks have seen the test set, so the table lists them, too.
`python tests/benchmarks/benchmark.py notebooks` writes both, and tests hold both to account.
"""

import re

import nbformat
import numpy as np
from conftest import NOTEBOOKS, code_cells, read
from recipes import EIGHT, STORED_NAMES, WHOLE

# The recipes of which 08 compares the single images that they get wrong
COMPARED = ["keras-io", "ours-04-plain", "ours-04", "deotte", "ours-08-10", "ours-08"]
COMPARED += ["ours-wide", "ours-wide-60k", "ghouzam"]
IN_FOLDS = ["ours-04", "ours-08", "ours-12", "ours-wide", "ghouzam"]  # the same for the six folds
TITLE = "# @title Data: what the stored training runs measured"
CELL = """{title}
# Written by `python tests/benchmarks/benchmark.py notebooks` from data/benchmarks.csv
from io import StringIO

import pandas as pd

# Training runs that have seen the test set. counts: 1 if it belongs to its recipe as it is
# today; first_half: its errors on the first 5,000 test images; gflops: of a matrix product
TESTED = \"\"\"\\
recipe,counts,epochs,images,mmac,parameters,val_errors,test_errors,first_half,seconds,gflops
{tested}
\"\"\"
tested = pd.read_csv(StringIO(TESTED))
# Which images each run gets wrong, one run in a line: the recipe, its seed, and one bit for each
# image that any of the runs on the same images gets wrong, four bits in a hexadecimal digit
WRONG_ON_TEST = \"\"\"\\
{on_test}
\"\"\"
WRONG_IN_ABLATION = \"\"\"\\
{in_ablation}
\"\"\"
WRONG_IN_FOLDS = \"\"\"\\
{in_folds}
\"\"\"
# The same folds: some changes of the whole network, in 12 epochs
WRONG_IN_LONG_ABLATION = \"\"\"\\
{in_long_ablation}
\"\"\"
# Test images that every run of ours-08 gets wrong
ALWAYS_WRONG = {always_wrong}
"""


def numbers(text):
    """Turn "17 203" into {17, 203}; an empty cell of the table holds no numbers."""
    return set(map(int, text.split())) if isinstance(text, str) else set()


def packed(runs):
    """Write runs on the same images, [(name, seed, set of images)], as lines."""
    images = sorted(set().union(*(wrong for _, _, wrong in runs)))
    lines = []
    for name, seed, wrong in runs:
        bits = np.packbits([image in wrong for image in images])
        lines.append(f"{name}: {seed} {bits.tobytes().hex()}")
    return lines


def tested_rows(table, counted):
    """The training runs that have seen the test set, as lines of a CSV file.

    Without those in the notebooks: a new execution of 08 would change what it shows.
    """
    lines = []
    seen = table[table["test_errors"].notna() & table["group"].ne("notebooks")]
    for index, run in seen.iterrows():
        name = run["recipe"]
        if run["group"] == "search":
            name = "smaller shifts" if "shift" in name else "narrower network"
        images = numbers(run["test_wrong"])
        values = [
            *(name, int(index in counted or run["group"] == "controls")),
            *(run["epochs"], run["training_images"], run["mmac"], run["parameters"]),
            *(run["val_errors"], run["test_errors"]),
            sum(image < 5000 for image in images) if images else np.nan,
            *(run["training_seconds"], run["matmul_gflops"]),
        ]
        texts = [f"{v:.9g}" if isinstance(v, float) else str(v) for v in values]
        lines.append(",".join("" if text == "nan" else text for text in texts))
    return "\n".join(lines)


def on_test(table, counted):
    """Return the lines of WRONG_ON_TEST, for runs that count, and ALWAYS_WRONG."""
    known = table[table["test_wrong"].notna() & table["recipe"].isin(COMPARED)]
    known = known[known.index.isin(counted) | known["group"].eq("controls")]
    known = known.sort_values("recipe", key=lambda names: names.map(COMPARED.index), kind="stable")
    columns = known["recipe"], known["seed"], map(numbers, known["test_wrong"])
    lines = packed(list(zip(*columns, strict=True)))
    always = map(numbers, known.loc[known["recipe"] == "ours-08", "test_wrong"])
    return lines, sorted(set.intersection(*always))


def in_ablation(table):
    """Return the lines of WRONG_IN_ABLATION; each seed has its own images."""
    rows = table[table["group"].eq("changes") & table["superseded"].isna()]
    today = {stored: name for name, stored in STORED_NAMES.items()}
    rows = rows.assign(recipe=rows["recipe"].replace(today))
    lines = []
    for seed, runs in rows.groupby("seed"):
        runs = runs.set_index("recipe")
        sets = [(name, seed, numbers(runs["val_wrong"][name])) for name in EIGHT["CHANGES"]]
        views = numbers(runs["val_wrong_views"]["the recipe"])
        lines += packed([*sets, ("test-time augmentation", seed, views)])
    return lines


def in_folds(table, recipes):
    """Return lines as `packed` for the folds of some recipes; each fold has its own images."""
    rows = table[table["group"].eq("folds") & table["superseded"].isna()]
    rows = rows[rows["recipe"].isin(recipes)]
    lines = []
    for seed, runs in rows.groupby("seed"):
        runs = runs.sort_values("recipe", key=lambda names: names.map(recipes.index))
        names, wrong = runs["recipe"].str.removeprefix("whole: "), map(numbers, runs["val_wrong"])
        lines += packed([(name, seed, w) for name, w in zip(names, wrong, strict=True)])
    return lines


def in_long_ablation(table):
    """Return the lines of WRONG_IN_LONG_ABLATION: the changes that all six folds have tried."""
    tried = table.loc[table["group"].eq("folds") & table["superseded"].isna(), "recipe"]
    counts = tried.value_counts()
    return in_folds(table, [name for name in WHOLE if counts.get(name, 0) == 6])


def cell_source(table, counted):
    """Return the source of the notebook's cell. counted: the rows of the table that count."""
    test_lines, always_wrong = on_test(table, counted.index)
    return CELL.format(
        title=TITLE,
        tested=tested_rows(table, counted.index),
        on_test="\n".join(test_lines),
        in_ablation="\n".join(in_ablation(table)),
        in_folds="\n".join(in_folds(table, IN_FOLDS)),
        in_long_ablation="\n".join(in_long_ablation(table)),
        always_wrong=always_wrong,
    ).strip()


def write(table, counted):
    """Write the cell into notebook 08. Returns whether that has changed it."""
    path = next(path for path in NOTEBOOKS if path.name.startswith("08"))
    notebook, source = read(path), cell_source(table, counted)
    (cell,) = (cell for cell in notebook.cells if cell.source.startswith(TITLE))
    changed, cell.source = cell.source != source, source
    if changed:
        nbformat.write(notebook, path)
    return changed


def stored_runs():
    """Return {recipe: columns of its row} for what the notebooks have trained and stored."""
    printed = {}
    for path in NOTEBOOKS:
        outputs = [output for cell in code_cells(read(path)) for output in cell.outputs]
        printed[path.name[:2]] = "".join(output.get("text", "") for output in outputs)
    runs, purpose = {}, "outputs stored in the notebook"
    for number, name, seed, sentence in (
        ("03", "05", 42, r"without augmentation .*: (\d+) errors in 10,000"),
        ("04", "05", 42, r"with augmentation .*: (\d+) errors in 10,000"),
        ("08", "08", 0, r"08's network after \d+ epochs .*: (\d+) errors in 10,000"),
    ):
        if found := re.search(f"Test accuracy (?:of )?{sentence}", printed[name]):
            epochs = re.findall(r"^Epoch \d+/(\d+)$", printed[number], re.M)
            row = {"epochs": int(epochs[0]), "seed": seed, "test_errors": int(found[1])}
            runs[f"notebook {number}"] = row | {"purpose": purpose}
    found = {
        who: re.search(rf"^{who} +(.+) errors(?:, (\d+) seeds)?$", printed["10"], re.M)
        for who in ("single networks", "students", "ensemble")
    }
    if all(found.values()):  # one row for all of its networks
        singles, students, ensemble = found.values()
        row = {"seed": int(singles[2]), "members": int(singles[2])}
        row |= {"ensemble_errors": int(ensemble[1])}
        single = f"{singles[2]} single networks {singles[1]} test errors"
        row["purpose"] = f"{purpose}: {single}, {students[2]} students {students[1]}"
        runs["notebook 10"] = row
    return runs


def benchmark_name(notebook, run):
    """Return what the benchmark calls the recipe of a notebook's run, or None."""
    names = {"notebook 04": "ours-04", "notebook 08": f'{{"epochs": {run.get("epochs")}}}'}
    return names.get(notebook)


def not_in_table(table):
    """Return what of stored_runs the table does not have as the last execution of its notebook."""
    rows = table[table["group"].eq("notebooks") & table["superseded"].isna()]
    known = {row["recipe"]: row for row in rows.to_dict("records")}
    return {
        name: run
        for name, run in stored_runs().items()
        if any(known.get(name, {}).get(column) != value for column, value in run.items())
    }
