"""Train well-known networks for MNIST and ours on this machine; append the results to a table.

    python tests/benchmarks/benchmark.py                      what there is and what is missing
    python tests/benchmarks/benchmark.py references           every run of a group that is missing
    python tests/benchmarks/benchmark.py ours-08 --seeds 6 7  these runs, if they are missing
    python tests/benchmarks/benchmark.py changes --jobs 2     two at a time, without their times
    python tests/benchmarks/benchmark.py '{"dropout": 0.5}' --seeds 1 2     something new
    python tests/benchmarks/benchmark.py folds ours-04 ours-08    all six folds, with unseen writers
    python tests/benchmarks/benchmark.py notebooks                after new rows, or an execution

Groups: references, published (trained on all 60,000 images, as published), ours, ours-60k (trained
on all 60,000 images, too), controls (notebook 04 without augmentation), changes (a short version of
notebook 08's recipe with one change), ensembles (of notebook 10: "seed" k is the ensemble of the
members with seeds 1 to k; the members stay in data/ensemble-…), streams (so many augmented test
images, scored as in notebook 10; "seed" k is with k workers), races (how long members of notebook
10 take to train: race-4-2 is four members on two workers, race-1-0 one in a single process with all
cores; "seed" k is the k-th repetition), all. And, not in "all": readers (notebook 09's reader, and
what happens without each source of its training images; never scored on the test set; this needs
data/model.keras of notebook 04), and, because JAX and PyTorch must be installed, backends (notebook
08's live training on each of Keras' backends, and on TensorFlow without oneDNN, which the setup
cell switches on; never scored on the test set).
What is given as JSON is a change of that recipe itself and goes into the table as group "search":
what was tried on the way. "distortion" there holds limits of RandomDistortion, of which "elastic"
is called "bend" in old rows. JSON may also name what EXTRAS in recipes.py describes.

"folds" trains the recipes named after it (ours-04, ours-08, and ghouzam, if none is) six times, and
never looks at the test set: each time another sixth of the 60,000 training images, in a row and so
mostly by unseen writers, is only scored. Of the rest, a twelfth is held out for the recipe's own
decisions, such as its best epoch. The recipes take turns, fold by fold. "folds whole" does this for
the changes, too, with notebook 08's whole network and 12 epochs; "folds 'whole: no augmentation'"
for one of them, and JSON for something new.

"notebooks" writes what notebook 08 shows of the table into it (then it has to be executed), and the
test errors that the notebooks themselves have stored into the table.

The table is data/benchmarks.csv (on another machine, begin your own: --table mine.csv). A row is
added when its run is finished, and what the table contains already is not run again: interrupt this
script whenever you like, and continue with the same command. An interrupted run begins again. The
script needs data/mnist.npz. Each run has a process to itself. If you use the machine meanwhile, its
times are not valid. No row may ever be removed: a recipe that has changed has another hash, and
its old rows say in "superseded" what has replaced them.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = ROOT / "data" / "benchmarks.csv"
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

# --- what is to be run -------------------------------------------------------------------------

GROUPS = {
    "references": {"ghouzam": 2, "deotte": 1, "keras-io": 3, "train-mnist-fast": 10},
    "published": {"train-mnist-fast-60k": 15},
    "ours-60k": {"ours-wide-60k": 5},
    "ours": {"ours-04": 5, "ours-08": 5, "ours-08-10": 3, "ours-wide": 5, "ours-fast": 10},
    "controls": {"ours-04-plain": 3},
    "ensembles": {"ensemble-quick": 20, "ensemble-ours-08": 20},
    "streams": {"stream-40000": 2, "stream-1000000": 2},
    "races": {f"race-{race}": 3 for race in ("1-0", "1-1", "2-1", "2-2", "4-1", "4-2")},
}
TRAINED_ON_ALL = ("published", "ours-60k")  # no image is held out
FOLDS = {"ours-04": 6, "ours-08": 6, "ours-12": 6, "ours-wide": 6, "ghouzam": 6}
BACKENDS = {
    "backend-tensorflow": 2,
    "backend-tensorflow-without-onednn": 2,
    "backend-jax": 2,
    "backend-torch": 2,
}
PURPOSES = {
    "references": "comparison on the test set",
    "published": "comparison on the test set, with all 60,000 images as published",
    "ours-60k": "comparison on the test set, with all 60,000 images",
    "ours": "comparison on the test set",
    "controls": "what augmentation contributes to notebook 04",
    "changes": "ablation of notebook 08's recipe",
    "ensembles": "what an ensemble gains",
    "streams": "how fast images are scored",
    "races": "how the time to train members grows",
    "readers": "what each source of training images contributes to notebook 09's reader",
    "folds": "comparison on unseen writers, without the test set",
    "backends": "comparison of Keras' backends, without the test set",
    "search": "search for a better recipe",
}
CAPTURED = {"check": True, "capture_output": True, "text": True}
HELD_OUT = {True: "at random", False: "in a row"}  # whether a group is scored on the test set


def names_in(group):
    """Return {name of a recipe: how many seeds of it are wanted} for a group."""
    if group in GROUPS:
        return GROUPS[group]
    if group == "folds":
        return FOLDS
    if group == "backends":
        return BACKENDS
    if group == "readers":
        from readers import LEFT_OUT

        return dict.fromkeys(LEFT_OUT, 2)
    from recipes import CHANGES

    return dict.fromkeys(CHANGES, 5)


# --- one run -----------------------------------------------------------------------------------


def multiply_accumulates(model):
    """Count the multiply-accumulates of convolutions and dense layers for one image."""
    import keras
    from recipes import EIGHT

    return sum(
        multiply_accumulates(layer)
        if isinstance(layer, keras.Sequential)
        else EIGHT["count_macs"](layer)
        for layer in model.layers
    )


def matmul_gflops(size=2048, repeats=5):
    """Measure how fast this machine multiplies float32 matrices, in 10⁹ operations a second."""
    from keras import ops, random

    a, seconds = random.normal((size, size)), []
    ops.convert_to_numpy(ops.matmul(a, a))
    for _ in range(repeats):
        started = time.perf_counter()
        ops.convert_to_numpy(ops.matmul(a, a))
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / sorted(seconds)[repeats // 2] / 1e9


def peak_memory_mb():
    """Return the most memory this process has had, in MiB; None where that cannot be asked."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def places(wrong):
    """Write down where a bool array is true: "17 203 4711"."""
    return " ".join(str(place) for place in wrong.nonzero()[0])


def fold(n, seed):
    """Return which of n images are held out with this seed: bool (n,), true for a sixth in a row.

    MNIST has its images writer after writer, so these are mostly by people not trained on.
    """
    return np.arange(n) * 6 // n == seed % 6


def divide(group, seed, x_all, y_all):
    """Divide the training images (n, 28, 28) and labels (n,) as a group does.

    Returns (x_train, y_train), (x_val, y_val), (x_scored, y_scored): what a recipe trains on, what
    it may look at while it trains, and the held-out images that the table counts its errors on.
    For TRAINED_ON_ALL, the other two are empty.
    """
    from conftest import definitions

    scale, split = (definitions("02", f)[f] for f in ("scale", "split"))
    if group in TRAINED_ON_ALL:
        return (scale(x_all), y_all), (scale(x_all[:0]), y_all[:0]), (scale(x_all[:0]), y_all[:0])
    if group in GROUPS:
        x_train, x_val, y_train, y_val = split(scale(x_all), y_all)
        return (x_train, y_train), (x_val, y_val), (x_val, y_val)
    held_out = fold(len(y_all), seed)
    scored = scale(x_all[held_out]), y_all[held_out]
    x_rest, y_rest = scale(x_all[~held_out]), y_all[~held_out]
    if group == "folds":
        x_train, x_val, y_train, y_val = split(x_rest, y_rest)
        return (x_train, y_train), (x_val, y_val), scored
    return (x_rest, y_rest), scored, scored  # these recipes make no use of what they see


def run(name, seed, group=None, purpose=None):
    """Train one recipe with one seed. Returns a dict, one row of the table.

    group: the recipe's own, if it is not given; or "folds".
    """
    import keras
    from conftest import definitions
    from recipes import Stopwatch, find, recipe_hash, recompute_statistics
    from sklearn.metrics import log_loss

    load_digits = definitions("01", "load_digits", "MNIST_SHA256", DATA=ROOT / "data")
    (x_all, y_all), (x_test, y_test), data_name = load_digits["load_digits"]()
    own_group, train = find(name)
    group = group or own_group
    (x_train, y_train), (x_val, y_val), (x_scored, y_scored) = divide(group, seed, x_all, y_all)
    one_hot = keras.utils.to_categorical

    speed = [matmul_gflops()]
    keras.utils.set_random_seed(seed)
    stopwatch = Stopwatch()
    model = train((x_train, one_hot(y_train, 10)), (x_val, one_hot(y_val, 10)), seed, stopwatch)
    speed.append(matmul_gflops())
    seconds, macs = stopwatch.seconds, multiply_accumulates(model)
    held_out = "none" if group in TRAINED_ON_ALL else HELD_OUT[group in GROUPS]
    row = {
        "recipe": name,
        "group": group,
        "seed": seed,
        "epochs": stopwatch.epochs,
        "training_images": len(x_train),
        "parameters": model.count_params(),
        "mmac": round(macs / 1e6, 3),
        "held_back": held_out,
        "val_images": len(x_scored),
    }
    if len(x_scored):
        probabilities = model.predict(x_scored, batch_size=500, verbose=0).astype("float64")
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        misclassified = probabilities.argmax(axis=1) != y_scored
        row["val_errors"], row["val_wrong"] = int(misclassified.sum()), places(misclassified)
        row["val_loss"] = round(log_loss(y_scored, probabilities, labels=range(10)), 5)
    if group == "controls":
        row["curves"] = json.dumps(stopwatch.curves)
    if group == "changes" and getattr(train, "predict_tta", None):
        row["val_wrong_views"] = places(
            train.predict_tta(model, x_scored).argmax(axis=1) != y_scored
        )
    if group == "folds" and hasattr(train, "extras"):  # 08's network
        recompute_statistics(model, x_train[:10_000])
        recomputed = model.predict(x_scored, batch_size=500, verbose=0).argmax(axis=1)
        row["val_wrong_recomputed"] = places(recomputed != y_scored)
    if group in GROUPS:
        scale = definitions("02", "scale")["scale"]
        wrong = model.predict(scale(x_test), batch_size=500, verbose=0).argmax(axis=1) != y_test
        row["test_errors"], row["test_wrong"] = int(wrong.sum()), places(wrong)
    if group != "folds" and not os.environ.get("TF_NUM_INTRAOP_THREADS"):  # alone on the machine
        work = 6 * macs * len(x_train) * stopwatch.epochs  # 2 a MAC, forward; twice that, backward
        learns = all(layer.trainable for layer in model.layers)
        row |= {
            "training_seconds": round(seconds, 2),
            "seconds_to_99.0": stopwatch.reached.get(0.990),
            "seconds_to_99.5": stopwatch.reached.get(0.995),
            "training_gflops": round(work / seconds / 1e9, 1) if learns else None,
            "matmul_gflops": round(sum(speed) / 2, 1),
        }
    return row | {
        "peak_memory_mb": peak_memory_mb(),
        **circumstances(data_name),
        "recipe_hash": recipe_hash(name, len(x_train), held_out, data_name),
        "purpose": purpose or PURPOSES[group],
    }


def commit():
    """Name the commit that runs, with a + if tracked files differ from it; None without git."""
    git = ["git", "-C", str(ROOT)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=7", "HEAD"], **CAPTURED).stdout.strip()
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "*.py", "*.ipynb"])
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + "+" * bool(changed.returncode)


def circumstances(data_name):
    """Return the columns of a row that say with which data, where, when, and by which commit."""
    import keras

    backend = keras.backend.backend()
    return {
        "data": data_name,
        "machine": machine(),
        "keras": keras.__version__,
        backend: __import__(backend).__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
    }


def run_ensemble(name, n_members):
    """Train the members with seeds 1 to n_members that are missing. Returns one row of the table.

    The row is about the mean of the members' probabilities. Members are trained as notebook 10
    trains them, in data/ensemble-…, one after the other; an interrupted run continues there.
    """
    from recipes import TEN, recipe_hash, train_for_ensemble
    from sklearn.metrics import log_loss

    network = name.removeprefix("ensemble-")
    (x_all, y_all), (_, y_test), data_name = TEN["load_digits"]()
    _, _, y_train, y_val = TEN["split"](x_all, y_all)
    folder, train = ROOT / "data" / f"{name}-{data_name}", train_for_ensemble(network)
    members = []
    for seed in range(1, n_members + 1):
        file = TEN["train_member"](seed, folder, data_name, train)
        members.append(TEN["read_member"](folder / file, f"{train.__name__} on {data_name}"))
    mean = {part: np.mean([member[part] for member in members], axis=0) for part in ("val", "test")}
    wrong = {
        part: probabilities.argmax(axis=1) != labels
        for (part, probabilities), labels in zip(mean.items(), (y_val, y_test), strict=True)
    }
    probabilities = mean["val"].astype("float64")
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    own = [int((member["test"].argmax(axis=1) != y_test).sum()) for member in members]
    return {
        "recipe": name,
        "group": "ensembles",
        "recipe_hash": recipe_hash(name, len(y_train), "at random", data_name),
        "purpose": PURPOSES["ensembles"],
        "seed": n_members,
        "network": network,
        "members": n_members,
        "training_images": len(y_train),
        "held_back": "at random",
        "val_images": len(y_val),
        "val_errors": int(wrong["val"].sum()),
        "val_wrong": places(wrong["val"]),
        "val_loss": round(log_loss(y_val, probabilities, labels=range(10)), 5),
        "ensemble_errors": int(wrong["test"].sum()),
        "ensemble_wrong": places(wrong["test"]),
        "member_errors": own[-1],
        "peak_memory_mb": peak_memory_mb(),
        **circumstances(data_name),
    }


def run_stream(name, n_workers):
    """Score a stream of augmented test images with n_workers. Returns one row of the table.

    The network is the first member of ensemble-quick. Shards that are there are not written again.
    """
    from distributed import Client
    from recipes import TEN, train_for_ensemble

    _, _, data_name = TEN["load_digits"]()
    members, train = ROOT / "data" / f"ensemble-quick-{data_name}", train_for_ensemble("quick")
    made_from = f"{train.__name__} on {data_name}"
    TEN["train_member"](1, members, data_name, train)
    n_images = int(name.removeprefix("stream-"))
    n_shards = max(1, n_images // 10_000)
    folder = ROOT / "data" / f"stream-{data_name}-{n_images // n_shards}"
    folder.mkdir(exist_ok=True)
    each = {"folder": folder, "n_images": n_images // n_shards}
    network = TEN["rebuild"](TEN["read_member"](members / "member-1.npz", made_from))
    TEN["write_atomically"](folder / "network.keras", network.save)
    where = {"folder": folder, "model_path": folder / "network.keras"}
    with TEN["start_cluster"](n_workers) as cluster, Client(cluster) as client:
        client.register_plugin(TEN["QuietWorker"](folder / "workers.log"))
        names = client.gather(client.map(TEN["write_shard"], range(n_shards), **each))
        client.restart()  # memory is then that of scoring alone
        client.wait_for_workers(n_workers)
        for worker in client.nthreads():  # the first call reads and prepares the network
            only = {"workers": [worker], "pure": False}  # pure: the second call would not run
            client.submit(TEN["score_shard"], names[0], **where, **only).result()
        started = time.perf_counter()
        scored = client.gather(client.map(TEN["score_shard"], names, **where, pure=False))
        seconds = time.perf_counter() - started
    scored = pd.DataFrame(scored)
    return {
        "recipe": name,
        "group": "streams",
        "purpose": PURPOSES["streams"],
        "seed": n_workers,
        "network": "quick",
        "images": int(scored["images"].sum()),
        "stream_errors": int(scored["errors"].sum()),
        "images_per_second": round(scored["images"].sum() / seconds, 1),
        "peak_memory_mb": round(scored["memory_mb"].max() * 1e6 / 2**20),
        **circumstances(data_name),
    }


def run_race(name, repetition):
    """Train members of notebook 10, on workers or in this process. Returns one row of the table.

    The clock starts when the workers are there and have trained something very small.
    """
    from distributed import Client
    from recipes import TEN, recipe_hash, train_for_ensemble

    n_members, n_workers = map(int, name.removeprefix("race-").split("-"))
    (x_all, y_all), _, data_name = TEN["load_digits"]()
    train, n_images = train_for_ensemble("quick"), len(TEN["split"](x_all, y_all)[0])

    def warm_up():
        train(np.zeros((256, 28, 28, 1), "float32"), np.eye(10, dtype="float32")[[0] * 256], 0)

    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = Path(name_of_folder)
        members = [(seed, folder, data_name, train) for seed in range(1, n_members + 1)]
        if n_workers == 0:
            warm_up()
            started = time.perf_counter()
            for member in members:
                TEN["train_member"](*member)
            seconds = time.perf_counter() - started
        else:
            with TEN["start_cluster"](n_workers) as cluster, Client(cluster) as client:
                client.register_plugin(TEN["QuietWorker"](folder / "workers.log"))
                for worker in client.nthreads():
                    client.submit(warm_up, workers=[worker], pure=False).result()
                started = time.perf_counter()
                futures = [client.submit(TEN["train_member"], *member) for member in members]
                client.gather(futures)
                seconds = time.perf_counter() - started
    return {
        "recipe": name,
        "group": "races",
        "recipe_hash": recipe_hash(name, n_images, "at random", data_name),
        "purpose": PURPOSES["races"],
        "seed": repetition,
        "network": "quick",
        "members": n_members,
        "workers": n_workers,
        "training_images": n_images,
        "held_back": "at random",
        "training_seconds": round(seconds, 2),
        "matmul_gflops": round(matmul_gflops(), 1),
        "peak_memory_mb": peak_memory_mb(),
        **circumstances(data_name),
    }


def run_reader(name, seed):
    """Train a reader of notebook 09, and measure it. Returns one row of the table."""
    from readers import measure_reader

    measured = measure_reader(name, seed)
    return {
        "recipe": name,
        "group": "readers",
        "purpose": PURPOSES["readers"],
        "seed": seed,
        "held_back": "at random",
        **measured,
        "peak_memory_mb": peak_memory_mb(),
        **circumstances(measured["data"]),
    }


def machine():
    """Name the processor, as far as the system tells, and its cores."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


# --- all runs ----------------------------------------------------------------------------------


def read(table):
    if table.exists():
        return pd.read_csv(table)
    return pd.DataFrame(columns=["group", "recipe", "seed"])


def counted(rows):
    """Return the rows that README.md and notebook 08 count: whose recipe is as it is today."""
    from recipes import recipe_hash

    groups = ("references", "ours", *TRAINED_ON_ALL)
    rows = rows[rows["group"].isin(groups) & rows["recipe_hash"].notna()]
    names = {name for group in groups for name in GROUPS[group]}
    rows = rows[rows["recipe"].isin(names)]
    keys = list(zip(rows["recipe"], rows["training_images"], rows["held_back"], strict=True))
    today = {key: recipe_hash(*key) for key in set(keys)}
    return rows[[today[key] == hash for key, hash in zip(keys, rows["recipe_hash"], strict=True)]]


def append(table, row, supersedes=None):
    """Add a row; the texts of the others stay as they are.

    supersedes: a function of a row; it is asked which of the rows the new one replaces. The table
    is written under a temporary name first, so it is always complete.
    """
    rows, columns = [], []
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), list(reader.fieldnames)
    for old in rows:
        if supersedes and not old["superseded"] and supersedes(old):
            old["superseded"] = "by a later execution"
    columns += [column for column in row if column not in columns]
    part = table.with_name(f"unfinished-{os.getpid()}-{table.name}")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])
    part.replace(table)


def follow_notebooks(table):
    """Add what the notebooks have stored to the table, and write what 08 shows of it into 08."""
    import summarize
    from recipes import recipe_hash

    for name, run in summarize.not_in_table(read(table)).items():
        row = {"recipe": name, "group": "notebooks", **run, "superseded": ""}
        row |= {"training_images": 55_000, "held_back": "at random", "data": "MNIST"}
        if recipe := summarize.benchmark_name(name, run):
            row["recipe_hash"] = recipe_hash(recipe, row["training_images"], row["held_back"])
        row |= {"commit": commit(), "date": datetime.date.today().isoformat()}
        append(table, row, lambda old, name=name: old["recipe"] == name)
        print(f"added: {name}, {run}")
    rows = read(table)
    if summarize.write(rows, counted(rows)):
        print("08 shows the table as it is now: execute it")


def run_alone(name, seed, group, jobs, purpose):
    """Run in a new process, so that nothing is warm. Returns the row; exits if the run fails."""
    environment = dict(os.environ)
    if group == "backends":
        backend, _, without_onednn = name.removeprefix("backend-").partition("-")
        environment |= {
            "KERAS_BACKEND": backend,
            "TF_ENABLE_ONEDNN_OPTS": "0" if without_onednn else "1",
        }
    if jobs > 1:
        threads = str(max(1, os.cpu_count() // jobs))
        environment |= {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "row.json")
        command = [sys.executable, __file__, "--into", str(result), name, "--seeds", str(seed)]
        command += ["--group", group, *(["--purpose", purpose] if purpose else [])]
        with Path(folder, "errors").open("w+", errors="replace") as errors:
            failed = subprocess.run(command, env=environment, stderr=errors).returncode
            errors.seek(0)
            if failed:
                why = errors.read()[-2000:]
                sys.exit(f"{name}, seed {seed}, failed; nothing was added.\n{why}")
        return json.loads(result.read_text())


def status(table):
    """Say what is in the table, and how many runs are missing."""
    columns = ["group", "recipe", "seed", "superseded", "test_errors", "val_errors", "val_images"]
    columns += ["training_seconds", "ensemble_errors", "images_per_second"]
    rows = read(table).reindex(columns=columns)
    rows = rows[rows["superseded"].isna()]
    tried = rows.loc[rows["group"] == "search", "recipe"].value_counts().to_dict()
    for group in (*GROUPS, "changes", "folds", "backends", "readers", "search"):
        print(f"\n{group}")
        for name, wanted in (tried if group == "search" else names_in(group)).items():
            mine = rows[(rows["group"] == group) & (rows["recipe"] == name)]
            text = f"  {name:32} {len(mine):2} of {wanted} runs"
            if len(mine) and group == "streams":
                text += f", {mine['images_per_second'].max():,.0f} images a second"
            elif len(mine) and mine["ensemble_errors"].notna().all():
                last = mine.sort_values("seed").iloc[-1]
                accuracy = 100 - last["ensemble_errors"] / 100
                text += f", {accuracy:6.3f} % on the test set with {last['seed']:.0f} members"
            elif len(mine) and mine["test_errors"].notna().all():
                text += f", {100 - mine['test_errors'].mean() / 100:6.3f} % on the test set"
            elif len(mine):
                wrong = mine["val_errors"].sum() / mine["val_images"].sum()
                text += f", {100 - 100 * wrong:6.3f} % on validation"
            if len(mine) and mine["training_seconds"].notna().all():
                text += f", {mine['training_seconds'].mean():.1f} s"
            print(text)


def for_folds(wish):
    """Return the names of recipes that a wish for folds means; exits if there is no such recipe."""
    from recipes import WHOLE, find

    groups = [group for group in GROUPS if group not in TRAINED_ON_ALL]
    known = [*(name for group in groups for name in GROUPS[group]), *WHOLE]
    if wish == "whole":
        return list(WHOLE)
    if wish not in known:
        try:
            find(wish)
        except ValueError as error:
            why = str(error) if wish.startswith("{") else f"there are {', '.join(known)}"
            sys.exit(f"{wish} is no recipe for folds; {why}")
    return [wish]


def choose(names):
    """Return {(group, recipe): how many seeds are wanted} for names of recipes and groups."""
    from recipes import find

    if names[:1] == ["folds"]:
        return {("folds", name): 6 for wish in names[1:] or FOLDS for name in for_folds(wish)}
    groups = {group: names_in(group) for group in (*GROUPS, "changes", "backends", "readers")}
    known = {(group, name): count for group in groups for name, count in groups[group].items()}
    chosen = {}
    for wish in names:
        if wish.startswith("{"):
            try:
                chosen[find(wish)[0], wish] = 1
            except ValueError as error:
                sys.exit(f"{wish}: {error}")
            continue
        found = {
            key: count
            for key, count in known.items()
            if wish in key or (wish == "all" and key[0] not in ("backends", "readers"))
        }
        if not found:
            there = ", ".join(["all", *groups, *(name for _, name in known)])
            sys.exit(f"{wish} is neither a recipe nor a group; there are {there}")
        chosen |= found
    return chosen


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="recipes or groups")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of 1, 2, ... as wanted")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; times need 1")
    parser.add_argument("--table", type=Path, default=TABLE, help="instead of data/benchmarks.csv")
    parser.add_argument("--purpose", help="what the runs are for, if it is something special")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)  # one run, by run_alone
    parser.add_argument("--group", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.into:
        name, seed = options.names[0], options.seeds[0]
        special = {"ensembles": run_ensemble, "streams": run_stream, "races": run_race}
        special["readers"] = run_reader
        if options.group in special:
            row = special[options.group](name, seed)
        else:
            row = run(name, seed, options.group, options.purpose)
        options.into.write_text(json.dumps(row))
        return
    if not options.names:
        status(options.table)
        return
    if options.names == ["notebooks"]:
        follow_notebooks(options.table)
        return
    wanted = choose(options.names)
    alone = (*GROUPS, "backends")
    if options.jobs > 1 and any(group in alone for group, _ in wanted):
        sys.exit(f"Run {' and '.join(alone)} without --jobs: their times, or order, are wanted")
    if options.table == TABLE and os.environ.get("DIGITS_DATA"):
        sys.exit("data/benchmarks.csv is for MNIST: unset DIGITS_DATA, or name another --table")
    if options.table == TABLE and not (ROOT / "data" / "mnist.npz").exists():
        sys.exit("data/mnist.npz is not there: python data/get_mnist.py brings it")
    rows = read(options.table).reindex(columns=["group", "recipe", "seed", "superseded"])
    done = set(rows.loc[rows["superseded"].isna(), ["group", "recipe", "seed"]].itertuples(False))
    # The recipes take turns, seed by seed: should the machine become slower, all of them suffer.
    seeds = options.seeds or range(1, max(wanted.values()) + 1)
    runs = [
        (group, name, seed)
        for seed in seeds
        for (group, name), count in wanted.items()
        if (group, name, seed) not in done and (options.seeds or seed <= count)
    ]
    print(f"{len(runs)} runs to do", flush=True)
    one_at_a_time = Lock()

    def do(task):
        number, (group, name, seed) = task
        now = f"{datetime.datetime.now():%Y-%m-%d %H:%M}"
        print(f"--- {number} of {len(runs)}: {group}, {name}, seed {seed}, {now}", flush=True)
        try:
            row = run_alone(name, seed, group, options.jobs, options.purpose)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # begin no other
            raise
        with one_at_a_time:
            append(options.table, row)
        shown = ["recipe", "seed", "val_errors", "test_errors", "ensemble_errors"]
        shown += ["training_seconds", "images_per_second", "page_errors", "peak_memory_mb"]
        print("   ", {key: row[key] for key in shown if key in row}, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(do, enumerate(runs, start=1)))


if __name__ == "__main__":
    main()
