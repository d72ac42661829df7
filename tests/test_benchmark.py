"""The benchmark: its networks are what they claim to be, and its table is written as it should."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, definitions
from sklearn.metrics import log_loss

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import benchmark

TABLE = pd.read_csv(ROOT / "data" / "benchmarks.csv")
SCORED = TABLE[TABLE["group"].isin(benchmark.GROUPS)]  # on the test set, by the benchmark


def of(recipe):
    return SCORED[(SCORED["recipe"] == recipe) & SCORED["superseded"].isna()]


# --- the table ---------------------------------------------------------------------------------


def test_macs_by_hand():
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(5, 3, strides=2)])
    model = keras.Sequential([inner, layers.Flatten(), layers.Dense(7)])
    assert benchmark.multiply_accumulates(model) == 3 * 3 * (3 * 3 * 3 * 5) + 3 * 3 * 5 * 7


@pytest.mark.parametrize(
    "recipe, parameters, mmac",
    [
        ("ghouzam", 887_530, 32.3),
        ("deotte", 326_410 + 832, 15.2),  # 832: running means and variances
        ("keras-io", 34_826, 2.4),
        ("train-mnist-fast", 215_194, 1.24),
        ("train-mnist-fast-60k", 215_194, 1.24),
        ("ours-04", 156_042, 2.0),
    ],
)
def test_networks_have_their_published_size(recipe, parameters, mmac, monkeypatch):
    import keras
    from recipes import Stopwatch, find

    class Built(Exception):
        pass

    def fit(self, *arguments, **options):
        raise Built(self)

    monkeypatch.setattr(keras.Sequential, "fit", fit)
    some = np.zeros((8, 28, 28, 1), "float32"), np.eye(10, dtype="float32")[:8]
    with pytest.raises(Built) as raised:
        find(recipe)[1](some, some, 1, Stopwatch())
    (model,) = raised.value.args
    model = model.layers[-1] if isinstance(model.layers[-1], keras.Sequential) else model
    assert model.count_params() == parameters
    assert benchmark.multiply_accumulates(model) == pytest.approx(1e6 * mmac, abs=6e4)
    assert set(of(recipe)["parameters"]) == {parameters}


def test_rows_are_whole_and_unique():
    assert TABLE["data"].eq("MNIST").all()
    current = TABLE[TABLE["superseded"].isna()]
    trained = current[current["group"] != "streams"]  # a stream's speed may be measured again
    assert not trained.duplicated(["group", "recipe", "seed"]).any()
    assert TABLE["purpose"].notna().all()
    by_benchmark = TABLE[TABLE["test_wrong"].notna() | TABLE["test_errors"].isna()]
    by_benchmark = by_benchmark[by_benchmark["group"] != "notebooks"]
    for column in ("machine", "keras", "commit"):
        assert by_benchmark[column].notna().all(), column
    for row in by_benchmark.to_dict("records"):
        names = {"tensorflow", "jax", "torch"}
        used = {name for name in names & row.keys() if isinstance(row[name], str)}
        on_purpose = row["group"] == "backends"
        assert used == {row["recipe"].split("-")[1] if on_purpose else "tensorflow"}
    without = by_benchmark["group"].isin([*benchmark.TRAINED_ON_ALL, "streams", "races"])
    assert by_benchmark["val_errors"].isna().eq(without).all()
    whole = current[current["group"].isin(["references", "ours"])]
    for column in ("test_errors", "test_wrong"):
        assert whole[column].notna().all(), column
    for name, runs in whole.groupby("recipe"):  # a run beside other work is not timed
        assert runs["training_seconds"].notna().any(), name
    assert whole["training_seconds"].notna().eq(whole["matmul_gflops"].notna()).all()
    for row in TABLE[TABLE["test_wrong"].notna()].itertuples():
        assert len(row.test_wrong.split()) == row.test_errors
    for row in TABLE[TABLE["val_wrong"].notna()].itertuples():
        assert len(str(row.val_wrong).split()) == row.val_errors
    unseen = TABLE[TABLE["group"].isin(["changes", "folds", "backends", "readers"])]
    assert unseen["test_errors"].isna().all(), "no look at the test set"
    ensembles = TABLE[TABLE["group"] == "ensembles"]
    for row in ensembles.itertuples():
        assert len(str(row.ensemble_wrong).split()) == row.ensemble_errors
        assert row.members == row.seed and row.recipe == f"ensemble-{row.network}"
    for name, rows in ensembles.groupby("recipe"):
        assert sorted(rows["members"]) == list(range(1, len(rows) + 1)), f"{name}: none left out"


def git(*arguments):
    """What git says about this repository; the test is skipped where it has no history."""
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no git, or no repository here: {error}")


def measured(text, columns):
    """The rows of a table, given as text, counted: what was measured, whatever it is called."""

    def plain(value):
        try:
            return repr(float(value))
        except ValueError:
            return value

    rows = csv.DictReader(io.StringIO(text))
    return Counter(tuple(plain(row.get(column, "")) for column in columns) for row in rows)


MEASURED = [
    *("seed", "epochs", "val_errors", "val_loss", "val_wrong", "test_errors", "test_wrong"),
    *("ensemble_errors", "ensemble_wrong", "member_errors", "stream_errors", "images_per_second"),
    *("val_wrong_recomputed", "training_images", "mmac"),
]


def test_nothing_that_was_ever_measured_disappears():
    """Each version of the table in the history is contained in the present one."""
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("the history is not here: this is a shallow clone")
    path = "data/benchmarks.csv"
    now = (ROOT / path).read_text(encoding="utf-8")
    versions = git("log", "--format=%h", "--", path).split()
    assert versions
    for version in versions:
        then = git("show", f"{version}:{path}")
        columns = [column for column in MEASURED if column in then.splitlines()[0].split(",")]
        missing = measured(then, columns) - measured(now, columns)
        assert not missing, f"rows of {version} are gone: {missing}"
        if "recipe_hash" in then.splitlines()[0]:
            columns.append("recipe_hash")
            changed = [row for row in measured(then, columns) - measured(now, columns) if row[-1]]
            assert not changed, f"since {version}, rows have got another hash: {changed}"
    # An earlier script had a table of its own
    *_, last = git("log", "--reverse", "--format=%h", "--", "tests/benchmarks/seeds.csv").split()
    then = git("show", f"{last}^:tests/benchmarks/seeds.csv")
    columns = ["seed", "epochs", "test_errors"]
    assert len(measured(then, columns)) == 3
    assert measured(then, columns) <= measured(now, columns)


@pytest.fixture(scope="module")
def hash_today():
    """A function of a row: the hash of its recipe as it is defined today."""
    from recipes import recipe_hash

    known = {}

    def today(row):
        key = row.recipe, row.training_images, row.held_back
        if key not in known:
            known[key] = recipe_hash(*key)
        return known[key]

    return today


def test_rows_that_count_bear_the_hash_of_their_recipe_as_it_is_today(hash_today):
    groups = {*benchmark.GROUPS, "changes", "folds"} - {"streams"}  # these train nothing
    current = TABLE[TABLE["group"].isin(groups) & TABLE["superseded"].isna()]
    assert len(current) >= 90
    for row in current.itertuples():
        assert row.recipe_hash == hash_today(row), (
            f"{row.recipe} is another recipe than the one that was measured: run it again, and "
            "say in the column superseded of its old rows what has replaced them"
        )


def test_what_is_superseded_says_so_and_counts_only_if_it_is_the_same_recipe(hash_today):
    old = SCORED[SCORED["superseded"].notna() & SCORED["test_errors"].notna()]  # no streams
    same = old[[row.recipe_hash == hash_today(row) for row in old.itertuples()]]
    assert set(same["recipe"]) == {"ours-04"} and sorted(same["test_errors"]) == [44, 45, 56]
    fast = old[old["recipe"] == "ours-fast"]
    assert fast["recipe_hash"].nunique() == 2 and len(fast) == 15
    counted = benchmark.counted(TABLE)
    groups = ("references", "ours", *benchmark.TRAINED_ON_ALL)
    assert set(counted["recipe"]) == {name for group in groups for name in benchmark.GROUPS[group]}
    assert counted["recipe"].eq("ours-04").sum() == 8
    assert counted["recipe"].eq("ours-fast").sum() == 10


@pytest.mark.parametrize(
    "setting, value",
    [
        *(("dropout", 0.4), ("epochs", 23), ("batch_size", 64), ("learning_rate", 0.002)),
        *(("warm_up", 0), ("decay", False), ("weight_decay", 0.0), ("label_smoothing", 0.1)),
        *(("average", 0.995), ("normalize", False), ("augmentation", [])),
        ("blocks", [(32, 5, True), (64, 3, False), (96, 3, True), (64, 4, False)]),
    ],
)
def test_another_setting_gives_another_hash(setting, value, monkeypatch):
    import recipes

    before = recipes.recipe_hash("ours-08", 55_000, "at random")
    assert before == recipes.recipe_hash("ours-08", 55_000, "at random")
    monkeypatch.setitem(recipes.EIGHT["RECIPE"], setting, value)
    assert recipes.recipe_hash("ours-08", 55_000, "at random") != before


def test_other_data_or_another_augmentation_gives_another_hash():
    import recipes

    names = ["{}"] + [
        json.dumps({"distortion": {name: 1.01 * value}})
        for name, value in (("rotation", 10), ("zoom", 0.1), ("shear", 5), ("shift", 2))
    ]
    hashes = [recipes.recipe_hash(name, 55_000, "at random") for name in names]
    hashes += [recipes.recipe_hash("{}", 50_000, "at random")]
    hashes += [recipes.recipe_hash("{}", 55_000, "in a row")]
    hashes += [recipes.recipe_hash("{}", 55_000, "at random", "stand-in")]
    assert len(set(hashes)) == len(hashes)


def test_notebook_08_shows_what_the_table_holds():
    import summarize
    from conftest import NOTEBOOKS, code_cells, read

    path = next(path for path in NOTEBOOKS if path.name.startswith("08"))
    (stored,) = (c.source for c in code_cells(read(path)) if c.source.startswith(summarize.TITLE))
    expected = summarize.cell_source(TABLE, benchmark.counted(TABLE))
    assert stored == expected, "run `python tests/benchmarks/benchmark.py notebooks`, execute 08"


def test_the_table_has_what_the_notebooks_have_trained_and_scored():
    import summarize

    stored = summarize.stored_runs()
    assert set(stored) == {f"notebook {number}" for number in ("03", "04", "08", "10")}
    missing = summarize.not_in_table(TABLE)
    assert not missing, f"{missing}: run `python tests/benchmarks/benchmark.py notebooks`"


def test_the_last_executions_of_04_and_08_bear_the_hash_of_their_recipe_as_it_is_today():
    import summarize
    from recipes import recipe_hash

    rows = TABLE[TABLE["group"].eq("notebooks") & TABLE["superseded"].isna()].set_index("recipe")
    for number in ("04", "08"):
        row = rows.loc[f"notebook {number}"]
        name = summarize.benchmark_name(f"notebook {number}", {"epochs": int(row["epochs"])})
        today = recipe_hash(name, row["training_images"], row["held_back"])
        assert row["recipe_hash"] == today, f"execute notebook {number} again"


def test_a_new_execution_of_a_notebook_supersedes_the_last_one(tmp_path, monkeypatch, capsys):
    import shutil

    import summarize

    table = tmp_path / "table.csv"
    shutil.copy(benchmark.TABLE, table)
    monkeypatch.setattr(summarize, "write", lambda rows, counted: False)
    new = summarize.stored_runs()["notebook 04"] | {"test_errors": 99}
    stored = summarize.stored_runs() | {"notebook 04": new}
    monkeypatch.setattr(summarize, "stored_runs", lambda: stored)
    benchmark.main(["notebooks", "--table", str(table)])
    assert capsys.readouterr().out == f"added: notebook 04, {new}\n"
    after = pd.read_csv(table)
    assert len(after) == len(TABLE) + 1
    runs = after[after["recipe"] == "notebook 04"]
    assert list(runs["superseded"].isna()) == [False] * (len(runs) - 1) + [True]
    assert runs["test_errors"].iloc[-1] == 99
    assert runs["recipe_hash"].iloc[-1] == of("ours-04")["recipe_hash"].iloc[-1]
    benchmark.main(["notebooks", "--table", str(table)])
    assert len(pd.read_csv(table)) == len(after)


def test_the_copy_in_notebook_08_holds_the_lists_of_the_table():
    import summarize

    unpack = definitions("08", "unpack")["unpack"]
    counted = benchmark.counted(TABLE)
    lines, always_wrong = summarize.on_test(TABLE, counted.index)
    on_test = unpack("\n".join(lines))
    assert list(on_test) == summarize.COMPARED
    runs = {
        seed: set(text.split())
        for seed, text in of("ours-08").set_index("seed")["test_wrong"].items()
    }
    assert {seed: array.sum() for seed, array in on_test["ours-08"].items()} == {
        seed: len(images) for seed, images in runs.items()
    }
    assert sum(on_test["ours-08"][1] & ~on_test["ours-08"][2]) == len(runs[1] - runs[2])
    assert set(map(str, always_wrong)) == set.intersection(*runs.values())
    in_ablation = unpack("\n".join(summarize.in_ablation(TABLE)))
    changes = TABLE[TABLE["group"] == "changes"].set_index(["recipe", "seed"])
    averaging = "average of the weights"  # as the table calls it
    for seed in (2, 3, 4):
        before, after, views = (
            set(changes.loc[key, column].split())
            for key, column in [
                (("the recipe", seed), "val_wrong"),
                ((averaging, seed), "val_wrong"),
                (("the recipe", seed), "val_wrong_views"),
            ]
        )
        recipe, changed = in_ablation["the recipe"][seed], in_ablation["weight averaging"][seed]
        assert sum(recipe & ~changed) == len(before - after)
        assert sum(changed & ~recipe) == len(after - before)
        assert sum(in_ablation["test-time augmentation"][seed] & recipe) == len(views & before)
    long = unpack("\n".join(summarize.in_long_ablation(TABLE)))
    folds = TABLE[TABLE["group"] == "folds"].set_index(["recipe", "seed"])["val_wrong"]
    folds_of_one = TABLE[TABLE["recipe"] == "whole: no augmentation"]
    assert len(long) >= 5
    for name, runs in long.items():
        assert list(runs) == list(range(1, 7)), "every change on every fold"
        for seed, wrong in runs.items():
            before, after = (set(folds[f"whole: {n}", seed].split()) for n in ("the recipe", name))
            assert sum(long["the recipe"][seed] & ~wrong) == len(before - after)
            assert sum(wrong & ~long["the recipe"][seed]) == len(after - before)
    unfinished = TABLE.drop(folds_of_one.index[-1])
    assert not any("no augmentation" in line for line in summarize.in_long_ablation(unfinished))


# --- what is trained, on what, and what is timed --------------------------------------------------


def test_each_change_differs_from_the_recipe_in_what_its_name_says():
    import recipes

    described = {name: recipes.describe(name, 50_000) for name in recipes.CHANGES}
    texts = [json.dumps(description) for description in described.values()]
    assert len(set(texts)) == len(texts), "each one differs from the recipe and from all others"

    def settings(name):
        return described[name]["optimizer_settings"]

    stored = recipes.STORED_NAMES
    assert settings("the recipe")["weight_decay"] == 0.02
    assert settings("no weight decay (Adam)")["weight_decay"] == 0
    assert described["label smoothing"]["label_smoothing"] == 0.1
    assert described["the recipe"]["label_smoothing"] == 0
    averaging = stored["weight averaging"]
    assert settings(averaging)["use_ema"] and settings(averaging)["ema_momentum"] == 0.995
    assert [name for name, _ in described[averaging]["callbacks"]] == ["SwapEMAWeights"]
    assert not settings("the recipe")["use_ema"] and not described["the recipe"]["callbacks"]
    assert described[stored["RMSprop instead of AdamW"]]["optimizer"] == "RMSprop"
    steps = -(-50_000 // 128)
    schedule = settings("the recipe")["learning_rate"]["config"]
    assert schedule["warmup_steps"] == steps and schedule["decay_steps"] == 5 * steps
    longer = settings("twice as long")["learning_rate"]["config"]
    assert longer["decay_steps"] == 11 * steps and described["twice as long"]["epochs"] == 12


TRAINED = [
    name
    for group in ("references", *benchmark.TRAINED_ON_ALL, "ours", "controls")
    for name in benchmark.GROUPS[group]
]
WITHOUT_VALIDATION = {"ours-fast", "train-mnist-fast-60k"}  # they decide nothing on the way


@pytest.mark.parametrize("name", [*TRAINED, "ours-12", '{"consistency": 1}'])
def test_each_recipe_is_trained_on_the_training_images_and_on_no_others(name, monkeypatch):
    import keras
    import recipes

    def fit(model, x, y=None, validation_data=None, callbacks=(), **options):
        x, y = (x, y) if isinstance(x, np.ndarray) else (x.x, x.y)  # x: Keras' old generator
        fitted.append((x, y, validation_data))
        for callback in callbacks:
            if isinstance(callback, keras.callbacks.ModelCheckpoint):
                model.save_weights(callback.filepath)
                model.set_weights([0 * weight for weight in model.get_weights()])  # a bad epoch

    fitted, (train, val) = [], (some_images(40), some_images(8))
    monkeypatch.setattr(keras.Sequential, "fit", fit)
    model = recipes.find(name)[1](train, val, 1, recipes.Stopwatch())
    assert fitted
    for x, y, validation_data in fitted:
        assert np.array_equal(x, train[0]) and np.array_equal(y, train[1])
        if name in WITHOUT_VALIDATION:
            assert validation_data is None
        else:
            assert all(one is other for one, other in zip(validation_data, val, strict=True))
    assert model.get_weights()[0].any(), "the best epoch is kept"


def test_with_all_images_the_recipe_is_the_same_and_nothing_is_validated(monkeypatch):
    import keras
    import recipes

    of_all, of_most = (recipes.describe(name, 60_000) for name in ("ours-wide-60k", "ours-wide"))
    assert of_all == of_most and of_all["extras"] == {"clean_end": 0.25}
    asked = []
    monkeypatch.setattr(
        keras.Sequential, "fit", lambda model, *xy, **options: asked.append(options)
    )
    recipes.find("ours-wide-60k")[1](some_images(40), some_images(0), 1, recipes.Stopwatch())
    assert [options["validation_data"] for options in asked] == [None, None]
    assert [options["epochs"] for options in asked] == [18, 24]


def test_the_seed_decides_where_a_network_starts(monkeypatch):
    import keras
    import recipes

    monkeypatch.setattr(keras.Sequential, "fit", lambda *arguments, **options: None)
    train = recipes.find(json.dumps(TINY))[1]
    first, again, other = (
        train(some_images(8), some_images(8), seed, recipes.Stopwatch()).get_weights()[0]
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_benchmark_trains_what_notebook_04_trains():
    """It builds 04's training model itself, so that it can leave the augmentation out."""
    import recipes

    names = ["build_for_training", "build_cnn", "RandomAffine", "affine_transforms", "settings"]
    _, training = definitions("04", *names, data_name="MNIST")["build_for_training"](1e-3)
    described = recipes.describe("ours-04", 1000)
    assert json.dumps(recipes.describe_layers(training)) == json.dumps(described["layers"])
    assert type(training.optimizer).__name__ == described["optimizer"]


@pytest.mark.parametrize("name, batch_size", [("ghouzam", 86), ("deotte", 64)])
def test_references_augment_as_published(name, batch_size):
    from recipes import describe

    whole = describe(name, 1000)
    assert whole["generator"] == {
        "rotation_range": 10,
        "zoom_range": pytest.approx([0.9, 1.1]),
        "width_shift_range": 0.1,
        "height_shift_range": 0.1,
        "shear_range": 0.0,
        "horizontal_flip": False,
        "fill_mode": "nearest",
    }
    assert whole["batch_size"] == batch_size and whole["shuffle"] and whole["epochs"] == 30


def test_references_lower_their_rate_as_published():
    from recipes import describe

    (plateau,) = describe("ghouzam", 1000)["callbacks"]
    assert plateau == [
        "ReduceLROnPlateau",
        {"monitor": "val_accuracy", "factor": 0.5, "patience": 3, "min_lr": 1e-5},
    ]
    (schedule,) = describe("deotte", 1000)["callbacks"]
    assert schedule[1] == pytest.approx([1e-3 * 0.95**epoch for epoch in range(30)], rel=1e-4)
    fast = describe("train-mnist-fast", 55_000)
    rate = fast["optimizer_settings"]["learning_rate"]["config"]
    assert (rate["warmup_target"], rate["warmup_steps"], rate["decay_steps"]) == (0.01, 64, 151)
    assert (fast["optimizer_settings"]["beta_1"], fast["optimizer_settings"]["beta_2"]) == (
        0.7,
        0.9,
    )
    assert describe("keras-io", 1000)["epochs"] == 15


def test_the_reference_as_published_starts_and_learns_as_in_pytorch():
    import recipes

    whole = recipes.describe("train-mnist-fast-60k", 60_000)
    assert whole["layers"][0] == [
        "Rescaling",
        {"scale": pytest.approx(3.2457, rel=1e-4), "offset": pytest.approx(-0.4242, rel=1e-4)}
        | {"trainable": True},
    ]
    starts = [s["kernel_initializer"] for _, s in whole["layers"] if "kernel_initializer" in s]
    assert starts == [
        f"RandomUniform up to {fan_in**-0.5:.5g}" for fan_in in (25, 9 * 24, 25 * 32, 256)
    ]
    # PyTorch's OneCycleLR(max_lr=0.01, total_steps=235), some values
    schedule = recipes.OneCycle(0.01, 235)
    rates = [float(schedule(step)) for step in range(235)]
    assert rates[0] == pytest.approx(0.0004, rel=1e-4) and rates[234] == pytest.approx(
        4e-8, rel=0.1
    )
    assert max(rates) == pytest.approx(0.01, rel=1e-3) and rates.index(max(rates)) in (69, 70)
    assert rates[35] == pytest.approx(0.00525, rel=0.02) and rates[152] == pytest.approx(
        0.005, rel=0.02
    )


@pytest.mark.parametrize("group", benchmark.TRAINED_ON_ALL)
def test_what_is_trained_on_all_images_holds_none_out(group):
    train, val, scored = benchmark.divide(group, 1, *numbered(100))
    assert which(train[0]) == set(range(100)) and train[0].dtype == np.float32
    assert len(val[0]) == len(val[1]) == len(scored[0]) == len(scored[1]) == 0


def numbered(n):
    """n images that are all different, and labels."""
    images = np.zeros((n, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.divmod(np.arange(n), 256)
    return images, (np.arange(n) % 10).astype(np.uint8)


def which(images):
    """The numbers of scaled images of `numbered`."""
    pixels = np.round(255 * images[:, 0, :2, 0]).astype(int)
    return set(256 * pixels[:, 0] + pixels[:, 1])


@pytest.mark.parametrize("group", ["ours", "changes", "search", "folds", "backends"])
def test_nothing_is_trained_on_that_is_scored(group):
    n, everything = 1200, set(range(1200))
    scored_in_all = []
    for seed in range(1, 7):
        train, val, scored = benchmark.divide(group, seed, *numbered(n))
        parts = [which(images) for images, _ in (train, val, scored)]
        for (images, labels), numbers in zip((train, val, scored), parts, strict=True):
            assert images.dtype == np.float32 and images.max() <= 1
            assert len(images) == len(labels) == len(numbers)
        assert not parts[0] & parts[2] and not parts[0] & parts[1]
        assert parts[0] | parts[1] | parts[2] == everything
        scored_in_all += parts[2]
        if group == "ours":
            assert len(parts[2]) == 100 and parts[1] == parts[2]
        else:
            assert len(parts[2]) == 200 and max(parts[2]) - min(parts[2]) == 199, "in a row"
        if group == "folds":
            assert not parts[1] & parts[2], "a recipe may not choose by what is scored"
            assert len(parts[1]) == 84
    if group != "ours":
        assert sorted(scored_in_all) == sorted(everything), "each image once in six folds"


@pytest.mark.parametrize("group", [None, "changes", "folds", "backends", "published"])
def test_a_run_counts_the_errors_on_the_images_that_it_names(group, monkeypatch, stand_in):
    """With a network that always says 3, with a probability that is known."""
    import keras
    import recipes

    def train(train, val, seed, stopwatch):
        trained.append((train, val))
        drawn.append(np.random.random())
        stopwatch.epochs, stopwatch.seconds = 2, 1e-6
        stopwatch.reached = {0.990: 0.5}
        model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
        model.add(keras.layers.Dense(10, activation="softmax"))
        model.layers[-1].set_weights([np.zeros((784, 10)), 5.0 * (np.arange(10) == 3)])
        return model

    trained, drawn, speeds = [], [], iter([100.0, 101.0])
    monkeypatch.setenv("DIGITS_DATA", str(stand_in))
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(recipes, "find", lambda name: ("ours", train))
    monkeypatch.setattr(recipes, "recipe_hash", lambda *arguments: " ".join(map(str, arguments)))
    monkeypatch.setattr(benchmark, "matmul_gflops", lambda: next(speeds))
    row = benchmark.run("a name", 2, group, "a purpose" if group is None else None)
    with np.load(stand_in) as file:
        x_all, y_all, y_test = file["x_train"], file["y_train"], file["y_test"]
    keras.utils.set_random_seed(2)
    assert drawn == [np.random.random()], "the references take their seed from here"
    ((x_train, t_train), (x_val, t_val)) = trained[0]
    assert t_train.shape == (len(x_train), 10) and t_val.shape == (len(x_val), 10)
    if group in (None, "published"):
        assert row["group"] == (group or "ours")
        assert row["test_errors"] == np.sum(y_test != 3)
        assert row["test_wrong"] == " ".join(map(str, np.flatnonzero(y_test != 3)))
    else:
        assert "test_errors" not in row and "test_wrong" not in row
    held_out = {None: t_val.argmax(axis=1), "published": y_all[:0]}
    held_out = held_out.get(group, y_all[benchmark.fold(len(y_all), 2)])
    assert row["val_images"] == len(held_out)
    assert row["held_back"] == {None: "at random", "published": "none"}.get(group, "in a row")
    if group == "published":
        assert not {"val_errors", "val_wrong", "val_loss"} & set(row)
        assert len(x_train) == len(y_all)
    else:
        wrong = held_out != 3
        assert row["val_errors"] == wrong.sum()
        assert row["val_wrong"] == " ".join(map(str, np.flatnonzero(wrong)))
        log_sum = np.log(9 + np.exp(5))
        assert row["val_loss"] == pytest.approx(log_sum - 5 * np.mean(~wrong), abs=1e-4)
    if group == "folds":
        scored = {image.tobytes() for image in x_all[benchmark.fold(len(y_all), 2)]}
        seen = {np.uint8(255 * image + 0.5).tobytes() for image in (*x_train, *x_val)}
        assert not seen & scored, "no decision is made on what is scored"
        assert not {"training_seconds", "matmul_gflops"} & set(row), "runs in the background"
    else:
        assert row["matmul_gflops"] == 100.5 and row["seconds_to_99.0"] == 0.5
        operations = 6 * 7840 * len(x_train) * 2  # six for a multiply-accumulate, two epochs
        assert row["training_gflops"] == pytest.approx(operations / 1e-6 / 1e9, rel=1e-3)
    assert row["mmac"] == 0.008 and row["parameters"] == 7850
    assert row["recipe_hash"] == f"a name {len(x_train)} {row['held_back']} stand-in"
    assert row["epochs"] == 2 and row["training_images"] == len(x_train) and row["seed"] == 2
    assert row["purpose"] == ("a purpose" if group is None else benchmark.PURPOSES[group])
    assert row["data"] == "stand-in" and row["keras"] == keras.__version__


@pytest.mark.parametrize("group, kept", [("controls", "curves"), ("changes", "val_wrong_views")])
def test_what_only_some_groups_keep(group, kept, monkeypatch, stand_in):
    import keras
    import recipes

    def train(train, val, seed, stopwatch):
        stopwatch.epochs, stopwatch.seconds = 1, 1.0
        stopwatch.curves = {"loss": [0.5]}
        model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
        model.add(keras.layers.Dense(10, activation="softmax"))
        return model

    def views(model, images):
        return np.eye(10)[np.full(len(images), 7)]

    train.predict_tta = views
    monkeypatch.setenv("DIGITS_DATA", str(stand_in))
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "1")
    monkeypatch.setattr(recipes, "find", lambda name: (group, train))
    monkeypatch.setattr(recipes, "recipe_hash", lambda *arguments: "")
    row = benchmark.run("a name", 3)
    assert {"curves", "val_wrong_views"} & set(row) == {kept}
    assert "training_seconds" not in row, "not alone on the machine"
    if group == "controls":
        assert json.loads(row["curves"]) == {"loss": [0.5]}
    else:
        with np.load(stand_in) as file:
            held_out = file["y_train"][benchmark.fold(len(file["y_train"]), 3)]
        assert row["val_wrong_views"] == " ".join(map(str, np.flatnonzero(held_out != 7)))


def test_the_speed_of_a_matrix_product_is_the_median(monkeypatch):
    ticks = iter([0, 1, 10, 13, 20, 22, 30, 34, 40, 45])  # 1, 3, 2, 4, and 5 seconds
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert benchmark.matmul_gflops(size=100) == pytest.approx(2 * 100**3 / 3 / 1e9)


def test_a_run_of_its_own_gets_its_share_of_the_cores(monkeypatch):
    calls = []

    def fake(command, env, stderr):
        calls.append((command, env))
        Path(command[command.index("--into") + 1]).write_text('{"seed": 4}')
        return SimpleNamespace(returncode=0)

    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(benchmark.subprocess, "run", fake)
    monkeypatch.setattr(benchmark.os, "cpu_count", lambda: 8)
    assert benchmark.run_alone("a name", 4, "folds", 1, None) == {"seed": 4}
    assert benchmark.run_alone("a name", 4, "changes", 2, "why") == {"seed": 4}
    (alone, own), (shared, others) = calls
    assert "TF_NUM_INTRAOP_THREADS" not in own
    assert others["TF_NUM_INTRAOP_THREADS"] == "4" and others["TF_NUM_INTEROP_THREADS"] == "1"
    assert alone[-5:] == ["a name", "--seeds", "4", "--group", "folds"]
    assert shared[-4:] == ["--group", "changes", "--purpose", "why"]


def test_backends_take_turns_each_in_a_process_of_its_own(tmp_path, monkeypatch):
    asked = ask(monkeypatch, tmp_path / "table.csv", "backends")
    backends = ("tensorflow", "tensorflow-without-onednn", "jax", "torch")
    names = [f"backend-{name}" for name in backends]
    assert asked == [("backends", name, seed) for seed in (1, 2) for name in names]
    everything = ask(monkeypatch, tmp_path / "table.csv", "all")
    assert everything and not {name for _, name, _ in everything} & set(names)
    with pytest.raises(SystemExit, match="without --jobs"):
        benchmark.main(["backend-jax", "--jobs", "2"])


def test_a_backend_is_chosen_by_the_environment(monkeypatch):
    chosen = []

    def fake(command, env, stderr):
        chosen.append((env.get("KERAS_BACKEND"), env.get("TF_ENABLE_ONEDNN_OPTS")))
        Path(command[command.index("--into") + 1]).write_text("{}")
        return SimpleNamespace(returncode=0)

    for name in ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(benchmark.subprocess, "run", fake)
    for name in benchmark.BACKENDS:
        benchmark.run_alone(name, 1, "backends", 1, None)
    benchmark.run_alone("ours-08", 1, "folds", 1, None)
    on_tensorflow = [("tensorflow", "1"), ("tensorflow", "0")]
    assert chosen == [*on_tensorflow, ("jax", "1"), ("torch", "1"), (None, None)]


def test_where_it_ran_and_with_how_much_memory():
    assert re.fullmatch(rf".+, {benchmark.os.cpu_count()} cores, \w+", benchmark.machine())
    memory = benchmark.peak_memory_mb()
    assert memory is None or 100 < memory < 100_000
    assert benchmark.places(np.array([True, False, True])) == "0 2"


def test_the_stopwatch_leaves_out_validation(monkeypatch):
    from recipes import Stopwatch

    clock = iter([100, 110, 150, 153, 200, 207])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    stopwatch = Stopwatch()  # 100
    stopwatch.on_test_begin()  # 110: 10 seconds of training
    stopwatch.on_test_end()  # 150: validation does not count
    stopwatch.on_epoch_end(0, {"val_accuracy": 0.991, "loss": 0.1})
    stopwatch.on_test_begin()  # 153: 3 more
    stopwatch.on_test_end()  # 200
    stopwatch.on_epoch_end(1, {"val_accuracy": 0.996, "loss": 0.05})
    stopwatch.on_train_end()  # 207: 7 more
    assert stopwatch.seconds == 20 and stopwatch.epochs == 2
    assert stopwatch.reached == {0.990: 10, 0.995: 13}
    assert stopwatch.curves == {"val_accuracy": [0.991, 0.996], "loss": [0.1, 0.05]}


def test_without_validation_nothing_is_counted_twice(monkeypatch):
    """A recipe that calls fit twice, as ours-wide-60k does, which has no held-out images."""
    from recipes import Stopwatch

    clock = iter([100, 110, 117])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    stopwatch = Stopwatch()  # 100
    stopwatch.on_epoch_end(0, {"loss": 0.1})
    stopwatch.on_train_end()  # 110: 10 seconds
    stopwatch.on_epoch_end(1, {"loss": 0.05})
    stopwatch.on_train_end()  # 117: 7 more
    assert stopwatch.seconds == 17 and stopwatch.epochs == 2 and stopwatch.reached == {}


def test_the_clock_of_the_quick_recipe_stops_before_it_is_scored(monkeypatch):
    """On a clock that training moves by 3 seconds and prediction by 100."""
    import recipes

    class Network:
        def predict(self, images, verbose):
            clock[0] += 100
            return np.eye(10)[np.arange(len(images)) % 10]

    def train_fast(images, targets):
        clock[0] += 3
        return Network()

    clock = [0]
    monkeypatch.setattr(recipes, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setitem(recipes.EIGHT, "train_fast", train_fast)
    images = np.zeros((1000, 28, 28, 1), "float32"), np.eye(10)[np.arange(1000) % 10]
    stopwatch = recipes.Stopwatch()
    recipes.ours_fast(images, images, 1, stopwatch)
    assert stopwatch.seconds == 3 and stopwatch.epochs == 1
    assert stopwatch.reached == {0.990: 3, 0.995: 3}


def test_keras_tells_the_stopwatch_when_validation_begins_and_ends(monkeypatch):
    """On a clock that each training batch moves by a second and each validation batch by 100."""
    import keras
    import recipes

    class Clock(keras.callbacks.Callback):
        now = 0

        def on_train_batch_end(self, batch, logs=None):
            self.now += 1

        def on_test_batch_end(self, batch, logs=None):
            self.now += 100

    clock = Clock()
    monkeypatch.setattr(recipes, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    images = np.zeros((32, 28, 28, 1), "float32"), np.eye(10, dtype="float32")[np.arange(32) % 10]
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
    stopwatch = recipes.Stopwatch()
    options = {"batch_size": 16, "validation_data": images, "verbose": 0}
    model.fit(*images, epochs=3, callbacks=[clock, stopwatch], **options)
    assert clock.now == 3 * 2 + 3 * 200
    assert stopwatch.seconds == 6 and stopwatch.epochs == 3


# --- the script ----------------------------------------------------------------------------------


def test_every_change_of_the_notebook_has_been_measured():
    from recipes import CHANGES

    changes = TABLE[TABLE["group"] == "changes"]
    assert changes["held_back"].eq("in a row").all()
    for name in CHANGES:
        assert changes.loc[changes["recipe"] == name, "seed"].nunique() >= 3, name


def test_a_run_is_added_once_and_the_rest_stays(tmp_path, stand_in, monkeypatch, capsys):
    monkeypatch.setenv("DIGITS_DATA", str(stand_in))
    table = tmp_path / "table.csv"
    benchmark.main(["train-mnist-fast", "--seeds", "1", "--table", str(table)])
    (first,) = pd.read_csv(table).to_dict("records")
    assert first["recipe"] == "train-mnist-fast" and first["data"] == "stand-in"
    assert first["training_seconds"] > 0 and first["matmul_gflops"] > 1
    assert first["test_errors"] == len(first["test_wrong"].split())
    benchmark.main(["train-mnist-fast", "--seeds", "1", "2", "--table", str(table)])
    both = pd.read_csv(table).to_dict("records")
    assert [row["seed"] for row in both] == [1, 2]
    assert both[0]["date"] == first["date"] and both[0]["val_loss"] == first["val_loss"]
    assert "1 runs to do" in capsys.readouterr().out


def test_an_ensemble_grows_by_one_member_at_a_time(tmp_path, stand_in, monkeypatch, capsys):
    """It can be interrupted: what is in the table, and in members' files, is not done again."""
    folder = ROOT / "data" / "ensemble-quick-stand-in"
    shutil.rmtree(folder, ignore_errors=True)
    monkeypatch.setenv("DIGITS_DATA", str(stand_in))
    table = tmp_path / "table.csv"
    benchmark.main(["ensemble-quick", "--seeds", "1", "--table", str(table)])
    moment = (folder / "member-1.npz").stat().st_mtime_ns
    benchmark.main(["ensemble-quick", "--seeds", "1", "2", "--table", str(table)])
    assert "1 runs to do" in capsys.readouterr().out
    rows = pd.read_csv(table)
    assert list(rows["members"]) == [1, 2] and rows["data"].eq("stand-in").all()
    assert (folder / "member-1.npz").stat().st_mtime_ns == moment
    members = [np.load(folder / f"member-{k}.npz") for k in (1, 2)]
    mean = {part: np.mean([member[part] for member in members], axis=0) for part in ("val", "test")}
    with np.load(stand_in) as file:
        wrong = mean["test"].argmax(axis=1) != file["y_test"]
        own = members[1]["test"].argmax(axis=1) != file["y_test"]
        y_val = definitions("02", "split")["split"](file["x_train"], file["y_train"])[3]
    assert (
        rows["ensemble_errors"].iloc[1] == wrong.sum()
        and rows["member_errors"].iloc[1] == own.sum()
    )
    assert rows["ensemble_wrong"].iloc[1] == benchmark.places(wrong)
    assert rows["val_errors"].iloc[1] == np.sum(mean["val"].argmax(axis=1) != y_val)
    assert rows["val_loss"].iloc[1] == pytest.approx(log_loss(y_val, mean["val"]), abs=1e-4)
    shutil.rmtree(folder)


def test_a_stream_is_scored_by_workers(tmp_path, stand_in, monkeypatch):
    folders = [ROOT / "data" / name for name in ("stream-stand-in-2000", "ensemble-quick-stand-in")]
    monkeypatch.setenv("DIGITS_DATA", str(stand_in))
    table = tmp_path / "table.csv"
    monkeypatch.setitem(benchmark.GROUPS, "streams", {"stream-2000": 1})
    benchmark.main(["stream-2000", "--seeds", "1", "--table", str(table)])
    (row,) = pd.read_csv(table).to_dict("records")
    assert row["images"] == 2000 and 0 < row["stream_errors"] < 2000
    assert row["images_per_second"] > 0 and 100 < row["peak_memory_mb"] < 1500
    for folder in folders:
        shutil.rmtree(folder)


def test_members_are_trained_in_a_race(tmp_path, stand_in, monkeypatch):
    monkeypatch.setenv("DIGITS_DATA", str(stand_in))
    table = tmp_path / "table.csv"
    monkeypatch.setitem(benchmark.GROUPS, "races", {"race-2-1": 2})
    benchmark.main(["race-2-1", "--seeds", "2", "--table", str(table)])
    (row,) = pd.read_csv(table).to_dict("records")
    assert (row["members"], row["workers"], row["seed"]) == (2, 1, 2)
    assert row["training_seconds"] > 0.5 and "test_errors" not in row


@pytest.fixture
def readers(stand_in, tmp_path, monkeypatch):
    """The module that trains readers, with very little to do, and an untrained model of 04."""
    import readers

    monkeypatch.setenv("DIGITS_DATA", str(stand_in))
    monkeypatch.setattr(readers, "MODEL", tmp_path / "model.keras")
    monkeypatch.setattr(readers, "N_IMAGES", 6)
    monkeypatch.setattr(readers, "N_PAGES", 1)
    definitions("04", "build_cnn")["build_cnn"]("cnn_toy").save(readers.MODEL)
    return readers


def test_a_reader_is_trained_and_measured(readers, monkeypatch, capsys):
    used, read_pages = {}, readers.read_pages

    def spy(names, reader):
        used.update(names, reader=reader)
        return read_pages(names, reader)

    monkeypatch.setattr(readers, "read_pages", spy)
    row = readers.measure_reader("reader", 1)
    assert "training on 2" in capsys.readouterr().out  # about 44 times 6 images
    p = used["reader"].predict(used["x_dev"][..., np.newaxis], verbose=0)
    wrong = p[:, :10].argmax(axis=1) != used["y_dev"]
    assert row["val_wrong"] == benchmark.places(wrong) and row["val_errors"] == wrong.sum() > 0
    assert row["val_images"] == len(wrong) and row["data"] == "stand-in"
    assert 0 < row["turkish_errors"] < row["turkish_images"] == 897
    assert 0 < row["auroc"] < 1 and 0 < row["page_errors"] <= row["page_digits"] == 24
    readers.MODEL.unlink()
    with pytest.raises(FileNotFoundError, match="run notebook 04 first"):
        readers.measure_reader("reader", 1)


def test_notebook_09_shows_the_readers_of_the_table():
    rows = TABLE[TABLE["group"].eq("readers") & TABLE["superseded"].isna()].sort_values("seed")
    shown = {}
    for name, mine in rows.groupby("recipe"):
        columns = mine[["val_errors", "turkish_errors", "page_errors"]].astype(int)
        text = ", ".join(" ".join(map(str, columns[column])) for column in columns)
        shown[name.removeprefix("reader").removeprefix(" without ") or "(complete training)"] = text
    lines = definitions("09", "WITHOUT")["WITHOUT"].strip().splitlines()
    assert dict(line.split(": ") for line in lines) == shown
    assert set(rows["val_images"]) == {2500} and set(rows["turkish_images"]) == {897}
    assert set(rows["page_digits"]) == {240} and set(rows["seed"]) == {1, 2}


def test_what_is_left_out_is_left_out(readers, tmp_path):
    made = {}
    for name, leave_out in readers.LEFT_OUT.items():
        names = readers.notebook_09(tmp_path)
        leave_out(names)
        sources = dict(names["sources"])
        if "Turkey" in name:
            sources["Turkish"] = None  # an error, if it is used
        if "drawn" in name:
            names["STYLES"] = None
        if "scribbles" in name:
            names["draw_letter"] = None
        images, classes = names["make_reader_data"](np.random.default_rng(0), sources, 6)
        made[name] = images.tobytes(), np.sum(classes == names["NOT_A_DIGIT"])
    assert len({images for images, _ in made.values()}) == len(readers.LEFT_OUT), "all differ"
    assert made["reader without touching digits"][1] < 0.7 * made["reader"][1]
    shape = np.zeros((56, 56))
    shape[8:48, 27:29] = 1  # a line: shear turns it, together with up to 15° of rotation
    lean = {}
    for name in ("reader", "reader without strong shear"):
        names = readers.notebook_09(tmp_path)
        readers.LEFT_OUT[name](names)
        turned = [names["distort"](shape, np.random.default_rng(k)) for k in range(40)]
        lean[name] = max(np.ptp(np.nonzero(one)[1]) for one in turned)
    assert lean["reader without strong shear"] < lean["reader"] - 5
    names = readers.notebook_09(tmp_path)
    readers.LEFT_OUT["reader without other pens"](names)
    kept, again = (names["with_any_pen"](shape > 0, np.random.default_rng(k)) for k in (1, 2))
    np.testing.assert_array_equal(kept, again)


def test_what_has_superseded_a_row_stays_as_it_was(tmp_path):
    table = tmp_path / "table.csv"
    for reason in ("by another recipe", ""):
        benchmark.append(table, {"recipe": "notebook 04", "superseded": reason})
    new = {"recipe": "notebook 04", "superseded": ""}
    benchmark.append(table, new, lambda old: old["recipe"] == "notebook 04")
    reasons = list(pd.read_csv(table)["superseded"].fillna(""))
    assert reasons == ["by another recipe", "by a later execution", ""]


def test_a_failed_run_leaves_the_table_as_it_was(tmp_path, monkeypatch, capsys):
    table = tmp_path / "table.csv"
    benchmark.append(table, {"group": "ours", "recipe": "a", "seed": 1, "superseded": ""})
    before = table.read_bytes()
    monkeypatch.setenv("DIGITS_DATA", str(tmp_path / "nothing.npz"))
    with pytest.raises(SystemExit, match="train-mnist-fast, seed 1, failed(.|\n)*nothing.npz"):
        benchmark.main(["train-mnist-fast", "--seeds", "1", "2", "--table", str(table)])
    assert table.read_bytes() == before
    assert "2 of 2" not in capsys.readouterr().out, "after a failure nothing else begins"


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(SystemExit, match="nonsense is neither a recipe nor a group.*ghouzam"):
        benchmark.main(["nonsense"])


def test_what_is_chosen_by_name_and_how_often():
    tried = '{"epochs": 3}'  # a recipe that has no name
    assert benchmark.choose(["ours-08", tried])["search", tried] == 1
    assert benchmark.choose(["ours-08"])["ours", "ours-08"] == 5
    chosen = benchmark.choose(["all"])
    assert {"ours", "references", "changes"} <= {group for group, _ in chosen}
    assert not {"backends", "readers"} & {group for group, _ in chosen}, "only if they are named"
    folds = benchmark.choose(["folds", "ours-08", tried])
    assert folds == {("folds", "ours-08"): 6, ("folds", tried): 6}


@pytest.mark.parametrize(
    "wish, why",
    [('{"drop_out": 0.5}', "08's recipe has no drop_out"), ('{"dropout": 0.5', "delimiter")],
)
def test_a_change_that_would_do_nothing_is_refused(wish, why):
    with pytest.raises(SystemExit, match=why):
        benchmark.main([wish])


def test_limits_keep_their_name_in_the_table(monkeypatch):
    import recipes

    monkeypatch.setattr(recipes, "modern", lambda changes: changes)
    group, changes = recipes.find('{"distortion": {"bend": 0.5, "shift": 1}}')
    (layer,) = (kind() for kind in changes["augmentation"])
    assert group == "search"
    assert layer.elastic == 0.5 and np.array_equal(layer.limits[-2:, 0], [1, 1])


def test_nothing_but_mnist_comes_into_the_committed_table(monkeypatch, tmp_path):
    monkeypatch.setenv("DIGITS_DATA", str(tmp_path / "my-own.npz"))
    with pytest.raises(SystemExit, match="unset DIGITS_DATA"):
        benchmark.main(["keras-io"])
    with pytest.raises(SystemExit, match="without --jobs"):
        benchmark.main(["keras-io", "--jobs", "2"])


def test_status_tells_what_there_is(capsys, tmp_path):
    benchmark.main([])
    lines = capsys.readouterr().out.splitlines()
    ghouzam, in_folds = (line for line in lines if line.startswith("  ghouzam "))
    assert ghouzam.startswith(f"  {'ghouzam':32} {len(of('ghouzam')):2} of 2 runs, ")
    assert ghouzam.endswith(" % on the test set, 2360.1 s")
    assert " of 6 runs" in in_folds and "test set" not in in_folds
    (fast,) = (line for line in lines if line.startswith("  ours-fast "))
    assert " 10 of 10 runs," in fast, "those of earlier versions are not counted"
    benchmark.main(["--table", str(tmp_path / "not-there-yet.csv")])
    assert "ghouzam" in capsys.readouterr().out


def test_a_new_row_leaves_the_text_of_the_others_as_it_is(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text('recipe,seed,val_loss\n"{""a"": 1}",1.0,0.10\nb,,1e-5\n')
    benchmark.append(table, {"recipe": "c", "commit": "abc"})
    assert table.read_text() == (
        'recipe,seed,val_loss,commit\n"{""a"": 1}",1.0,0.10,\nb,,1e-5,\nc,,,abc\n'
    )
    assert list(tmp_path.iterdir()) == [table]


def ask(monkeypatch, table, *arguments):
    """The runs that the script would do, in their order: (group, recipe, seed)."""
    asked = []

    def run_alone(name, seed, group, jobs, purpose):
        asked.append((group, name, seed))
        return {"recipe": name, "group": group, "seed": seed, "purpose": purpose}

    monkeypatch.setattr(benchmark, "run_alone", run_alone)
    benchmark.main([*arguments, "--table", str(table)])
    return asked


def test_two_runs_at_a_time_do_not_write_at_the_same_time(tmp_path, monkeypatch):
    def append(table, row):
        assert not writing, "two rows at the same time: one would be lost"
        writing.append(row)
        time.sleep(0.1)
        writing.remove(row)
        written.append(row["seed"])

    writing, written = [], []
    monkeypatch.setattr(benchmark, "append", append)
    asked = ask(monkeypatch, tmp_path / "table.csv", "folds", "ours-04", "--jobs", "2")
    assert sorted(written) == sorted(seed for *_, seed in asked) == [1, 2, 3, 4, 5, 6]


def test_folds_take_turns_and_continue_where_they_were(tmp_path, monkeypatch):
    table = tmp_path / "table.csv"
    done = {"recipe": "ours-04", "group": "folds", "seed": 1, "superseded": ""}
    benchmark.append(table, done)
    benchmark.append(table, done | {"seed": 2, "superseded": "by another network"})
    benchmark.append(table, done | {"seed": 3, "group": "ours"})
    asked = ask(monkeypatch, table, "folds", "ours-04", "ours-08")
    pairs = [(name, seed) for seed in range(1, 7) for name in ("ours-04", "ours-08")]
    assert asked == [("folds", *pair) for pair in pairs[1:]]
    assert ask(monkeypatch, table, "folds", "ours-04", "ours-08") == []
    others = [name for _, name, _ in ask(monkeypatch, table, "folds")]
    assert Counter(others) == {name: 6 for name in benchmark.FOLDS if name not in dict(pairs)}
    with pytest.raises(SystemExit, match="nonsense is no recipe for folds; there are .*ours-08"):
        benchmark.main(["folds", "nonsense"])
    with pytest.raises(SystemExit, match="is no recipe for folds; 08's recipe has no drop_out"):
        benchmark.main(["folds", '{"drop_out": 1}'])
    change = '{"dropout": 0.5}'
    assert {name for _, name, _ in ask(monkeypatch, table, "folds", change)} == {change}


def test_folds_are_offered_for_changes_of_the_whole_network(tmp_path, monkeypatch):
    import recipes

    asked = ask(monkeypatch, tmp_path / "table.csv", "folds", "whole")
    assert {name for _, name, _ in asked} == set(recipes.WHOLE) and len(asked) == 6 * 13
    assert "whole: wider network" not in recipes.WHOLE
    whole = recipes.describe("whole: the recipe", 45_833)
    eight = recipes.describe("ours-08", 45_833)
    assert whole["layers"] == eight["layers"] and whole["epochs"] == 12
    for name, change in recipes.WHOLE.items():
        short = recipes.EIGHT["CHANGES"][name.removeprefix("whole: ")]
        assert {**recipes.EIGHT["SHORT"], **change, "epochs": 6} == short, name
        assert (recipes.describe(name, 45_833) == whole) == (name == "whole: the recipe"), name


def test_each_recipe_gets_as_many_seeds_as_are_wanted(tmp_path, monkeypatch):
    asked = ask(monkeypatch, tmp_path / "table.csv", "references")
    assert {name: sum(n == name for _, n, _ in asked) for _, name, _ in asked} == {
        **{"ghouzam": 2, "deotte": 1, "keras-io": 3, "train-mnist-fast": 10}
    }
    assert [seed for _, _, seed in asked] == sorted(seed for _, _, seed in asked)
    table = tmp_path / "seeds.csv"
    assert ask(monkeypatch, table, "keras-io", "--seeds", "7", "9") == [
        *(("references", "keras-io", seed) for seed in (7, 9))
    ]


def test_a_row_says_which_commit_made_it():
    name = git("rev-parse", "--short=7", "HEAD").strip()
    assert benchmark.commit().rstrip("+") == name


@pytest.mark.parametrize("changed, mark", [(0, ""), (1, "+")])
def test_a_row_says_whether_files_differ_from_the_commit(changed, mark, monkeypatch):
    def fake(command, **options):
        return SimpleNamespace(stdout="abcdef0\n", returncode=changed if "diff" in command else 0)

    monkeypatch.setattr(benchmark.subprocess, "run", fake)
    assert benchmark.commit() == "abcdef0" + mark


# --- ideas that 08's recipe does not have ---------------------------------------------------------

TINY = {"blocks": [[4, 5, True], [4, 3, False], [4, 3, True], [8, 4, False]], "epochs": 4}


def some_images(n=256):
    random = np.random.default_rng(0)
    labels = random.integers(10, size=n)
    return random.random((n, 28, 28, 1), "float32"), np.eye(10, dtype="float32")[labels]


def test_each_idea_gives_another_hash():
    import recipes

    ideas = [{}, {"stage_dropout": 0.1}, {"hidden": 16}, {"clean_end": 0.5}, {"consistency": 1.0}]
    ideas += [{"consistency": 2.0}]
    hashes = [recipes.recipe_hash(json.dumps(TINY | i), 256, "in a row") for i in ideas]
    assert len(set(hashes)) == len(ideas)
    unchanged = json.dumps(TINY | dict(recipes.EXTRAS))
    assert recipes.recipe_hash(unchanged, 256, "in a row") == hashes[0]


def test_dropout_follows_each_stage_and_a_hidden_layer_the_features():
    import keras
    import recipes

    name = json.dumps(TINY | {"stage_dropout": 0.1, "hidden": 16})
    found = [kind for kind, _ in recipes.describe(name, 256)["layers"] if kind[0].isupper()]
    assert found == [
        *("Conv2D", "MaxPooling2D", "BatchNormalization", "Dropout"),
        *("Conv2D", "BatchNormalization"),
        *("Conv2D", "MaxPooling2D", "BatchNormalization", "Dropout"),
        *("Conv2D", "BatchNormalization", "Flatten", "Dropout", "Dense", "Dropout", "Dense"),
    ]
    cnn, training = recipes.EIGHT["prepare_training"](recipes.EIGHT["RECIPE"] | TINY, 256)
    new, _ = recipes.with_extras(cnn, training, recipes.EXTRAS | {"hidden": 16})
    assert new.count_params() == cnn.count_params() - 90 + 9 * 16 + 17 * 10
    assert isinstance(new.layers[-1], keras.layers.Dense) and new.output_shape == (None, 10)


def test_a_clean_end_trains_on_without_augmentation_and_with_the_same_schedule(monkeypatch):
    import keras
    import recipes

    calls = []

    def fit(model, *data, initial_epoch=0, epochs=None, **options):
        kinds = [type(layer).__name__ for layer in model.layers]
        calls.append((initial_epoch, epochs, "RandomDistortion" in kinds, model.optimizer))

    monkeypatch.setattr(keras.Sequential, "fit", fit)
    _, train = recipes.find(json.dumps(TINY | {"clean_end": 0.25}))
    train(some_images(), some_images(8), 1, recipes.Stopwatch())
    (first, second) = calls
    assert first[:3] == (0, 3, True) and second[:3] == (3, 4, False)
    assert first[3] is second[3], "one optimizer, so one learning rate schedule"


def test_a_network_with_every_idea_is_trained():
    import recipes

    every = {"stage_dropout": 0.1, "hidden": 16, "clean_end": 0.5, "consistency": 1.0}
    _, train = recipes.find(json.dumps(TINY | every))
    (images, targets), stopwatch = some_images(), recipes.Stopwatch()
    cnn = train((images, targets), some_images(8), 1, stopwatch)
    assert stopwatch.epochs == 4, "two with augmentation, each image in two views, and two without"
    assert np.isfinite(stopwatch.curves["loss"]).all() and len(stopwatch.curves["loss"]) == 4
    p = cnn.predict(images, verbose=0)
    assert p.shape == targets.shape and np.allclose(p.sum(axis=1), 1, atol=1e-5)
    assert np.ptp(p, axis=0).min() > 0, "it looks at the images"


def test_consistency_costs_what_two_views_disagree_about():
    import keras
    import recipes

    class Flip(keras.layers.Layer):  # every second call gives another network's answer
        calls = 0

        def call(self, p):
            self.calls += 1
            return p if self.calls % 2 else p[:, ::-1]

    p = np.full((1, 10), 0.05, "float32")
    p[0, 2] = 0.55
    label = np.eye(10, dtype="float32")[[2]]
    model = recipes.Consistent([keras.Input((10,)), Flip()])
    model.compile("sgd", "categorical_crossentropy")
    flip = model.layers[-1]
    for weight in (0.0, 1.0, 3.0):
        model.weight, flip.calls = weight, 1  # the first view was seen: the second is flipped
        loss = float(model.compute_loss(p, label, keras.ops.convert_to_tensor(p), training=True))
        two_losses = -(np.log(0.55) + np.log(0.05)) / 2
        divergence = 0.5 * np.log(0.55 / 0.05)  # twice 0.5 · log 11, and half of that
        assert loss == pytest.approx(two_losses + weight * divergence, rel=1e-4)
    alone = float(model.compute_loss(p, label, keras.ops.convert_to_tensor(p), training=False))
    assert alone == pytest.approx(-np.log(0.55), rel=1e-4), "validation knows nothing of it"


def test_recomputed_statistics_are_those_of_the_images():
    import keras
    import recipes

    cnn = recipes.EIGHT["build_modern_cnn"](TINY["blocks"])
    images, _ = some_images()
    recipes.recompute_statistics(cnn, images)
    normalizing = [k for k, layer in enumerate(cnn.layers) if "normalization" in layer.name]
    assert len(normalizing) == 4
    for k in normalizing:
        upto = keras.Sequential([keras.Input((28, 28, 1)), *cnn.layers[: k + 1]])
        values = upto.predict(images, verbose=0)
        assert np.abs(values.mean(axis=(0, 1, 2))).max() < 1e-3
        assert np.abs(values.var(axis=(0, 1, 2)) - 1).max() < 0.1  # epsilon is in it


def test_folds_of_08_are_scored_with_recomputed_statistics_too(monkeypatch, stand_in):
    import recipes

    monkeypatch.setenv("DIGITS_DATA", str(stand_in))
    seen = []

    def spoil(model, images):
        """Make the model say 3 to everything."""
        seen.extend(np.uint8(255 * image + 0.5).tobytes() for image in images)
        kernel, bias = model.layers[-1].get_weights()
        model.layers[-1].set_weights([0 * kernel, bias + 5 * (np.arange(10) == 3)])

    monkeypatch.setattr(recipes, "recompute_statistics", spoil)
    row = benchmark.run(json.dumps(TINY | {"epochs": 2}), 1, "folds")
    with np.load(stand_in) as file:
        scored = benchmark.fold(len(file["y_train"]), 1)
        y_scored, x_scored = file["y_train"][scored], file["x_train"][scored]
    assert row["val_wrong_recomputed"] == benchmark.places(y_scored != 3)
    assert row["val_wrong"] != row["val_wrong_recomputed"], "scored before and after"
    assert len(seen) == row["training_images"]
    assert not set(seen) & {image.tobytes() for image in x_scored}, "images nobody has to read"
    assert row["val_errors"] == len(row["val_wrong"].split())
