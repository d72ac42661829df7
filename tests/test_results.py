"""What the notebooks leave behind, looked at anew; and whether README.md tells the truth."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import HAS_MNIST, NOTEBOOKS, ROOT, code_cells, definitions, read


@pytest.fixture(scope="module")
def left(nbval):
    """The data folder after all notebooks have run, and the test set."""
    tree, _ = nbval
    import get_mnist

    path = tree / "data" / "mnist.npz"
    if not HAS_MNIST:
        pytest.skip("without MNIST: the stand-in's results have nothing to be held to")
    _, _, x_test, y_test = get_mnist.read(path)
    return tree / "data", x_test, y_test


def test_result_csv_holds_a_good_label_for_every_image(left):
    folder, x_test, y_test = left
    result = pd.read_csv(folder / "result.csv")
    assert list(result.columns) == ["ImageId", "Label"]
    assert list(result["ImageId"]) == list(range(1, len(x_test) + 1))
    assert result["Label"].between(0, 9).all()
    assert np.mean(result["Label"] == y_test) >= 0.994


def test_the_model_file_gives_the_labels_of_result_csv(left):
    import keras

    folder, x_test, y_test = left
    model = keras.models.load_model(folder / "model.keras")
    probabilities = model.predict(x_test[..., None].astype("float32") / 255, verbose=0)
    assert probabilities.shape == (10_000, 10)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)
    labels = pd.read_csv(folder / "result.csv")["Label"]
    assert np.mean(probabilities.argmax(axis=1) == labels) > 0.9999
    plain = keras.models.load_model(folder / "model-plain.keras")
    plain_labels = plain.predict(x_test[..., None].astype("float32") / 255, verbose=0)
    assert np.mean(plain_labels.argmax(axis=1) == y_test) >= 0.985


def test_the_history_tells_of_every_epoch(left):
    folder, _, _ = left
    history = pd.read_csv(folder / "history.csv")
    assert list(history["epoch"]) == list(range(1, len(history) + 1))
    assert history["learning_rate"].is_monotonic_decreasing
    assert history["learning_rate"].iloc[-1] < history["learning_rate"].iloc[0]
    assert history["val_accuracy"].max() >= 0.994
    assert not list(folder.glob("training-*")) and not list(folder.glob("unfinished-*"))


def test_the_model_file_is_the_best_epoch(left):
    import get_mnist
    import keras

    folder, _, _ = left
    x_all, y_all, _, _ = get_mnist.read(folder / "mnist.npz")
    _, x_val, _, y_val = definitions("02", "split")["split"](x_all, y_all)
    model = keras.models.load_model(folder / "model.keras")
    p = model.predict(x_val[..., None].astype("float32") / 255, verbose=0)
    best = pd.read_csv(folder / "history.csv")["val_accuracy"].max()
    assert np.mean(p.argmax(axis=1) == y_val) == pytest.approx(best, abs=1.5 / len(y_val))


# --- README.md ---------------------------------------------------------------------------------

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAPERS = ["README.md", "CONTRIBUTING.md", "TEACHING.md", "data/README.md"]


def stored_text(number):
    path = next(path for path in NOTEBOOKS if path.name.startswith(number))
    outputs = [output for cell in code_cells(read(path)) for output in cell.outputs]
    return "\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs)


def test_readme_accuracies_are_those_of_the_stored_outputs():
    sentence = r"\d\d\.\d\d%: \d+ errors in [\d,]+ \(95% interval \d\d\.\d\d% to \d\d\.\d\d%\)"
    quoted = re.findall(sentence, README)
    assert len(quoted) == 2, "with and without augmentation"
    assert quoted == re.findall(sentence, stored_text("05"))[:2], "the two lines of the headline"


def test_readme_baselines_are_those_of_the_stored_outputs():
    baselines = re.findall(r"(\d+) errors in 10,000: ([\d.]+)% wrong", stored_text("01"))
    assert len(baselines) == 2
    for errors, percent in baselines:
        assert re.search(rf"\b{re.escape(percent)}%( wrong)? \({errors} errors", README)


@pytest.fixture(scope="module")
def quiet():
    """What notebook 00 says of the quiet machine whose times are quoted everywhere."""
    cells = [cell for cell in code_cells(read(NOTEBOOKS[0])) if "measured_seconds" in cell.source]
    known = {}
    exec(cells[0].source, known)
    assert set(known["measured_seconds"]) == {path.name[:2] for path in NOTEBOOKS}
    return known


def test_readme_minutes_are_those_of_notebook_00(quiet):
    for path in NOTEBOOKS:
        row = next(line for line in README.splitlines() if f"(notebooks/{path.name})" in line)
        seconds = quiet["measured_seconds"][path.name[:2]]
        assert row.rstrip(" |").endswith(f"{seconds / 60:.1f} min"), f"{path.stem}: {seconds} s"
    assert f"{quiet['measured_gflops']} GFLOP/s" in README


def test_the_teachers_page_has_the_same_minutes(quiet):
    page = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
    for number, seconds in quiet["measured_seconds"].items():
        assert f"| {number} | {seconds / 60:.1f} min |" in page, number


def test_readme_says_how_long_the_stored_run_took():
    seconds = sum(read(path).metadata["measured"]["seconds"] for path in NOTEBOOKS)
    assert f"all twelve notebooks together took {seconds / 60:.0f} minutes" in README


@pytest.fixture(scope="module")
def counted():
    """The rows of the benchmark whose recipes are as they are defined today."""
    sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
    import benchmark

    return benchmark.counted(benchmark.read(benchmark.TABLE))


def test_readme_comparison_is_that_of_the_benchmark(counted):
    assert counted["recipe"].nunique() == README.count("\n| `") == 11
    for name, runs in counted.groupby("recipe"):
        accuracy, seconds = 100 - runs["test_errors"] / 100, runs["training_seconds"].dropna()
        if len(runs) > 2:  # fewer are no basis for a standard deviation
            result = f"{accuracy.mean().round(2):.2f}% ± {accuracy.std():.2f}%"
        else:
            result = ", ".join(f"{value:.2f}%" for value in accuracy)
        times = f" ({seconds.min():.0f} to {seconds.max():.0f})" if len(seconds) > 1 else ""
        time = f"{seconds.mean():.0f} s{times}" if len(seconds) else "not timed"
        expected = f"| {len(runs)} | {result} | {time} |"
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.endswith(expected), f"{name}: {expected}"


def test_readme_range_of_errors_is_that_of_the_benchmark(counted):
    table = pd.read_csv(ROOT / "data" / "benchmarks.csv")
    sentence = r"three such runs \(`ours-04-plain`\) made (\d+) to (\d+) errors"
    plain = table.loc[table["recipe"] == "ours-04-plain", "test_errors"]
    assert len(plain) == 3
    assert re.findall(sentence, README) == [(f"{plain.min():.0f}", f"{plain.max():.0f}")]
    sentence = r"eight runs with augmentation \(`ours-04`\) made (\d+) to (\d+)"
    errors = counted.loc[counted["recipe"] == "ours-04", "test_errors"]
    assert len(errors) == 8
    assert re.findall(sentence, README) == [(f"{errors.min():.0f}", f"{errors.max():.0f}")]


def test_readme_says_how_often_the_test_set_was_looked_at():
    table = pd.read_csv(ROOT / "data" / "benchmarks.csv")
    (quoted,) = re.findall(r"(\d+) training runs have been scored on the test set", README)
    assert int(quoted) == table["test_errors"].notna().sum()


def test_readme_backends_are_those_of_the_benchmark():
    table = pd.read_csv(ROOT / "data" / "benchmarks.csv", low_memory=False)
    runs = table[(table["group"] == "backends") & table["superseded"].isna()]
    assert (runs["val_images"] == 10_000).all() and (runs["epochs"] == 5).all()
    for name in ("TensorFlow", "PyTorch", "JAX"):
        recipe = "backend-" + {"PyTorch": "torch"}.get(name, name.lower())
        seconds = sorted(runs.loc[runs["recipe"] == recipe, "training_seconds"].round())
        quoted = re.findall(rf"(\d+) and (\d+) s on {name}\b", README)
        assert quoted == [tuple(f"{value:.0f}" for value in seconds)], name
    errors = runs.loc[~runs["recipe"].str.contains("without"), "val_errors"]
    quoted = re.findall(r"of the 10,000 other training images, (\d+) to (\d+) were misread", README)
    assert quoted == [(f"{errors.min():.0f}", f"{errors.max():.0f}")]


def test_readme_folds_are_those_of_the_benchmark():
    table = pd.read_csv(ROOT / "data" / "benchmarks.csv", low_memory=False)
    folds = table[(table["group"] == "folds") & table["superseded"].isna()]
    errors = folds.pivot(index="seed", columns="recipe", values="val_errors")
    assert (folds["val_images"] == 10_000).all() and len(errors) == 6
    sentence = r"`ours-04` makes ([\d.]+) errors per 10,000 and `ours-08` ([\d.]+), fewer in each"
    (quoted,) = re.findall(sentence, README)
    assert quoted == tuple(f"{errors[name].mean():.1f}" for name in ("ours-04", "ours-08"))
    assert (errors["ours-08"] < errors["ours-04"]).all()
    (quoted,) = re.findall(r"`ours-wide`, chosen by these six parts, makes ([\d.]+)", README)
    assert quoted == f"{errors['ours-wide'].mean():.1f}"


def check_links_and_commands(text, folder):
    """Check that each link of a text in this folder leads to a file, each make command to a target.

    Returns the links.
    """
    links = re.findall(r"\]\(([^)]+)\)", text)
    for link in links:
        if not link.startswith("https://"):
            assert (folder / link.split("#")[0]).exists(), link
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    commands = re.findall(r"(?:^ {4}|`)make ([\w./-]+)", text, re.M)
    assert commands and set(commands) <= set(targets)
    return links


@pytest.mark.parametrize("name", PAPERS)
def test_links_and_commands_lead_somewhere(name):
    page = ROOT / name
    links = check_links_and_commands(page.read_text(encoding="utf-8"), page.parent)
    assert len(links) > 8 or name != "README.md"


def test_readme_image_is_the_one_in_the_notebook():
    import base64

    image = (ROOT / "README.png").read_bytes()
    stored = [
        base64.b64decode(output.data["image/png"])
        for path in NOTEBOOKS
        for cell in code_cells(read(path))
        for output in cell.outputs
        if "readme-image" in cell.metadata.get("tags", [])
    ]
    assert stored == [image]


def test_environment_yml_takes_its_packages_from_requirements_txt():
    import yaml

    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *_, python, pip, packages = environment["dependencies"]
    assert packages == {"pip": ["-r requirements.txt", "-c constraints.txt"]}
    version = python.removeprefix("python=")
    assert f"Python {version}" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert pip == "pip"


def requirements(name):
    """Return {package: its specifier} of a list of packages."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): one.specifier for one in wanted}


def test_every_requirement_is_pinned_above_its_floor():
    pins = requirements("constraints.txt")
    for name, floor in requirements("requirements.txt").items():
        (pin,) = pins[name]
        assert floor.contains(pin.version), name


def test_no_floor_is_older_than_what_colab_ships():
    from packaging.version import Version

    floors = requirements("requirements.txt")
    on_colab = requirements("tests/elsewhere/colab-versions.txt")
    both = floors.keys() & on_colab.keys()
    assert len(both) > 10
    for name in both:
        (floor,), (pin,) = floors[name], on_colab[name]
        oldest, shipped = Version(floor.version).release, Version(pin.version).release
        assert oldest >= shipped[: len(oldest)], name
