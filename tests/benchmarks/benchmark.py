"""Train well-known networks for MNIST and ours on this machine; append the results to a table.

    python tests/benchmarks/benchmark.py                      what there is and what is missing
    python tests/benchmarks/benchmark.py references           every run of a group that is missing
    python tests/benchmarks/benchmark.py ours-08 --seeds 6 7  these runs, if they are missing
    python tests/benchmarks/benchmark.py changes --jobs 2     two at a time, without their times
    python tests/benchmarks/benchmark.py '{"dropout": 0.5}' --seeds 1 2     something new

Groups: references, ours, controls (notebook 04 without augmentation), ensembles (of notebook 10:
"seed" k is the ensemble of the members with seeds 1 to k; the members stay in data/ensemble-…),
streams (so many augmented test images, scored as in notebook 10; "seed" k is with k workers),
changes (a short version of notebook 08's recipe with one thing changed), all. What is given as JSON
is a change of that recipe itself and goes into the table as group "search": what was tried on the
way. "distortion" there holds limits of RandomDistortion, of which "elastic" is called "bend" in old
rows. The table is data/benchmarks.csv (on another machine, begin your own: --table mine.csv). What
it contains already is not run again, so you can interrupt this script and continue later. It needs
data/mnist.npz. Each run has a process to itself. If you use the machine meanwhile, its times are
not valid.
"""

import argparse
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
    "ours": {"ours-04": 5, "ours-08": 5, "ours-08-10": 3, "ours-fast": 10},
    "controls": {"ours-04-plain": 3},
    "ensembles": {"ensemble-quick": 20, "ensemble-ours-08": 10},
    "streams": {"stream-40000": 2, "stream-1000000": 2},
}


def names_in(group):
    """Return {name of a recipe: how many seeds of it are wanted} for a group."""
    if group in GROUPS:
        return GROUPS[group]
    from recipes import CHANGES

    return dict.fromkeys(CHANGES, 5)


# --- one run -----------------------------------------------------------------------------------


def multiply_accumulates(model):
    """Count the multiply-accumulates of convolutions and dense layers for one picture."""
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


def run(name, seed):
    """Train one recipe from one random start. Returns a dict, one row of the table."""
    import keras
    from conftest import definitions
    from recipes import Stopwatch, find
    from sklearn.metrics import log_loss

    load_digits = definitions("01", "load_digits", "MNIST_SHA256", DATA=ROOT / "data")
    (x_all, y_all), (x_test, y_test), data_name = load_digits["load_digits"]()
    scale, split = (definitions("02", f)[f] for f in ("scale", "split"))
    group, train = find(name)
    if group in GROUPS:
        x_train, x_val, y_train, y_val = split(scale(x_all), y_all)
    else:
        # A sixth, another one for each seed: 5,000 always the same would tell little. In a row,
        # because MNIST has its pictures writer after writer: these are by people not trained on.
        held_back = np.arange(len(y_all)) * 6 // len(y_all) == seed % 6
        x_val, y_val = scale(x_all[held_back]), y_all[held_back]
        x_train, y_train = scale(x_all[~held_back]), y_all[~held_back]
    t_train, t_val = keras.utils.to_categorical(y_train, 10), keras.utils.to_categorical(y_val, 10)

    speed = [matmul_gflops()]
    keras.utils.set_random_seed(seed)
    stopwatch = Stopwatch()
    model = train((x_train, t_train), (x_val, t_val), seed, stopwatch)
    speed.append(matmul_gflops())
    seconds, macs = stopwatch.seconds, multiply_accumulates(model)
    probabilities = model.predict(x_val, batch_size=500, verbose=0).astype("float64")
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    row = {
        "recipe": name,
        "group": group,
        "seed": seed,
        "epochs": stopwatch.epochs,
        "training_images": len(x_train),
        "parameters": model.count_params(),
        "mmac": round(macs / 1e6, 3),
        "held_back": "at random" if group in GROUPS else "in a row",
        "val_images": len(x_val),
        "val_errors": int((probabilities.argmax(axis=1) != y_val).sum()),
        "val_wrong": places(probabilities.argmax(axis=1) != y_val),
        "val_loss": round(log_loss(y_val, probabilities, labels=range(10)), 5),
    }
    if group == "controls":
        row["curves"] = json.dumps(stopwatch.curves)
    if group == "changes" and getattr(train, "predict_tta", None):
        row["val_wrong_views"] = places(train.predict_tta(model, x_val).argmax(axis=1) != y_val)
    if group in GROUPS:
        answers = model.predict(scale(x_test), batch_size=500, verbose=0).argmax(axis=1)
        row["test_errors"] = int((answers != y_test).sum())
        row["test_wrong"] = places(answers != y_test)
    if not os.environ.get("TF_NUM_INTRAOP_THREADS"):  # alone on the machine
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
        "data": data_name,
        "machine": machine(),
        "keras": keras.__version__,
        keras.backend.backend(): __import__(keras.backend.backend()).__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def run_ensemble(name, n_members):
    """Train the members with seeds 1 to n_members that are missing. Returns one row of the table.

    The row is about the mean of the members' probabilities. Members are trained as notebook 10
    trains them, in data/ensemble-…, one after the other; an interrupted run continues there.
    """
    import keras
    from recipes import TEN, train_for_ensemble
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
        "data": data_name,
        "machine": machine(),
        "keras": keras.__version__,
        keras.backend.backend(): __import__(keras.backend.backend()).__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def run_stream(name, n_workers):
    """Score a stream of augmented test images with n_workers. Returns one row of the table.

    The network is the first member of ensemble-quick. Shards that are there are not written again.
    """
    import keras
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
            client.submit(TEN["score_shard"], names[0], **where, workers=[worker]).result()
        started = time.perf_counter()
        scored = client.gather(client.map(TEN["score_shard"], names, **where, pure=False))
        seconds = time.perf_counter() - started
    scored = pd.DataFrame(scored)
    return {
        "recipe": name,
        "group": "streams",
        "seed": n_workers,
        "network": "quick",
        "images": int(scored["images"].sum()),
        "stream_errors": int(scored["errors"].sum()),
        "images_per_second": round(scored["images"].sum() / seconds, 1),
        "peak_memory_mb": round(scored["memory_mb"].max() * 1e6 / 2**20),
        "data": data_name,
        "machine": machine(),
        "keras": keras.__version__,
        keras.backend.backend(): __import__(keras.backend.backend()).__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
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


def append(table, row):
    """Add a row. The table is written under a temporary name first, so it is always complete."""
    part = table.with_name(f"unfinished-{os.getpid()}-{table.name}")
    pd.concat([read(table), pd.DataFrame([row])]).to_csv(part, index=False)
    part.replace(table)


def run_alone(name, seed, jobs):
    """Run in a new process, so that nothing is warm. Returns the row; exits if the run fails."""
    environment = dict(os.environ)
    if jobs > 1:
        threads = str(max(1, os.cpu_count() // jobs))
        environment |= {"TF_NUM_INTRAOP_THREADS": threads, "TF_NUM_INTEROP_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "row.json")
        command = [sys.executable, __file__, "--into", str(result), name, "--seeds", str(seed)]
        with Path(folder, "errors").open("w+", errors="replace") as errors:
            failed = subprocess.run(command, env=environment, stderr=errors).returncode
            errors.seek(0)
            if failed:
                why = errors.read()[-2000:]
                sys.exit(f"{name}, seed {seed}, failed; nothing was added.\n{why}")
        return json.loads(result.read_text())


def status(table):
    """Say what is in the table, and how many runs are missing."""
    columns = ["group", "recipe", "seed", "test_errors", "val_errors", "val_images"]
    columns += ["training_seconds", "ensemble_errors", "images_per_second"]
    rows = read(table).reindex(columns=columns)
    tried = rows.loc[rows["group"] == "search", "recipe"].value_counts().to_dict()
    for group in (*GROUPS, "changes", "search"):
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


def choose(names):
    """Return {(group, recipe): how many seeds are wanted} for names of recipes and groups."""
    from recipes import find

    groups = {group: names_in(group) for group in (*GROUPS, "changes")}
    known = {(group, name): count for group in groups for name, count in groups[group].items()}
    chosen = {}
    for wish in names:
        if wish.startswith("{"):
            try:
                chosen[find(wish)[0], wish] = 1
            except ValueError as error:
                sys.exit(f"{wish}: {error}")
            continue
        found = {key: count for key, count in known.items() if wish in ("all", *key)}
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
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)  # one run, by run_alone
    options = parser.parse_args(arguments)
    if options.into:
        name, seed = options.names[0], options.seeds[0]
        special = {"ensemble": run_ensemble, "stream": run_stream}
        row = special.get(name.partition("-")[0], run)(name, seed)
        options.into.write_text(json.dumps(row))
        return
    if not options.names:
        status(options.table)
        return
    wanted = choose(options.names)
    if options.jobs > 1 and any(group in GROUPS for group, _ in wanted):
        sys.exit(f"Run {' and '.join(GROUPS)} without --jobs: their times, or order, are wanted")
    if options.table == TABLE and os.environ.get("DIGITS_DATA"):
        sys.exit("data/benchmarks.csv is for MNIST: unset DIGITS_DATA, or name another --table")
    if options.table == TABLE and not (ROOT / "data" / "mnist.npz").exists():
        sys.exit("data/mnist.npz is not there: python data/get_mnist.py brings it")
    done = {(row.group, row.recipe, row.seed) for row in read(options.table).itertuples()}
    runs = [
        (name, seed)
        for (group, name), count in wanted.items()
        for seed in options.seeds or range(1, count + 1)
        if (group, name, seed) not in done
    ]
    print(f"{len(runs)} runs to do")
    one_at_a_time = Lock()

    def do(task):
        number, (name, seed) = task
        print(f"--- {number} of {len(runs)}: {name}, seed {seed}", flush=True)
        try:
            row = run_alone(name, seed, options.jobs)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # begin no other
            raise
        with one_at_a_time:
            append(options.table, row)
        shown = ["recipe", "seed", "val_errors", "test_errors", "ensemble_errors"]
        shown += ["training_seconds", "images_per_second", "peak_memory_mb"]
        print("   ", {key: row[key] for key in shown if key in row}, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(do, enumerate(runs, start=1)))


if __name__ == "__main__":
    main()
