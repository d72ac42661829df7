"""Train notebook 04's model from several random starts and append what comes out to seeds.csv.

    python tests/benchmarks/seeds.py 1 2 3

Needs data/mnist.npz. Each seed runs the code of notebook 04 in an empty folder, with only the
random start changed, then scores the model it leaves on the test set. A seed that is already in
the table is not run again, so the script can be interrupted and continued.
"""

import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = Path(__file__).with_name("seeds.csv")
TIMING = """
import time
started = time.perf_counter()
{fit}
print("SECONDS OF TRAINING", round(time.perf_counter() - started, 1))
"""


def script_of_04(seed):
    """Return notebook 04 as a script that starts from `seed` and times its training."""
    notebook = nbformat.read(next((ROOT / "notebooks").glob("04-*.ipynb")), as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    cells[0], count = re.subn(r"set_random_seed\(\d+\)", f"set_random_seed({seed})", cells[0])
    fit = [k for k, cell in enumerate(cells) if cell.startswith("training.fit(")]
    assert count == 1 and len(fit) == 1, "notebook 04 has changed: adapt this script"
    cells[fit[0]] = TIMING.format(fit=cells[fit[0]])
    augmentation = r"RandomAffine\(seed=2\)"
    source, count = re.subn(augmentation, f"RandomAffine(seed={1000 + seed})", "\n\n".join(cells))
    assert count == 1, "notebook 04 has changed: adapt this script"
    return source


def run(seed):
    """Train and score once. Returns a dict, one row of the table."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        data.mkdir()
        (data / "mnist.npz").symlink_to(ROOT / "data" / "mnist.npz")
        Path(folder, "training.py").write_text(script_of_04(seed), encoding="utf-8")
        printed = subprocess.run(
            [sys.executable, "training.py"],
            cwd=folder,
            env=os.environ | {"MPLBACKEND": "agg"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        ).stdout
        model = keras.models.load_model(data / "model.keras")
        history = pd.read_csv(data / "history.csv")
    with np.load(ROOT / "data" / "mnist.npz") as file:
        x_test, y_test = file["x_test"], file["y_test"]
    answers = model.predict(x_test[..., None].astype("float32") / 255, verbose=0).argmax(axis=1)
    return {
        "seed": seed,
        "epochs": len(history),
        "training_seconds": float(re.search(r"SECONDS OF TRAINING ([\d.]+)", printed)[1]),
        "best_val_accuracy": history["val_accuracy"].max().round(4),
        "test_errors": int((answers != y_test).sum()),
        "parameters": model.count_params(),
        "keras": keras.__version__,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "date": datetime.date.today().isoformat(),
    }


def main():
    rows = pd.read_csv(TABLE).to_dict("records") if TABLE.exists() else []
    for seed in map(int, sys.argv[1:]):
        if seed in [row["seed"] for row in rows]:
            print(f"seed {seed} is in the table already")
            continue
        rows.append(run(seed))
        print(rows[-1], flush=True)
        part = TABLE.with_suffix(".part")
        pd.DataFrame(rows).to_csv(part, index=False)
        part.replace(TABLE)
    if rows:
        accuracy = 100 - pd.DataFrame(rows)["test_errors"] / 100
        print(f"{len(rows)} trainings: mean {accuracy.mean():.2f} %, SD {accuracy.std():.2f} %")


if __name__ == "__main__":
    main()
