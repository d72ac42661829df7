"""The benchmark: its networks are what they claim to be, and its table is written as it should."""

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import benchmark

TABLE = pd.read_csv(ROOT / "data" / "benchmarks.csv")


def of(recipe):
    return TABLE[TABLE["recipe"] == recipe]


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
    assert not TABLE.duplicated(["group", "recipe", "seed"]).any()
    for column in ("machine", "keras", "tensorflow", "date"):
        assert TABLE[column].notna().all(), column
    assert TABLE.loc[TABLE["group"] != "streams", "val_errors"].notna().all()
    whole = TABLE[TABLE["group"].isin(["references", "ours"])]
    for column in ("training_seconds", "test_errors", "test_wrong", "matmul_gflops"):
        assert whole[column].notna().all(), column
    for row in whole.itertuples():
        assert len(str(row.test_wrong).split()) == row.test_errors
    for row in TABLE[TABLE["val_wrong"].notna()].itertuples():
        assert len(str(row.val_wrong).split()) == row.val_errors
    assert TABLE.loc[TABLE["group"] == "changes", "test_errors"].isna().all(), "validation only"
    ensembles = TABLE[TABLE["group"] == "ensembles"]
    for row in ensembles.itertuples():
        assert len(str(row.ensemble_wrong).split()) == row.ensemble_errors
        assert row.members == row.seed and row.recipe == f"ensemble-{row.network}"
    for name, rows in ensembles.groupby("recipe"):
        assert sorted(rows["members"]) == list(range(1, len(rows) + 1)), f"{name}: none left out"


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
    members = [np.load(folder / f"member-{k}.npz")["test"] for k in (1, 2)]
    with np.load(stand_in) as file:
        wrong = np.mean(members, axis=0).argmax(axis=1) != file["y_test"]
        own = members[1].argmax(axis=1) != file["y_test"]
    assert (
        rows["ensemble_errors"].iloc[1] == wrong.sum()
        and rows["member_errors"].iloc[1] == own.sum()
    )
    assert rows["ensemble_wrong"].iloc[1] == benchmark.places(wrong)
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


def test_a_failed_run_leaves_the_table_as_it_was(tmp_path, monkeypatch, capsys):
    table = tmp_path / "table.csv"
    benchmark.append(table, {"group": "ours", "recipe": "a", "seed": 1})
    before = table.read_bytes()
    monkeypatch.setenv("DIGITS_DATA", str(tmp_path / "nothing.npz"))
    with pytest.raises(SystemExit, match="train-mnist-fast, seed 1, failed(.|\n)*nothing.npz"):
        benchmark.main(["train-mnist-fast", "--seeds", "1", "2", "--table", str(table)])
    assert table.read_bytes() == before
    assert "2 of 2" not in capsys.readouterr().out, "after a failure nothing else begins"


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(SystemExit, match="nonsense is neither a recipe nor a group.*ghouzam"):
        benchmark.main(["nonsense"])


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
    (ghouzam,) = (line for line in lines if line.startswith("  ghouzam "))
    assert f"{len(of('ghouzam'))} of " in ghouzam and "% on the test set" in ghouzam
    benchmark.main(["--table", str(tmp_path / "not-there-yet.csv")])
    assert "ghouzam" in capsys.readouterr().out
