"""The functions that the notebooks teach, loaded out of them."""

import math
import zipfile

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, definitions, run_cells
from scipy.stats import binomtest


@pytest.fixture
def random():
    return np.random.default_rng(0)


# --- 01: loading -------------------------------------------------------------------------------


@pytest.fixture
def load_digits(tmp_path, monkeypatch):
    monkeypatch.delenv("DIGITS_DATA", raising=False)
    return definitions("01", "load_digits", "MNIST_SHA256", DATA=tmp_path)


def no_network(*arguments):
    raise OSError("URL fetch failure")


def save(path, count=20):
    images = np.zeros((count, 28, 28), np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)


def test_load_digits_names_a_file_that_is_given(load_digits, tmp_path, monkeypatch):
    save(tmp_path / "my-own.npz")
    monkeypatch.setenv("DIGITS_DATA", str(tmp_path / "my-own.npz"))
    (x_train, y_train), (x_test, _), name = load_digits["load_digits"]()
    assert name == "my-own"
    assert x_train.shape == (20, 28, 28) and x_test.dtype == np.uint8 and y_train.max() == 9


@pytest.mark.parametrize("kind", ["floats", "rows"])
def test_load_digits_refuses_other_images(load_digits, tmp_path, monkeypatch, kind):
    """Floats from 0 to 1 would be divided by 255 once more, and nothing would be said."""
    images = {"floats": np.ones((3, 28, 28)), "rows": np.ones((3, 784), np.uint8)}[kind]
    labels = np.zeros(3, np.uint8)
    np.savez(tmp_path / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    monkeypatch.setenv("DIGITS_DATA", str(tmp_path / "own.npz"))
    with pytest.raises(
        RuntimeError, match=r"should hold images uint8 .*: correct or unset DIGITS_"
    ):
        load_digits["load_digits"]()


def test_data_with_any_name_can_name_a_network(load_digits, tmp_path, monkeypatch, random):
    save(tmp_path / "meine Ziffern é.npz")
    monkeypatch.setenv("DIGITS_DATA", str(tmp_path / "meine Ziffern é.npz"))
    name = load_digits["load_digits"]()[2]
    assert name == "meine_Ziffern__"
    model = definitions("03", "build_cnn")["build_cnn"](f"cnn_{name}")
    model.predict(random.random((2, 28, 28, 1)), verbose=0)


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04 half a file", b"no archive"])
def test_load_digits_refuses_a_damaged_file(load_digits, tmp_path, body):
    (tmp_path / "mnist.npz").write_bytes(body)
    with pytest.raises(RuntimeError, match=r"mnist\.npz is damaged or not an \.npz file: move"):
        load_digits["load_digits"]()
    assert (tmp_path / "mnist.npz").read_bytes() == body


@pytest.mark.parametrize("body", [b"a text file of some length", b""])
def test_load_digits_gives_no_unsafe_advice(load_digits, tmp_path, body):
    (tmp_path / "mnist.npz").write_bytes(body)
    with pytest.raises(RuntimeError) as refused:
        load_digits["load_digits"]()
    assert "pickle" not in str(refused.value) and "unsafe" not in str(refused.value)


def test_load_digits_says_that_the_given_file_is_missing(load_digits, monkeypatch):
    monkeypatch.setenv("DIGITS_DATA", "/nope.npz")
    with pytest.raises(RuntimeError, match="DIGITS_DATA names a missing file, .*nope.npz: correct"):
        load_digits["load_digits"]()


def test_load_digits_refuses_another_data_set(load_digits, tmp_path):
    save(tmp_path / "mnist.npz")
    with pytest.raises(RuntimeError, match="is not MNIST: move it away"):
        load_digits["load_digits"]()


def test_load_digits_without_file_and_network(load_digits, monkeypatch):
    monkeypatch.setattr(load_digits["keras"].datasets.mnist, "load_data", no_network)
    with pytest.raises(RuntimeError, match="No MNIST: connect to the internet"):
        load_digits["load_digits"]()


def test_load_digits_lets_keras_download(load_digits, monkeypatch):
    train = np.zeros((60_000, 28, 28), np.uint8), np.zeros(60_000, np.uint8)
    test = np.zeros((10_000, 28, 28), np.uint8), np.zeros(10_000, np.uint8)
    space = load_digits
    monkeypatch.setattr(space["keras"].datasets.mnist, "load_data", lambda: (train, test))
    digest = space["hashlib"].sha256(b"".join(a.tobytes() for a in (*train, *test))).hexdigest()
    monkeypatch.setitem(space, "MNIST_SHA256", digest)
    (x_train, _), _, name = space["load_digits"]()
    assert name == "MNIST" and x_train is train[0]


# --- 02: preparing -----------------------------------------------------------------------------


def test_scale(random):
    scale = definitions("02", "scale")["scale"]
    images = random.integers(256, size=(5, 28, 28), dtype=np.uint8)
    images[0, 0, :2] = 0, 255
    scaled = scale(images)
    assert scaled.shape == (5, 28, 28, 1) and scaled.dtype == np.float32
    assert scaled.min() == 0 and scaled.max() == 1
    assert np.array_equal((scaled[..., 0] * 255).round(), images)


def test_split_is_stratified_and_repeatable(random):
    split = definitions("02", "split")["split"]
    labels = np.repeat(np.arange(10), 120)
    images = np.arange(1200).reshape(-1, 1)
    x_train, x_val, y_train, y_val = split(images, labels)
    assert len(x_val) == 100 and set(np.bincount(y_val)) == {10}
    assert sorted([*x_train[:, 0], *x_val[:, 0]]) == list(range(1200))
    assert np.array_equal(labels[x_val[:, 0]], y_val)
    assert np.array_equal(split(images, labels)[1], x_val)


def test_softmax(random):
    softmax = definitions("02", "softmax")["softmax"]
    logits = random.normal(0, 300, (50, 10))
    probabilities = softmax(logits)
    assert np.isfinite(probabilities).all()
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert np.allclose(softmax(np.log([1.0, 2.0, 5.0])), [1 / 8, 2 / 8, 5 / 8])
    assert np.allclose(softmax(logits + 7), probabilities)


# --- 03: building ------------------------------------------------------------------------------


def test_convolve(random):
    from scipy.signal import correlate2d

    convolve = definitions("03", "convolve")["convolve"]
    for height, width, k in [(5, 5, 3), (28, 20, 5), (4, 9, 1)]:
        image, kernel = random.normal(size=(height, width)), random.normal(size=(k, k))
        assert np.allclose(convolve(image, kernel), correlate2d(image, kernel, mode="valid"))


def test_build_cnn(random):
    space = definitions("03", "build_cnn")
    model = space["build_cnn"]("some_name")
    images = random.random((7, 28, 28, 1)).astype("float32")
    probabilities = np.array(model(images))
    assert probabilities.shape == (7, 10)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert model.name == "some_name"
    assert np.array_equal(probabilities, model(images)), "dropout is off at inference time"


def test_write_atomically(tmp_path):
    write_atomically = definitions("03", "write_atomically")["write_atomically"]
    path = tmp_path / "result.csv"
    write_atomically(path, lambda part: part.write_text("first"))
    write_atomically(path, lambda part: part.write_text("second"))
    assert path.read_text() == "second"

    def full(part):
        part.write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="could not be written.*No space left.*Free some disk space"):
        write_atomically(path, full)
    assert path.read_text() == "second"
    assert [file.name for file in tmp_path.iterdir()] == ["result.csv"]
    with pytest.raises(OSError, match="could not be written"):
        write_atomically(tmp_path / "no-folder" / "x.csv", lambda part: part.write_text("x"))


# --- 04: augmenting ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def augmenting():
    return definitions("04", "affine_transforms", "RandomAffine", "transform")


def blob(random, n=3):
    """Images with a blurred block in the middle, float32 (n, 28, 28, 1)."""
    images = np.zeros((n, 28, 28, 1), "float32")
    images[:, 9:19, 11:17] = random.random((n, 10, 6, 1))
    return images


def test_no_change_gives_the_image_back(augmenting, random):
    image = blob(random)[0]
    assert np.allclose(augmenting["transform"](image), image, atol=1e-6)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (-4, 0), (0, 2), (0, -5), (2, -3)])
def test_a_pure_shift_is_exact(augmenting, random, right, down):
    image = blob(random)[0]
    shifted = augmenting["transform"](image, shift_x=right, shift_y=down)
    assert np.allclose(shifted, np.roll(image, (down, right), axis=(0, 1)), atol=1e-5)


def test_a_quarter_turn_is_counter_clockwise(augmenting, random):
    image = blob(random)[0]
    turned = augmenting["transform"](image, angle=90)
    assert np.allclose(turned, np.rot90(image), atol=1e-4)


def test_zoom_changes_the_size(augmenting):
    image = np.zeros((28, 28, 1), "float32")
    image[9:19, 9:19] = 1
    for zoom in (0.7, 1.0, 1.5):
        area = augmenting["transform"](image, zoom=zoom).sum()
        assert area == pytest.approx(100 * zoom**2, rel=0.05)


def test_the_map_is_the_inverse_matrix(augmenting, random):
    from skimage.transform import SimilarityTransform

    for _ in range(20):
        angle, zoom = random.uniform(-180, 180), random.uniform(0.5, 2)
        shift = random.uniform(-5, 5, 2)
        # skimage turns clockwise on screen, where y points down
        forward = (
            SimilarityTransform(translation=(-13.5, -13.5))
            + SimilarityTransform(scale=zoom, rotation=-np.radians(angle))
            + SimilarityTransform(translation=13.5 + shift)
        )
        arguments = np.array([[angle], [zoom], [shift[0]], [shift[1]]], "float32")
        maps = np.array(augmenting["affine_transforms"](*arguments))
        assert maps.shape == (1, 8)
        assert np.allclose(maps[0, :6], np.linalg.inv(forward.params)[:2].ravel(), atol=1e-4)
        assert np.array_equal(maps[0, 6:], [0, 0])


def test_what_comes_in_is_paper(augmenting):
    full = np.ones((28, 28, 1), "float32")
    shifted = augmenting["transform"](full, shift_x=6)
    assert np.all(shifted[:, :6] == 0) and np.allclose(shifted[:, 6:], 1)


def test_the_layer_changes_each_image_differently(augmenting, random):
    layer = augmenting["RandomAffine"](seed=3)
    same = np.repeat(blob(random)[:1], 8, axis=0)
    first, second = (np.array(layer(same, training=True)) for _ in range(2))
    assert first.shape == same.shape and first.dtype == np.float32
    for a in range(8):
        assert not np.allclose(first[a], second[a], atol=1e-3), "every call draws anew"
        for b in range(a):
            assert not np.allclose(first[a], first[b], atol=1e-3)
    assert first.min() >= 0 and first.max() <= 1 + 1e-6


def test_the_layer_does_nothing_in_use(augmenting, random):
    images = blob(random)
    assert np.array_equal(augmenting["RandomAffine"]()(images), images)
    assert np.array_equal(augmenting["RandomAffine"]()(images, training=False), images)


def test_the_layer_keeps_its_limits(augmenting):
    dot = np.zeros((200, 28, 28, 1), "float32")
    dot[:, 13:15, 13:15] = 1
    layer = augmenting["RandomAffine"](rotation=0, zoom=0, shift=3, seed=0)
    moved = np.array(layer(dot, training=True))[..., 0]
    positions = np.arange(28)
    for axis in (1, 2):
        centre = (moved.sum(axis=axis) * positions).sum(axis=1) / moved.sum(axis=(1, 2)) - 13.5
        assert np.abs(centre).max() <= 3.01
        assert centre.std() == pytest.approx(3 / math.sqrt(3), rel=0.2), "uniform"
    still = augmenting["RandomAffine"](rotation=0, zoom=0, shift=0, seed=0)
    assert np.allclose(still(dot, training=True), dot, atol=1e-5)


def test_training_goes_through_the_layer(augmenting, random):
    keras = augmenting["keras"]
    layer = augmenting["RandomAffine"](rotation=0, zoom=0, shift=8, seed=1)
    probe = keras.layers.Lambda(lambda x: x)
    model = keras.Sequential([keras.Input((28, 28, 1)), layer, probe])
    images = blob(random, 4)
    assert np.array_equal(model.predict(images, verbose=0), images)
    assert not np.allclose(model(images, training=True), images)


@pytest.mark.parametrize("state", ["missing", "whole", "half-written", "half-written at once"])
def test_finished_epochs(tmp_path, state):
    finished_epochs = definitions("04", "finished_epochs")["finished_epochs"]
    names = "training_metadata.json", "latest.weights.h5"
    if state != "missing":
        for name, body in zip(names, ('{"epoch": 5, "batch": 0}', "weights 5"), strict=True):
            (tmp_path / name).write_text(body)
    if state == "half-written":
        for name, body in zip(names, ('{"epoch": 4, "batch": 0}', "weights 4"), strict=True):
            (tmp_path / f"{name}.bkp").write_text(body)
    if state.startswith("half-written"):
        (tmp_path / names[0]).write_text("")
    expected = {"missing": 0, "whole": 5, "half-written": 4, "half-written at once": 0}[state]
    assert finished_epochs(tmp_path) == expected
    if state == "half-written":
        assert (tmp_path / names[1]).read_text() == "weights 4"


def resolves_to_xla_with_a_gpu(layer, monkeypatch):
    """Whether Keras would compile a model with this layer by XLA if there were a GPU."""
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("about TensorFlow")
    import tensorflow as tf

    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *kind: [gpu])
    model = keras.Sequential([keras.Input((28, 28, 1)), layer])
    model.compile("sgd", "mse")
    return model.jit_compile


def test_keras_does_not_choose_xla_for_random_affine(augmenting, monkeypatch):
    import keras

    assert resolves_to_xla_with_a_gpu(keras.layers.ReLU(), monkeypatch), "the test is blind"
    assert not resolves_to_xla_with_a_gpu(augmenting["RandomAffine"](), monkeypatch)


def test_alone_gpu_makes_keras_choose_xla(monkeypatch):
    """What `alone.py --gpu` changes in Keras has to have its effect, or its runs prove nothing."""
    import keras
    from keras.src.trainers import trainer

    if keras.backend.backend() != "tensorflow":
        pytest.skip("about TensorFlow")
    source = (ROOT / "tests/elsewhere/sitecustomize.py").read_text()
    functions = {}
    exec(source.partition("CHANGES = {}")[0], functions)  # without installing anything
    real = trainer.Trainer._resolve_auto_jit_compile
    monkeypatch.setattr(trainer.Trainer, "_resolve_auto_jit_compile", real)  # put back at the end
    for expected in (False, True):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        assert model.jit_compile == expected
        functions["use_xla_as_with_a_gpu"](trainer)


def test_random_distortion_trains_with_xla(random):
    import keras

    names = "distortion_transforms", "bicubic_matrix", "displacement_fields", "warp"
    layer = definitions("08", *names, "RandomDistortion")["RandomDistortion"](seed=0)
    model = keras.Sequential(
        [keras.Input((28, 28, 1)), layer, keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse", jit_compile=True)
    assert model.jit_compile, "XLA is really used"
    images = random.random((10, 28, 28, 1)).astype("float32")
    losses = model.fit(images, images[:, 0, 0], batch_size=4, verbose=0).history["loss"]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("n_points", [3, 5, 8])
def test_displacement_fields_are_bicubic_interpolation(random, n_points):
    import keras

    functions = definitions("08", "bicubic_matrix", "displacement_fields")
    matrix = functions["bicubic_matrix"](n_points)
    points = random.normal(size=(2, n_points, n_points, 2)).astype("float32")
    resized = keras.ops.image.resize(points, (28, 28), interpolation="bicubic")
    by_matrix = keras.ops.convert_to_numpy(functions["displacement_fields"](points, matrix))
    assert np.allclose(by_matrix, keras.ops.convert_to_numpy(resized), atol=1e-5)


# --- 05: evaluating ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_correct", "n", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3 (Wilson's score)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_against_published_values(n_correct, n, low, high):
    wilson_interval = definitions("05", "wilson_interval")["wilson_interval"]
    assert wilson_interval(n_correct, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_against_scipy(random):
    wilson_interval = definitions("05", "wilson_interval")["wilson_interval"]
    for n in random.integers(1, 20_000, 50):
        n_correct = int(random.integers(0, n + 1))
        interval = binomtest(n_correct, int(n)).proportion_ci(method="wilson")
        assert np.allclose(wilson_interval(n_correct, n), interval, atol=1e-4)


def test_report_says_it_all():
    report = definitions("05", "report")["report"]
    misclassified = np.zeros(10_000, bool)
    misclassified[:45] = True
    expected = "99.55%: 45 errors in 10,000 (95% interval 99.40% to 99.66%)"
    assert report(misclassified) == expected
    assert "99.99%: 1 error in 10,000" in report(np.arange(10_000) == 7)


def test_perturb_does_what_its_argument_says(random):
    some = np.zeros((3, 28, 28, 1), np.float32)
    some[:, 8:20, 8:20] = random.random((3, 12, 12, 1))
    perturb = definitions("05", "affine_transforms", "perturb")["perturb"]
    assert np.array_equal(perturb(some), some)
    assert np.allclose(perturb(some, shift=3), np.roll(some, 3, axis=2), atol=1e-5)
    assert np.allclose(perturb(some, angle=180), some[:, ::-1, ::-1], atol=1e-4)
    assert perturb(some, zoom=0.5).sum() < 0.5 * some.sum()
    noisy = perturb(some, noise=0.3)
    assert noisy.min() == 0 and noisy.max() <= 1 and np.abs(noisy - some).mean() > 0.05


def test_occlusion_finds_the_stroke_that_matters():
    class LooksAtOnePixel:
        """Says 7 if there is ink at row 10, column 15; else 1."""

        def predict(self, images, verbose):
            seven = images[:, 10, 15, 0]
            answers = np.zeros((len(images), 10))
            answers[:, 7], answers[:, 1] = seven, 1 - seven
            return answers

    occlusion = definitions("05", "occlusion", model=LooksAtOnePixel())["occlusion"]
    image = np.ones((28, 28, 1), np.float32)
    drop = occlusion(image, 7)
    covers = np.zeros((28, 28))
    covers[7:14, 12:19] = 1  # the squares of 7 × 7 around these pixels cover that one
    assert np.array_equal(drop, covers)
    assert image.all(), "the image itself stays as it is"


@pytest.fixture
def loading(tmp_path, random):
    """load_or_train, with a little data to train on and an empty folder."""
    labels = np.arange(64) % 10
    images = random.random((64, 28, 28, 1)).astype("float32")
    given = {"DATA": tmp_path, "data_name": "toy", "x_train": images, "y_train": labels}
    return definitions("05", "load_or_train", "build_cnn", **given)


def test_load_or_train_loads_what_is_there(loading, tmp_path, capsys, random):
    model = loading["build_cnn"]("cnn_toy")
    model.save(tmp_path / "model.keras")
    loaded = loading["load_or_train"]("model.keras")
    images = random.random((3, 28, 28, 1)).astype("float32")
    assert np.allclose(loaded(images), model(images), atol=1e-6)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "fault", ["missing", "cut short", "not a model", "newer Keras", "other data"]
)
def test_load_or_train_says_what_is_wrong_and_goes_on(loading, tmp_path, capsys, fault):
    path = tmp_path / "model.keras"
    loading["build_cnn"]("cnn_other" if fault == "other data" else "cnn_toy").save(path)
    whole = path.read_bytes()
    if fault == "missing":
        path.unlink()
    elif fault == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif fault == "not a model":
        path.write_bytes(b"hello")
    elif fault == "newer Keras":
        with zipfile.ZipFile(path) as old:
            parts = {name: old.read(name) for name in old.namelist()}
        parts["config.json"] = parts["config.json"].replace(b'"Conv2D"', b'"Conv2DOfTheFuture"')
        with zipfile.ZipFile(path, "w") as new:
            for name, body in parts.items():
                new.writestr(name, body)
    before = path.read_bytes() if path.exists() else None
    model = loading["load_or_train"]("model.keras")
    assert model.name == "cnn_toy" and model.output_shape == (None, 10)
    said = capsys.readouterr().out
    expected = {"missing": "is missing", "other data": "was made for other data (cnn_other)"}
    assert expected.get(fault, "cannot be read") in said
    assert "Using a quick, less accurate model" in said
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.fixture
def axes_of(monkeypatch):
    """A function that returns the axes of the figure that was drawn last; it is closed later."""
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda: None)
    yield lambda: plt.gcf().axes
    plt.close("all")


def test_the_figure_of_recall_and_precision_labels_them_right(axes_of):
    """Ten images of each digit; three of the ones are taken for sevens."""
    import matplotlib.pyplot as plt
    from scipy.stats import binomtest

    confusion = np.diag([10, 7, *[10] * 8])
    confusion[1, 7] = 3
    cells = "n_found = ", "# @title Plot: recall and precision by digit"
    space = {"np": np, "plt": plt, "binomtest": binomtest, "confusion": confusion}
    run_cells(space, "05", *cells)
    (ax,) = axes_of()
    lines, (low, high) = {line.get_label(): line for line in ax.lines}, (1, 7)
    recall, precision = (lines[label].get_ydata() for label in ("recall", "precision"))
    assert recall[low] == pytest.approx(70) and recall[high] == 100
    assert precision[low] == 100 and precision[high] == pytest.approx(1000 / 13)
    title = ax.get_title() + ax.get_title(loc="left")
    assert title.endswith("lowest for 1, precision for 7")


# --- 06: saving --------------------------------------------------------------------------------


@pytest.fixture
def kaggle(tmp_path, random):
    """A table like Kaggle's test.csv, and a function that reads it back from a file."""
    read_kaggle_csv = definitions("06", "read_kaggle_csv")["read_kaggle_csv"]
    pixels = random.integers(256, size=(4, 784))
    table = pd.DataFrame(pixels, columns=[f"pixel{k}" for k in range(784)])

    def read(table):
        table.to_csv(tmp_path / "test.csv", index=False)
        return read_kaggle_csv(tmp_path / "test.csv")

    return table, read


def test_read_kaggle_csv(kaggle):
    table, read = kaggle
    images = read(table)
    assert images.shape == (4, 28, 28) and images.dtype == np.uint8
    assert np.array_equal(images.reshape(4, 784), table)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: t.drop(columns="pixel7"), "783 columns"),
        (lambda t: t.assign(label=1), "unexpected: .'label'."),
        (lambda t: t[t.columns[::-1]], "in this order"),
        (
            lambda t: t.astype(object).mask(t.index.to_series() == 2, "x"),
            "first bad line is line 4",
        ),
        (lambda t: t.assign(pixel9=[1, 2, 256, 4]), "first bad line is line 4"),
        (lambda t: t.assign(pixel9=[-1, 2, 3, 4]), "first bad line is line 2"),
        (lambda t: t.assign(pixel9=[1, 2.5, 3, 4]), "first bad line is line 3"),
        (lambda t: t.assign(pixel783=[1, 2, 3, np.nan]), "first bad line is line 5"),
        (lambda t: t.iloc[:0], "has none"),
    ],
)
def test_read_kaggle_csv_says_what_is_wrong(kaggle, spoil, reason):
    table, read = kaggle
    with pytest.raises(ValueError, match=reason):
        read(spoil(table))


def test_read_kaggle_csv_refuses_surplus_values(kaggle, tmp_path):
    table, read = kaggle
    read(table)
    lines = (tmp_path / "test.csv").read_text().splitlines()
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *(line + ",0" for line in lines[1:])]))
    with pytest.raises(ValueError, match="more values than"):
        definitions("06", "read_kaggle_csv")["read_kaggle_csv"](tmp_path / "test.csv")


@pytest.mark.parametrize("body", [b"", b"\x89PNG\r\n\x1a\n\x00\xff\xfe"])
def test_read_kaggle_csv_refuses_what_is_no_table(tmp_path, body):
    read_kaggle_csv = definitions("06", "read_kaggle_csv")["read_kaggle_csv"]
    (tmp_path / "test.csv").write_bytes(body)
    with pytest.raises(ValueError, match=r"test\.csv"):
        read_kaggle_csv(tmp_path / "test.csv")


# --- 08: modern training -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def eight():
    return definitions(
        *("08", "affine_transforms", "RandomAffine", "distortion_transforms", "warp"),
        *("bicubic_matrix", "displacement_fields", "RandomDistortion"),
        *("learning_rate_schedule", "build_modern_cnn", "prepare_training", "predict_tta"),
        *("RECIPE", "SHORT", "CHANGES", "patch_filters", "build_fast_cnn", "train_fast"),
    )


def digits_like(random, n=8):
    images = np.zeros((n, 28, 28, 1), "float32")
    images[:, 6:22, 6:22] = random.random((n, 16, 16, 1))
    return images


def test_distortion_transforms_shear_and_stretch(eight):
    none, one = np.float32([0]), np.float32([1])
    transforms = eight["distortion_transforms"]
    (shear,) = np.array(transforms(none, one, one, np.float32([45]), none, none))
    assert np.allclose(shear[:6], [1, -1, 13.5, 0, 1, 0], atol=1e-5)  # x - (y - 13.5)
    (wide,) = np.array(transforms(none, 2 * one, one, none, none, none))
    assert np.allclose(wide[:6], [0.5, 0, 6.75, 0, 1, 0], atol=1e-5)


def test_warp_shifts_exactly_and_fills_with_paper(eight, random):
    images = digits_like(random)
    identity = np.tile(np.float32([1, 0, 0, 0, 1, 0, 0, 0]), (8, 1))
    field = np.zeros((8, 28, 28, 2), "float32")
    assert np.allclose(eight["warp"](images, identity, field), images, atol=1e-6)
    field[..., 0] = 3  # ink comes from three pixels to the right
    moved = np.array(eight["warp"](images, identity, field))
    assert np.allclose(moved[:, :, :-3], images[:, :, 3:], atol=1e-6)
    assert np.allclose(moved[:, :, -3:], 0)
    assert np.allclose(eight["warp"](images + 1, identity, field + 100), 0)
    field[:] = [0, 0.5]  # half-way between two rows
    between = np.array(eight["warp"](images, identity, field))
    assert np.allclose(between[:, :-1], (images[:, 1:] + images[:, :-1]) / 2, atol=1e-6)


def test_random_distortion_in_training_only_and_by_its_seed(eight, random):
    images = digits_like(random)
    layer = eight["RandomDistortion"]
    assert np.array_equal(layer(seed=1)(images), images)
    first = np.array(layer(seed=1)(images, training=True))
    assert np.array_equal(first, layer(seed=1)(images, training=True))
    assert not np.allclose(first, layer(seed=2)(images, training=True))
    still = layer(0, 0, 0, 0, elastic=0.0)(images, training=True)
    assert np.allclose(still, images, atol=1e-5)
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize(
    "limit, value, tilts, stretch, shift",
    [
        ("rotation", 20, (0.364, -0.364), 1, 0),
        ("shear", 20, (0.364, 0), 1, 0),  # rows are moved: only the vertical bar is slanted
        ("zoom", 0.25, (0, 0), 1.25, 0),
        ("shift", 3, (0, 0), 1, 3),
        ("elastic", 2, (0, 0), 1, -2),
    ],
)
def test_each_limit_of_random_distortion_limits_what_its_name_says(
    eight, monkeypatch, limit, value, tilts, stretch, shift
):
    """What becomes of a vertical and of a horizontal bar, if all random numbers are the largest."""
    ops = eight["ops"]
    monkeypatch.setattr(
        "keras.random.uniform", lambda shape, low, high, seed: high * ops.ones(shape)
    )
    bars = np.zeros((2, 28, 28, 1), "float32")
    bars[0, 7:21, 13:15] = bars[1, 13:15, 7:21] = 1
    nothing = dict.fromkeys(["rotation", "zoom", "shear", "shift", "elastic"], 0)
    layer = eight["RandomDistortion"](**nothing | {limit: value})
    changed = ops.convert_to_numpy(layer(bars, training=True))[..., 0].astype("float64")
    places = np.mgrid[:28, :28] - 13.5  # along the bar, and across: y, x for the vertical one
    for ink, (along, across), tilt in zip(changed, (places, places[::-1]), tilts, strict=True):
        assert np.average(along, weights=ink) == pytest.approx(shift, abs=0.01)
        assert np.average(across, weights=ink) == pytest.approx(shift, abs=0.01)
        along, across = along - shift, across - shift
        variance = np.average(along**2, weights=ink)
        assert np.average(along * across, weights=ink) / variance == pytest.approx(tilt, abs=0.03)
        length = np.sqrt(12 * variance) * np.sqrt(1 + (tilt**2 if limit == "rotation" else 0))
        assert length / 14 == pytest.approx(stretch, abs=0.03)


def test_the_schedule_warms_up_and_ends_at_nothing(eight):
    recipe = {"learning_rate": 0.1, "warm_up": 1, "epochs": 5, "decay": True}
    schedule = eight["learning_rate_schedule"]
    rates = [float(schedule(recipe, 10)(step)) for step in range(51)]
    assert rates[0] == pytest.approx(0.005) and rates[10] == pytest.approx(0.1)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[30] == pytest.approx(0.05) and rates[50] == pytest.approx(0, abs=1e-7)
    constant = schedule(recipe | {"decay": False, "warm_up": 0}, 10)
    assert float(constant(0)) == pytest.approx(0.1) == float(constant(49))


def test_every_change_gives_a_network_that_trains(eight, random):
    ops = eight["ops"]
    images, targets = digits_like(random), np.eye(10, dtype="float32")[:8]
    for name, change in eight["CHANGES"].items():
        recipe = eight["RECIPE"] | change
        assert not set(change) - set(eight["RECIPE"]), name
        cnn, training = eight["prepare_training"](recipe, 8, seed=1)
        before = [ops.convert_to_numpy(weight) for weight in cnn.trainable_weights]
        training.run_eagerly = True  # for a single step, compiling takes longer than training
        training.fit(images, targets, verbose=0)
        after = [ops.convert_to_numpy(weight) for weight in cnn.trainable_weights]
        assert not any(map(np.array_equal, before, after)), name
        assert np.allclose(ops.convert_to_numpy(cnn(images)).sum(axis=1), 1, atol=1e-4)


def test_predict_tta_is_the_mean_over_five(eight, random):
    class Corner:
        def predict(self, images, **options):
            return images[:, 10, 10]

    images = digits_like(random)
    near = [images[:, 10 + dy, 10 + dx] for dy, dx in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]]
    assert np.allclose(eight["predict_tta"](Corner(), images), np.mean(near, axis=0))


def test_patch_filters_come_in_opposites(eight, random):
    filters = eight["patch_filters"](digits_like(random, 50))
    assert filters.shape == (6, 6, 1, 16) and filters.dtype == np.float32
    assert np.allclose(filters[..., :8], -filters[..., 8:])
    flat = filters[..., :8].reshape(36, 8)
    off_diagonal = flat.T @ flat - np.diag(np.diag(flat.T @ flat))
    assert np.abs(off_diagonal).max() < 1e-3 * np.diag(flat.T @ flat).min(), "orthogonal"


def test_the_fast_network_keeps_its_first_layer(eight, random):
    images, targets = digits_like(random, 64), np.eye(10, dtype="float32")[np.arange(64) % 10]
    before = eight["build_fast_cnn"](images)
    model = eight["train_fast"](images, targets)
    assert len(model.trainable_weights) == 6
    (kernel,) = model.layers[1].get_weights()
    assert np.allclose(kernel, eight["patch_filters"](images), atol=1e-5)
    assert np.allclose(kernel, before.layers[1].get_weights()[0], atol=1e-5)
    assert model.layers[-1].get_weights()[1].any(), "the last layer's bias has left 0"
    assert model.predict(images, verbose=0).shape == (64, 10)


# --- figures and tables say what they show --------------------------------------------------------


def test_the_most_doubtful_images_are_those_with_the_lowest_confidence(random):
    probabilities = random.dirichlet(np.ones(10), size=200)
    space = {"np": np, "probabilities": probabilities, "confidence": probabilities.max(axis=1)}
    run_cells(space, "06", "doubtful = ")
    others = np.setdiff1d(np.arange(200), space["doubtful"])
    assert len(others) == 160
    assert probabilities[space["doubtful"]].max() <= probabilities[others].max(axis=1).min()
    for row, top_two in zip(probabilities, space["top_two"], strict=True):
        assert list(row[top_two]) == sorted(row)[:-3:-1]


def test_the_loss_curves_of_04_are_labeled_right(axes_of):
    import matplotlib.pyplot as plt

    columns = {"loss": [0.3, 0.2], "val_loss": [0.1, 0.05], "val_accuracy": [0.97, 0.99]}
    run = pd.DataFrame(columns | {"learning_rate": [1e-3, 5e-4]}, index=[1, 2])
    title = "# @title Plot: loss and learning rate by epoch"
    run_cells({"plt": plt, "control_histories": [run], "history": run}, "04", title)
    tops, legend = axes_of()[:2], axes_of()[1].get_legend()
    drawn = {
        text.get_text(): line
        for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    for top in tops:
        for name, column in (("training", "loss"), ("validation", "val_loss")):
            (line,) = [line for line in top.lines if list(line.get_ydata()) == list(run[column])]
            assert line.get_color() == drawn[name].get_color()
            assert line.get_linestyle() == drawn[name].get_linestyle()
    assert all("1.00%" in top.get_title() + top.get_title(loc="left") for top in tops)


def test_the_error_rates_of_08_are_labeled_right(axes_of):
    import matplotlib.pyplot as plt

    class Run:
        history = {"accuracy": [0.9, 0.95], "val_accuracy": [0.98, 0.99]}
        epoch = [0, 1]

    title = "# @title Plot: error rates by epoch"
    run_cells({"plt": plt, "pd": pd, "run": Run, "seconds": 90.0}, "08", title)
    (ax,) = axes_of()
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert lines["training, with augmentation"] == pytest.approx([10, 5])
    assert lines["validation"] == pytest.approx([2, 1])
    assert "1.00% after 1.5 minutes" in ax.get_title() + ax.get_title(loc="left")


def test_two_recipes_are_compared_on_the_folds_that_both_have_tried():
    from scipy.stats import ttest_1samp
    from statsmodels.stats.contingency_tables import mcnemar

    names = {"mcnemar": mcnemar, "ttest_1samp": ttest_1samp}
    compare_in_folds = definitions("08", "compare_in_folds", **names)["compare_in_folds"]
    both_wrong = np.arange(1000) >= 900  # says nothing about the difference
    base = dict.fromkeys((1, 2, 3, 4), both_wrong)
    runs = {k: both_wrong | (np.arange(1000) < n) for k, n in {1: 3, 2: 5, 3: 4, 5: 80}.items()}
    difference, (low, high), p = compare_in_folds(runs, base)
    half_width = 4.3027 / np.sqrt(3)  # Student's t for three differences, 3, 5, and 4
    assert difference == 4 and p == pytest.approx(2 * 0.5**12)
    assert (low, high) == pytest.approx((4 - half_width, 4 + half_width), abs=1e-3)
    assert compare_in_folds(base, runs)[0] == -4


def test_the_ablation_of_08_is_corrected_and_drawn_right(axes_of):
    """Of three changes, one harms clearly, one only without the correction, one not at all."""
    import matplotlib.pyplot as plt

    wrong = {"the recipe": {1: np.zeros(1000, bool)}}
    for name, count in (("harmless", 1), ("doubtful", 6), ("harmful", 40)):
        wrong[name] = {1: np.arange(1000) < count}  # p = 1, 1/32, and 2^-39
    compare = definitions("08", "compare", wrong_in_ablation=wrong)["compare"]
    space = {"np": np, "pd": pd, "plt": plt, "wrong_in_ablation": wrong, "compare": compare}
    title = "# @title Plot: what each change does to the number of errors"
    run_cells(space, "08", "from statsmodels.stats.contingency_tables", title)
    table = space["table"].set_index("change")
    assert table.loc["doubtful", "p"] == pytest.approx(1 / 32)
    assert table.loc["doubtful", "p (Holm)"] == pytest.approx(2 / 32)
    assert table.loc["harmful", "p (Holm)"] == pytest.approx(3 * 2**-39)
    assert list(table["difference"]) == [1, 6, 40]
    (ax,) = axes_of()
    rows = [label.get_text() for label in ax.get_yticklabels()]
    marked = {}
    for container in ax.containers:
        for x, y in container.lines[0].get_xydata():
            marked[rows[round(y)]] = x, container.get_label()
    unsure = "cannot tell"
    assert marked == {
        "harmless": (1, unsure),
        "doubtful": (6, unsure),
        "harmful": (40, "corrected p < 0.05"),
    }
    assert "1 of 3 changes" in ax.get_title() + ax.get_title(loc="left")
