"""What benchmark.py trains: well-known networks, ours, and changes of notebook 08's recipe.

Each recipe is a function of (x_train, t_train), (x_val, t_val), seed, stopwatch that trains a new
network, with the stopwatch among its callbacks, and returns it without augmentation. Images are
float32 (n, 28, 28, 1), 0 to 1; targets one-hot (n, 10).
"""

import hashlib
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import keras
import numpy as np
from conftest import ROOT, definitions
from keras import layers, ops


class Stopwatch(keras.callbacks.Callback):
    """Count the seconds of training, from building the network on, without validation.

    seconds: so far; reached: {goal: seconds to the end of the first epoch whose validation accuracy
    was at least that}; epochs: how many are done; curves: {what Keras logs: its value after each
    epoch}.
    """

    def __init__(self):
        super().__init__()
        self.seconds, self.epochs, self.reached, self.curves = 0.0, 0, {}, {}
        self.since = time.perf_counter()

    def stop(self):
        now = time.perf_counter()
        self.seconds, self.since = self.seconds + now - self.since, now

    def note(self, val_accuracy):
        for goal in (0.990, 0.995):
            if val_accuracy >= goal:
                self.reached.setdefault(goal, round(self.seconds, 2))

    def on_test_begin(self, logs=None):
        self.stop()

    def on_test_end(self, logs=None):
        self.since = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1
        self.note(logs.get("val_accuracy", 0))  # without held-out images, there is none
        for name, value in logs.items():
            self.curves.setdefault(name, []).append(float(f"{value:.5g}"))

    def on_train_end(self, logs=None):
        self.stop()


# --- notebooks 04 and 08: what they define is what is measured ----------------------------------

FOUR = definitions(
    *("04", "build_cnn", "affine_transforms", "RandomAffine", "learning_rate", "settings"),
    data_name="MNIST",
)
EIGHT = definitions(
    *(
        "08",
        "affine_transforms",
        "RandomAffine",
        "distortion_transforms",
        "bicubic_matrix",
        "displacement_fields",
        "warp",
        "RandomDistortion",
    ),
    *("build_modern_cnn", "learning_rate_schedule", "prepare_training"),
    *("predict_tta", "count_macs", "RECIPE", "SHORT", "CHANGES"),
    *("patch_filters", "build_fast_cnn", "train_fast"),
)
TEN = definitions(
    *("10", "load_digits", "MNIST_SHA256", "scale", "split", "affine_transforms", "RandomAffine"),
    *("build_modern_cnn", "learning_rate_schedule", "prepare_training", "write_atomically"),
    *("QUICK", "train_quick", "train_member", "read_member", "save_member", "rebuild"),
    *("start_cluster", "QuietWorker", "write_shard", "score_shard", "network_of"),
    DATA=ROOT / "data",
)
STORED_NAMES = {  # what the table calls some changes, by their names of today
    "no batch normalization": "no batch normalisation",
    "constant learning rate": "no decay of the rate",
    "RMSprop instead of AdamW": "RMSprop for AdamW",
    "augmentation of notebook 04": "augmentation of 04",
    "no elastic distortion": "nothing bent",
    "weight averaging": "average of the weights",
}
CHANGES = {STORED_NAMES.get(name, name): change for name, change in EIGHT["CHANGES"].items()}


def whole_changes():
    """Return {"whole: …": change} for the same changes of the whole network, in 12 epochs.

    Without those that only make the short recipe longer or wider.
    """
    whole = {}
    for name, change in EIGHT["CHANGES"].items():
        own = {key: value for key, value in change.items() if value != EIGHT["SHORT"].get(key)}
        if not own.keys() & EIGHT["SHORT"].keys():
            whole[f"whole: {name}"] = own | {"epochs": 12}
    return whole


WHOLE = whole_changes()


def ours_04(train, val, seed, stopwatch, augmented=True):
    """Notebook 04: the best epoch on validation is kept."""
    cnn = FOUR["build_cnn"]()
    augmentation = [FOUR["RandomAffine"](seed=seed)] if augmented else []
    training = keras.Sequential([keras.Input((28, 28, 1)), *augmentation, cnn])
    optimizer = keras.optimizers.RMSprop(FOUR["learning_rate"])
    training.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    with tempfile.TemporaryDirectory() as folder:
        best = Path(folder, "best.weights.h5")
        callbacks = [
            keras.callbacks.ReduceLROnPlateau("val_accuracy", patience=1, factor=0.5, min_lr=1e-5),
            keras.callbacks.ModelCheckpoint(
                best, "val_accuracy", save_best_only=True, save_weights_only=True
            ),
            stopwatch,
        ]
        options = {"validation_data": val, "callbacks": callbacks, "verbose": 2}
        training.fit(*train, **options, **FOUR["settings"])
        training.load_weights(best)
    return cnn


# What JSON may add to notebook 08's recipe: ideas that were tried and did not become part of it.
EXTRAS = {
    "stage_dropout": 0.0,  # the rate after each block with pooling
    "hidden": 0,  # units of a dense layer before the last one
    "clean_end": 0.0,  # the last part of training, without augmentation
    "consistency": 0.0,  # the weight of what two augmentations of an image disagree about
}


WIDE_BLOCKS = [(48, 5, True), (96, 3, False), (128, 3, True), (192, 4, False)]


class Consistent(keras.Sequential):
    """A network that sees each batch in two augmentations and is to say the same about both.

    The loss is the mean of both losses plus `weight` times the symmetric Kullback-Leibler
    divergence between the two predictions. An epoch costs twice as much.
    """

    weight = 1.0

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not training:
            return loss
        other = self(x, training=True)
        loss = (loss + super().compute_loss(x, y, other, sample_weight, training)) / 2
        p, q = (ops.clip(predicted, 1e-7, 1) for predicted in (y_pred, other))
        divergence = ops.sum((p - q) * (ops.log(p) - ops.log(q)), axis=1) / 2
        return loss + self.weight * ops.mean(divergence)


def with_extras(cnn, training, extras):
    """Return (cnn, training) with what EXTRAS describes added; neither has been trained yet."""
    new, pooled = keras.Sequential([keras.Input((28, 28, 1))], name=cnn.name), False
    *body, last = cnn.layers
    for layer in body:
        new.add(layer)
        pooled = pooled or isinstance(layer, layers.MaxPooling2D)
        if pooled and isinstance(layer, layers.ReLU):
            if extras["stage_dropout"]:
                new.add(layers.Dropout(extras["stage_dropout"]))
            pooled = False
    if extras["hidden"]:
        new.add(layers.Dense(extras["hidden"], activation="relu"))
        new.add(layers.Dropout(0.5))
        last = layers.Dense.from_config(last.get_config())  # the other was built for fewer inputs
    new.add(last)
    kind = Consistent if extras["consistency"] else keras.Sequential
    both = kind([keras.Input((28, 28, 1)), *training.layers[:-1], new])
    both.weight = extras["consistency"]
    both.compile(training.optimizer, training.loss, metrics=["accuracy"])
    return new, both


def modern(changes):
    """Notebook 08's recipe with these changes, of RECIPE or EXTRAS."""
    recipe = EIGHT["RECIPE"] | changes
    extras = EXTRAS | {key: recipe.pop(key) for key in EXTRAS if key in recipe}

    def train(train, val, seed, stopwatch):
        cnn, training = EIGHT["prepare_training"](recipe, len(train[0]), seed)
        if extras != EXTRAS:
            cnn, training = with_extras(cnn, training, extras)
        callbacks = [stopwatch]
        if recipe["average"]:
            callbacks.insert(0, keras.callbacks.SwapEMAWeights())
        options = {"batch_size": recipe["batch_size"], "callbacks": callbacks, "verbose": 2}
        options["validation_data"] = val if len(val[0]) else None
        epochs = recipe["epochs"]
        augmented = epochs - int(extras["clean_end"] * epochs)
        training.fit(*train, epochs=augmented, **options)
        if augmented < epochs:
            cnn.compile(training.optimizer, training.loss, metrics=["accuracy"])
            cnn.fit(*train, initial_epoch=augmented, epochs=epochs, **options)
        return cnn

    train.predict_tta = EIGHT["predict_tta"]
    train.extras = {key: value for key, value in extras.items() if value != EXTRAS[key]}
    return train


def recompute_statistics(model, images):
    """Set the statistics of batch normalization, layer by layer, to those of these images.

    After training, they are running means over its last batches, which were augmented.
    """
    for k, layer in enumerate(model.layers):
        if isinstance(layer, layers.BatchNormalization):
            before = keras.Sequential([keras.Input(images.shape[1:]), *model.layers[:k]])
            values = before.predict(images, batch_size=500, verbose=0)
            axes = tuple(range(values.ndim - 1))
            layer.moving_mean.assign(values.mean(axis=axes, dtype="float64"))
            layer.moving_variance.assign(values.var(axis=axes, dtype="float64"))


def train_for_ensemble(network):
    """Return a function (images, targets, seed) that trains a member, as notebook 10 expects it.

    network: "quick", the members of notebook 10 itself, or "ours-08", those of notebook 08.
    """
    if network == "quick":
        return TEN["train_quick"]

    def train_whole(images, targets, seed):
        return TEN["train_quick"](images, targets, seed, EIGHT["RECIPE"])

    return train_whole


def ours_fast(train, val, seed, stopwatch):
    """Notebook 08's quick way to 99.0 %. The clock counts all of it, the stem's filters too."""
    cnn = EIGHT["train_fast"](*train)
    stopwatch.stop()
    stopwatch.epochs = 1
    right = cnn.predict(val[0], verbose=0).argmax(axis=1) == val[1].argmax(axis=1)
    stopwatch.note(right.mean())
    return cnn


# --- well-known networks, rebuilt from their published descriptions ------------------------------


def convolution(filters, size, **options):
    return layers.Conv2D(filters, size, activation="relu", **options)


def old_generator(train, batch_size, seed):
    """The augmentation that two of the references use: Keras' own of old, by SciPy."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(
        rotation_range=10, zoom_range=0.1, width_shift_range=0.1, height_shift_range=0.1
    )
    # Passed to fit without steps_per_epoch: with it, every second epoch is lost.
    return generator.flow(*train, batch_size=batch_size, seed=seed)


def ghouzam(train, val, seed, stopwatch):
    """Y. Ghouzam, "Introduction to CNN Keras", Kaggle 2017: 30 epochs, its last one kept."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            convolution(32, 5, padding="same"),
            convolution(32, 5, padding="same"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            convolution(64, 3, padding="same"),
            convolution(64, 3, padding="same"),
            layers.MaxPooling2D(),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.RMSprop(1e-3)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    callbacks = [
        keras.callbacks.ReduceLROnPlateau("val_accuracy", patience=3, factor=0.5, min_lr=1e-5),
        stopwatch,
    ]
    batches = old_generator(train, 86, seed)
    model.fit(batches, epochs=30, validation_data=val, callbacks=callbacks, verbose=2)
    return model


def deotte(train, val, seed, stopwatch):
    """C. Deotte, "25 Million Images", Kaggle 2018, a single network; 30 of its 30 to 45 epochs."""
    model = keras.Sequential([keras.Input((28, 28, 1))])
    for filters in (32, 64):
        for size, options in ((3, {}), (3, {}), (5, {"strides": 2, "padding": "same"})):
            model.add(convolution(filters, size, **options))
            model.add(layers.BatchNormalization())
        model.add(layers.Dropout(0.4))
    for layer in (convolution(128, 4), layers.BatchNormalization(), layers.Flatten()):
        model.add(layer)
    model.add(layers.Dropout(0.4))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3 * 0.95**epoch)
    batches = old_generator(train, 64, seed)
    callbacks = [schedule, stopwatch]
    model.fit(batches, epochs=30, validation_data=val, callbacks=callbacks, verbose=2)
    return model


def keras_io(train, val, seed, stopwatch):
    """F. Chollet, "Simple MNIST convnet", keras.io: no augmentation, 15 epochs."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            convolution(32, 3),
            layers.MaxPooling2D(),
            convolution(64, 3),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    options = {"batch_size": 128, "epochs": 15, "callbacks": [stopwatch], "verbose": 2}
    model.fit(*train, validation_data=val, **options)
    return model


def train_mnist_fast(train, val, seed, stopwatch):
    """T. Oikarinen, train_mnist_fast: one epoch, the learning rate up to .01 and down again.

    PyTorch's OneCycleLR goes up along a cosine, and here it goes up along a line.
    """
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(24, 5),
            layers.MaxPooling2D(),
            layers.ReLU(),
            layers.Conv2D(32, 3),
            layers.MaxPooling2D(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    steps = -(-len(train[0]) // 256)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.01 / 25,
        warmup_target=0.01,
        warmup_steps=int(0.3 * steps),
        decay_steps=steps - int(0.3 * steps),
        alpha=1e-5,
    )
    optimizer = keras.optimizers.Adam(schedule, beta_1=0.7, beta_2=0.9)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    model.fit(*train, batch_size=256, validation_data=val, callbacks=[stopwatch], verbose=2)
    return model


class OneCycle(keras.optimizers.schedules.LearningRateSchedule):
    """PyTorch's OneCycleLR: along half a cosine up to the peak in 30% of the steps, then down."""

    def __init__(self, peak, steps):
        self.peak, self.steps = peak, steps

    def __call__(self, step):
        top, last = 0.3 * self.steps - 1, self.steps - 1
        step = ops.cast(step, "float32")
        rising, falling = step / top, (step - top) / (last - top)
        low, lowest = self.peak / 25, self.peak / 25 / 1e4
        up = self.peak + (low - self.peak) * (1 + ops.cos(np.pi * rising)) / 2
        down = lowest + (self.peak - lowest) * (1 + ops.cos(np.pi * falling)) / 2
        return ops.where(step <= top, up, down)

    def get_config(self):
        return {"peak": self.peak, "steps": self.steps}


def train_mnist_fast_60k(train, val, seed, stopwatch):
    """The same as published: all 60,000 images, normalized, and PyTorch's initial weights.

    And as fast as Keras can: its steps run in one go, as those of ours_fast.
    """

    def uniform(fan_in):
        limits = {"minval": -(fan_in**-0.5), "maxval": fan_in**-0.5}
        kinds = ("kernel_initializer", "bias_initializer")
        return {kind: keras.initializers.RandomUniform(**limits) for kind in kinds}

    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 0.3081, offset=-0.1307 / 0.3081),
            layers.Conv2D(24, 5, **uniform(25)),
            layers.MaxPooling2D(),
            layers.ReLU(),
            layers.Conv2D(32, 3, **uniform(9 * 24)),
            layers.MaxPooling2D(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(256, activation="relu", **uniform(25 * 32)),
            layers.Dense(10, activation="softmax", **uniform(256)),
        ]
    )
    steps = -(-len(train[0]) // 256)
    optimizer = keras.optimizers.Adam(OneCycle(0.01, steps), beta_1=0.7, beta_2=0.9)
    at_once = steps if keras.backend.backend() == "tensorflow" else 1
    model.compile(optimizer, "categorical_crossentropy", steps_per_execution=at_once)
    optimizer.build(model.trainable_variables)
    model.fit(*train, batch_size=256, verbose=0)
    stopwatch.stop()
    stopwatch.epochs = 1
    return model


def find(name):
    """Return (group, training function) of a recipe by its name, or by its changes as JSON.

    Raises ValueError if that is no JSON, or changes what 08's recipe does not have.
    """
    references = {
        "ghouzam": ghouzam,
        "deotte": deotte,
        "keras-io": keras_io,
        "train-mnist-fast": train_mnist_fast,
    }
    ours = {
        "ours-04": ours_04,
        "ours-08": modern({}),
        "ours-08-10": modern({"epochs": 10}),  # less than half of the time
        "ours-12": modern({"epochs": 12, "clean_end": 0.25, "stage_dropout": 0.1}),
        "ours-wide": modern({"blocks": WIDE_BLOCKS, "clean_end": 0.25}),
        "ours-fast": ours_fast,
    }
    if name in references:
        return "references", references[name]
    if name == "train-mnist-fast-60k":
        return "published", train_mnist_fast_60k
    if name == "ours-wide-60k":  # frozen: the group alone gives it the other 5,000 images
        return "ours-60k", ours["ours-wide"]
    if name in ours:
        return "ours", ours[name]
    if name == "ours-04-plain":
        return "controls", partial(ours_04, augmented=False)
    if name.startswith("backend-"):  # on which one, the environment decides: see run_alone
        return "backends", modern({"epochs": 5})  # as 08 itself
    if name in CHANGES:
        return "changes", modern(CHANGES[name])
    if name in WHOLE:
        return "whole", modern(WHOLE[name])
    changes = json.loads(name)
    if unknown := set(changes) - set(EIGHT["RECIPE"]) - set(EXTRAS) - {"distortion"}:
        raise ValueError(f"08's recipe has no {', '.join(sorted(unknown))}")
    if "distortion" in changes:  # other limits than the layer's own
        limits = changes.pop("distortion")
        if "bend" in limits:  # what the table calls it
            limits["elastic"] = limits.pop("bend")
        changes["augmentation"] = [partial(EIGHT["RandomDistortion"], **limits)]
    return "search", modern(changes)


# --- what a recipe is, and the hash that its rows bear -------------------------------------------

LAYER_SETTINGS = [
    *("filters", "units", "kernel_size", "strides", "padding", "pool_size", "cropping"),
    *("use_bias", "momentum", "epsilon", "rate", "offset"),
]
CALLBACK_SETTINGS = ["monitor", "factor", "patience", "min_lr", "save_best_only"]
GENERATOR_SETTINGS = [
    *("rotation_range", "zoom_range", "width_shift_range", "height_shift_range", "shear_range"),
    *("horizontal_flip", "fill_mode"),
]


class Fitting(Exception):
    """Raised where training would begin: (model, images, options of fit)."""


def effect_on_ink(layer):
    """Describe what an augmentation layer does to a drawn L, for three draws that are not random.

    Returns three lists: the ink's sum, its mean x and y, and its variances and covariance, in
    pixels. So the description follows from what the layer does, not from how it is written.
    """
    shape = np.zeros((28, 28), "float32")
    shape[6:21, 9:12] = shape[18:21, 9:18] = 1
    images = ops.convert_to_tensor(np.repeat(shape[None, ..., None], 3, axis=0))

    def spread_evenly(shape, minval=0.0, maxval=1.0, **options):
        places = np.arange(1, np.prod(shape) + 1) * (5**0.5 - 1) / 2 % 1
        return ops.convert_to_tensor(
            (minval + (maxval - minval) * places).reshape(shape), "float32"
        )

    with patch.object(keras.random, "uniform", spread_evenly):
        changed = ops.convert_to_numpy(layer(images, training=True))[..., 0].astype("float64")
    y, x = np.mgrid[:28, :28] - 13.5
    effects = []
    for ink in changed:
        mean_x, mean_y = np.average(x, weights=ink), np.average(y, weights=ink)
        away = np.stack([x - mean_x, y - mean_y])
        (var_x, covariance), (_, var_y) = np.einsum("iyx,jyx,yx->ij", away, away, ink / ink.sum())
        effects.append([ink.sum(), mean_x, mean_y, var_x, var_y, covariance])
    return np.round(effects, 2).tolist()


def describe_layers(model):
    """List the layers of a model and of the models in it: [name, settings] each."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.Sequential):
            found += describe_layers(layer)
        elif not type(layer).__module__.startswith("keras"):
            found.append(["augmentation", effect_on_ink(layer)])
        else:
            config = layer.get_config()
            settings = {key: config[key] for key in LAYER_SETTINGS if key in config}
            settings["trainable"] = layer.trainable
            if isinstance(layer, layers.Rescaling):
                settings["scale"] = config["scale"]
            for key in ("kernel_initializer", "bias_initializer"):
                if key in config:
                    settings[key] = config[key]["class_name"]
                    if limit := config[key]["config"].get("maxval"):
                        settings[key] += f" up to {limit:.5g}"
            if layer.weights and not layer.trainable:  # they were set to something
                squares = sum(float(ops.sum(weight**2)) for weight in layer.weights)
                settings["sum_of_squares"] = round(squares, 1)
            if not isinstance(layer, layers.ReLU):
                found.append([type(layer).__name__, settings])
            activation = "relu" if isinstance(layer, layers.ReLU) else config.get("activation")
            if activation not in (None, "linear"):
                found.append([activation, {}])
    for k in range(1, len(found)):  # the maximum and ReLU give the same in either order
        if found[k][0] == "MaxPooling2D" and found[k - 1][0] == "relu":
            found[k - 1], found[k] = found[k], found[k - 1]
    return found


def describe_callback(callback, epochs):
    if isinstance(callback, keras.callbacks.LearningRateScheduler):
        return [
            "LearningRateScheduler",
            [float(f"{callback.schedule(e):.6g}") for e in range(epochs)],
        ]
    settings = {key: getattr(callback, key) for key in CALLBACK_SETTINGS if hasattr(callback, key)}
    return [type(callback).__name__, settings]


def describe(name, n_images):
    """Return what a recipe trains on n_images and how, as nested lists, numbers, and texts.

    It is found by running the recipe up to the call of `fit`: the network with its augmentation,
    the optimizer with its learning rate schedule, the loss, the callbacks, and the batches.
    """

    def fit(model, x=None, y=None, **options):
        raise Fitting(model, x, options)

    noise = np.random.default_rng(0).random((1, 28, 28, 1), "float32")
    images = np.broadcast_to(noise, (n_images, 28, 28, 1))  # all the same: it takes no memory
    targets = np.broadcast_to(np.eye(10, dtype="float32")[0], (n_images, 10))
    train = None
    try:
        with patch.object(keras.Sequential, "fit", fit):
            if name.startswith("ensemble-"):
                train_for_ensemble(name.removeprefix("ensemble-"))(images, targets, 1)
            if name.startswith("race-"):
                train_for_ensemble("quick")(images, targets, 1)
            train = find(name)[1]
            train((images, targets), (images[:8], targets[:8]), 1, Stopwatch())
    except Fitting as reached:
        model, x, options = reached.args
    optimizer = model.optimizer.get_config()
    if isinstance(optimizer["learning_rate"], float):
        optimizer["learning_rate"] = float(f"{optimizer['learning_rate']:.6g}")  # it was float32
    generator = getattr(x, "image_data_generator", None)
    callbacks = [c for c in options.get("callbacks", []) if not isinstance(c, Stopwatch)]
    epochs = options.get("epochs", 1)
    extras = getattr(train, "extras", None)  # what the layers and options do not tell
    return ({"extras": extras} if extras else {}) | {
        "layers": describe_layers(model),
        "optimizer": type(model.optimizer).__name__,
        "optimizer_settings": {k: v for k, v in optimizer.items() if v is not None and k != "name"},
        "label_smoothing": getattr(model.loss, "label_smoothing", 0.0),
        "callbacks": [describe_callback(callback, epochs) for callback in callbacks],
        "generator": {key: getattr(generator, key, None) for key in GENERATOR_SETTINGS},
        "batch_size": getattr(x, "batch_size", None) or options["batch_size"],
        "shuffle": getattr(x, "shuffle", options.get("shuffle", True)),
        "epochs": epochs,
    }


def recipe_hash(name, n_images, held_out, data="MNIST"):
    """Return twelve hexadecimal digits that change with network, augmentation, schedule, or data.

    n_images: how many are trained on; held_out: how the others were chosen.
    """
    whole = describe(name, int(n_images)) | {"images": int(n_images), "data": [data, held_out]}
    text = json.dumps(whole, sort_keys=True, default=float)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
