"""The page that runs the network: built from models, opened in real browsers, drawn on.

Nothing here is timed. What the page computes is compared with Keras and with notebook 07.
"""

import base64
import json
import math
import re

import keras
import numpy as np
import pytest
from browser import chromium, screenshot, sync_api
from conftest import ROOT, data_file, definitions
from digit_images import STYLES, draw_digit
from firefox import FIREFOX, firefox
from keras import layers

import recaps

ELEVEN = {"DATA": ROOT / "data", "keras": keras}
exec(recaps.definitions("load_digits", "scale", "split", "write_draw_page"), ELEVEN)
to_mnist_style = definitions("07", DATA=ROOT / "data")["to_mnist_style"]
DATA_NAME = ELEVEN["load_digits"]()[2]
IS_MNIST = DATA_NAME == "MNIST"


# --- The models and their pages -------------------------------------------------------------------


@pytest.fixture(scope="module")
def images():
    """Validation images and labels, then test images and labels."""
    (x_all, y_all), (x_test, y_test), _ = ELEVEN["load_digits"]()
    _, x_val, _, y_val = ELEVEN["split"](ELEVEN["scale"](x_all), y_all)
    return x_val, y_val, ELEVEN["scale"](x_test), y_test


def small_network(*middle, name=f"cnn_{DATA_NAME}"):
    """A network that is quick to train, with these layers in the middle."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.MaxPooling2D(),
            *middle,
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ],
        name=name,
    )


@pytest.fixture(scope="module")
def tiny(images, tmp_path_factory):
    """A file with a tiny trained network, of fewer and smaller layers than notebook 03's."""
    x, y, _, _ = images
    model = small_network(layers.Conv2D(4, 4, activation="relu"), layers.Dropout(0.1))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=2, verbose=0)
    path = tmp_path_factory.mktemp("tiny") / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def trained(left_file):
    """The model that notebook 04 has left in the tested copy."""
    return left_file("model.keras")


@pytest.fixture(scope="module")
def write(images, tmp_path_factory):
    """A function that writes the page for a model file and returns its path."""

    def write(model_file):
        path = tmp_path_factory.mktemp("page") / "draw.html"
        ELEVEN["write_draw_page"](path, model_file, *images[:2], DATA_NAME)
        return path

    return write


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


DESKTOP = {"viewport": {"width": 1280, "height": 720}}
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}


def open_page(browser, path, **options):
    """Open the page; page.asked: what it requested; page.said: what it wrote to the console."""
    page = browser.new_page(**(DESKTOP | options))
    page.asked, page.said = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(path.as_uri())
    return page


def close(page):
    """Close the page, and see to it that it was quiet and asked nobody for anything."""
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == [page.url]
    page.context.close()


@pytest.fixture
def page(browser, write, trained):
    page = open_page(browser, write(trained))
    yield page
    close(page)


# --- What it computes -----------------------------------------------------------------------------


def as_text(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


PREDICT = """(text) => {
  const bytes = decodeBytes(text), found = [];
  for (let k = 0; k < bytes.length; k += 784) {
    const image = Float32Array.from(bytes.subarray(k, k + 784), (value) => value / 255);
    found.push(Array.from(forward(image, layers).at(-1).values));
  }
  return found;
}"""


def probabilities_in_page(page, pixels):
    """The page's probabilities for images uint8 (n, 28, 28)."""
    return np.array(page.evaluate(PREDICT, as_text(pixels)))


def check_predictions(browser, write, images, model_file):
    """Check that the page gives the same probabilities as Keras, and is quiet."""
    page = open_page(browser, write(model_file))
    x = images[2][:500]
    expected = keras.models.load_model(model_file).predict(x, verbose=0)
    found = probabilities_in_page(page, np.uint8(np.round(255 * x)))
    assert np.abs(found - expected).max() < 0.005
    second, first = np.sort(expected, axis=1)[:, -2:].T
    clear = first - second > 0.01  # the page's weights are rounded, so a tie may go the other way
    assert clear.sum() > 450
    assert np.array_equal(found[clear].argmax(axis=1), expected[clear].argmax(axis=1))
    close(page)


def test_the_same_predictions_as_keras(browser, write, images, trained):
    check_predictions(browser, write, images, trained)


def test_the_same_predictions_as_keras_from_other_layers(browser, write, images, tiny):
    check_predictions(browser, write, images, tiny)


def drawings(n):
    """Drawings as the pad makes them, uint8 (n, 280, 280): pens and sizes around the usual ones."""
    rng, found = np.random.default_rng(11), []
    for k in range(n):
        style = list(STYLES)[rng.integers(len(STYLES))]
        ink = draw_digit(rng, k % 10, style, rng.uniform(90, 240), rng.uniform(10, 26))
        page = np.zeros((280, 280), "float32")
        top, left = (rng.integers(max(1, 280 - side + 1)) for side in ink.shape)
        ink = ink[: 280 - top, : 280 - left]
        page[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
        found.append(np.uint8(np.round(255 * (1 - page))))
    return found


def prepare_in_page(page, drawing):
    """The image (28, 28) that the page makes of a drawing uint8 (h, w)."""
    script = """([text, height, width]) => {
      const gray = Float32Array.from(decodeBytes(text), (value) => value / 255);
      return Array.from(toMnistStyle(makeGrid(height, width, 1, gray)));
    }"""
    found = page.evaluate(script, [as_text(drawing), *drawing.shape])
    return np.reshape(found, (28, 28)).astype("float32")


def test_drawings_are_prepared_as_in_notebook_07(page, trained):
    drawn = drawings(300)
    expected = np.array([to_mnist_style(drawing) for drawing in drawn])
    found = np.array([prepare_in_page(page, drawing) for drawing in drawn])
    assert np.abs(found - expected).mean() < 0.02
    model = keras.models.load_model(trained)
    digits = [
        model.predict(x[..., np.newaxis], verbose=0).argmax(axis=1) for x in (found, expected)
    ]
    assert np.sum(digits[0] == digits[1]) >= 299


def test_light_on_dark_is_prepared_like_dark_on_light(page):
    drawing = drawings(1)[0]
    assert np.allclose(
        prepare_in_page(page, drawing), prepare_in_page(page, 255 - drawing), atol=0.01
    )


def test_without_preparation_blocks_are_averaged(page, images):
    """A digit that was enlarged for the pad comes back nearly as it was, a little blurred."""
    page.uncheck("#prepared")
    page.click("#examples button >> nth=4")
    first = images[0][np.argmax(images[1] == 4), :, :, 0]
    found = np.reshape(page.evaluate("Array.from(image)"), (28, 28))
    assert np.abs(found - first).mean() < 0.03
    assert np.corrcoef(found.ravel(), first.ravel())[0, 1] > 0.98


# --- Drawing with mouse, finger, and keyboard -----------------------------------------------------

RING = [(140 + 50 * math.sin(t / 5), 140 - 80 * math.cos(t / 5)) for t in range(32)]
LINE = [(140, 50), (138, 230)]


def where(page, points):
    """Points of the pad, (x, y) from 0 to 280, as positions in the window."""
    pad = page.locator("#pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    return [
        (box["x"] + x * box["width"] / 280, box["y"] + y * box["height"] / 280) for x, y in points
    ]


def draw(page, points):
    """Draw one stroke with the mouse."""
    first, *others = where(page, points)
    page.mouse.move(*first)
    page.mouse.down()
    for x, y in others:
        page.mouse.move(x, y, steps=3)
    page.mouse.up()


def expect_verdict(page, pattern):
    verdict = page.locator("#verdict")
    sync_api.expect(verdict).to_have_text(re.compile(pattern))
    return verdict.inner_text()


def ink(page):
    return page.evaluate("image.reduce((sum, value) => sum + value, 0)")


def test_an_empty_dark_pad_can_be_drawn_on(page):
    page.click("#clear")
    page.click("text=invert")
    draw(page, LINE)
    expect_verdict(page, "Prediction|Not sure")
    assert page.evaluate("Math.max(...drawing.values)") > 0.9, "light on dark"
    assert ink(page) > 0


def test_drawing_undo_and_clear(page, trained):
    page.click("#clear")
    expect_verdict(page, "Draw a digit")
    assert ink(page) == 0
    draw(page, RING)
    first = expect_verdict(page, r"Prediction: 0|Not sure" if IS_MNIST else "Prediction|Not sure")
    drawn = np.uint8(
        np.reshape(page.evaluate("Array.from(drawing.values, (v) => 255 * v)"), (280, 280))
    )
    seen = np.reshape(page.evaluate("Array.from(image)"), (28, 28))
    assert np.abs(seen - to_mnist_style(drawn)).mean() < 0.02
    draw(page, [(60, 60), (220, 60), (220, 220), (60, 220)])
    page.wait_for_function(f"Math.abs(image.reduce((a, b) => a + b) - {seen.sum()}) > 1")
    page.keyboard.press("Control+z")
    expect_verdict(page, re.escape(first))
    assert ink(page) == pytest.approx(seen.sum(), abs=0.01)
    page.click("#undo")
    expect_verdict(page, "Draw a digit")
    draw(page, LINE)
    expect_verdict(page, "Prediction: 1" if IS_MNIST else "Prediction|Not sure")
    screenshot(page, "draw-page")


def test_drawing_with_a_finger(browser, write, trained):
    page = open_page(browser, write(trained), **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "nothing sticks out"
    page.tap("#clear")
    points = where(page, LINE)
    touch = """([type, x, y, id]) => document.getElementById("pad").dispatchEvent(
      new PointerEvent(type, { pointerType: "touch", pointerId: id, isPrimary: id === 1,
        buttons: 1, clientX: x, clientY: y, bubbles: true }))"""
    page.evaluate("HTMLElement.prototype.setPointerCapture = () => {}")  # for a finger of our own
    kinds = ["pointerdown"] + ["pointermove"] * len(points) + ["pointerup"]
    for kind, (x, y) in zip(kinds, [points[0], *points, points[-1]], strict=True):
        page.evaluate(touch, [kind, x, y, 1])
        page.evaluate(touch, [kind, x + 40, y, 2])  # the palm, which leaves no ink
    expect_verdict(page, "Prediction: 1" if IS_MNIST else "Prediction|Not sure")
    page.tap(".layer canvas >> nth=0")
    sync_api.expect(page.locator("#origin")).to_contain_text("Convolution 1, map")
    screenshot(page, "draw-page-phone")
    page.tap("#origin button")
    sync_api.expect(page.locator("#origin")).to_be_hidden()
    close(page)


def test_drawing_with_the_keyboard(page):
    page.click("#clear")
    page.focus("#pad")
    for key in [*["ArrowUp"] * 9, " ", *["ArrowDown"] * 18, " "]:
        page.keyboard.press(key)
    expect_verdict(page, "Prediction: 1" if IS_MNIST else "Prediction|Not sure")
    page.keyboard.press("Delete")
    expect_verdict(page, "Draw a digit")
    page.keyboard.press("5")
    expect_verdict(page, "Prediction|Not sure")


@pytest.mark.skipif(FIREFOX is None, reason="Firefox is not here: apt-get install firefox-esr")
@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_firefox_predicts_and_draws_the_same(write, trained, images, tmp_path, kind):
    path, x = write(trained), images[2][:500]
    size = (1280, 720) if kind == "mouse" else (360, 740)
    with firefox(tmp_path) as page:
        page.open(path.as_uri(), *size)
        text = as_text(np.uint8(np.round(255 * x)))
        found = np.array(page.evaluate(f"({PREDICT})('{text}')"))
        expected = keras.models.load_model(trained).predict(x, verbose=0)
        assert np.abs(found - expected).max() < 0.005
        assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))
        left, top, width = page.evaluate(
            "['x', 'y', 'width'].map((k) => pad.getBoundingClientRect()[k])"
        )
        page.evaluate("(find('clear').click(), 1)")
        page.stroke([(left + a * width / 280, top + b * width / 280) for a, b in LINE], kind)
        page.evaluate(
            "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100, 1)))"
        )
        drawn = np.uint8(
            np.reshape(page.evaluate("Array.from(drawing.values, (v) => 255 * v)"), (280, 280))
        )
        seen = np.reshape(page.evaluate("Array.from(image)"), (28, 28))
        assert drawn.min() == 0 and np.abs(seen - to_mnist_style(drawn)).mean() < 0.02
        if IS_MNIST:
            assert page.evaluate("find('verdict').textContent").startswith("Prediction: 1")
        assert page.said == []
        assert set(page.asked) <= {path.as_uri()}
        page.evaluate("fetch('http://127.0.0.1:48151/').catch(() => 1)")
        assert "http://127.0.0.1:48151/" in page.asked, "a request would have been seen"


# --- Things to try --------------------------------------------------------------------------------


def center(page):
    """The center of mass (x, y) of what the network sees."""
    seen = np.reshape(page.evaluate("Array.from(image)"), (28, 28))
    y, x = np.mgrid[:28, :28]
    return (seen * x).sum() / seen.sum(), (seen * y).sum() / seen.sum()


def test_shift_counts_only_without_preparation(page):
    before = center(page)
    page.click("[aria-label='Shift: right']")
    assert center(page) == pytest.approx(before, abs=0.1)
    page.click("#undo")
    page.uncheck("#prepared")
    x, y = center(page)
    page.click("[aria-label='Shift: right']")
    page.click("[aria-label='Shift: up']")
    assert center(page) == pytest.approx((x + 2, y - 2), abs=0.05)


def test_thicker_thinner_rotate_noise_and_invert(page):
    page.uncheck("#prepared")
    start = ink(page)
    page.click("text=thicker")
    thick = ink(page)
    page.click("text=thinner")
    assert thick > 1.1 * start and ink(page) < thick
    page.click("#undo")
    page.click("#undo")
    seen = page.evaluate("Array.from(image)")
    page.click("text=invert")
    assert np.allclose(page.evaluate("Array.from(image)"), 1 - np.array(seen), atol=0.01)
    page.click("text=invert")
    for _ in range(9):
        page.click("[aria-label='Rotate: counterclockwise']")
    turned = np.rot90(np.reshape(seen, (28, 28)))  # 90° counterclockwise, like nine times 10°
    found = np.reshape(page.evaluate("Array.from(image)"), (28, 28))
    assert np.corrcoef(turned.ravel(), found.ravel())[0, 1] > 0.9
    page.click("text=noise")
    assert np.std(page.evaluate("Array.from(image)") - found.ravel()) > 0.05


# --- Where a number comes from --------------------------------------------------------------------


def test_each_number_is_explained_by_what_it_is_computed_from(page, trained):
    """Patch, kernel, products, and their sum give the number that Keras computes."""
    model = keras.models.load_model(trained)
    inside = keras.Model(model.inputs[0], [layer.output for layer in model.layers])
    image = np.float32(page.evaluate("Array.from(image)")).reshape(1, 28, 28, 1)
    outputs = [keras.ops.convert_to_numpy(output)[0] for output in inside(image)]
    shown = [output for layer, output in zip(model.layers, outputs, strict=True) if
             isinstance(layer, layers.Conv2D | layers.MaxPooling2D | layers.Dense)]  # fmt: skip
    for index, output in enumerate(shown, start=1):
        output = output.reshape(1, 1, -1) if output.ndim == 1 else output
        place = np.unravel_index(output.argmax(), output.shape)
        y, x, channel = map(int, place)
        pick = {"grid": index, "channel": channel, "y": y, "x": x}
        page.evaluate("(pick) => explain(pick, true)", pick)
        text = page.locator("#origin").inner_text().replace("−", "-")
        value = float(re.search(r": (-?[\d.]+)", text)[1])
        assert value == pytest.approx(output[y, x, channel], abs=0.01)
        if "bias" in text:
            numbers = r"add up to (-?[\d.]+); with the bias (-?[\d.]+), this makes (-?\d+\.?\d*)"
            total, bias, result = map(float, re.search(numbers, text).groups())
            assert result == pytest.approx(total + bias, abs=0.011 + 0.005 * abs(result))
        if index < len(shown):
            assert result == pytest.approx(value, abs=0.01)


def test_the_marks_are_the_receptive_field(page):
    """5, 6, 10, 14, 16 pixels, as notebook 03 computes them."""
    sides = []
    for index in range(1, 6):
        pick = {"grid": index, "channel": 0, "y": 1, "x": 2}
        page.evaluate("(pick) => explain(pick, true)", pick)
        top, left, bottom, right = page.evaluate("marked(0, 0)")
        assert bottom - top == right - left
        sides.append(bottom - top)
    assert sides == [5, 6, 10, 14, 16]


def test_pointing_with_the_mouse_and_the_keyboard(page):
    canvas, origin = page.locator(".layer canvas").first, page.locator("#origin")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 25, box["y"] + 25)
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    sync_api.expect(origin).to_contain_text("Convolution 1, map 0")
    page.mouse.move(box["x"] + box["width"] - 9, box["y"] + box["height"] - 9)
    sync_api.expect(origin).to_contain_text("Convolution 1, map 15")
    page.mouse.move(5, 5)
    page.keyboard.press("Escape")
    sync_api.expect(origin).to_be_hidden()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    sync_api.expect(origin).to_contain_text("map 0, row 12, column 12")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("PageDown")
    sync_api.expect(origin).to_contain_text("map 1, row 12, column 13")


# --- What it says about itself, and what it refuses -----------------------------------------------


def test_one_small_file_that_names_its_model(write, trained, tiny):
    for model_file in (trained, tiny):
        path = write(model_file)
        assert path.stat().st_size < 1_500_000
        text = path.read_text(encoding="utf-8")
        assert f"The network cnn_{DATA_NAME}, with " in text and f"trained on {DATA_NAME}" in text
        assert "http" not in re.sub(r"[A-Za-z0-9+/=]{200,}", "", text), "no address to ask"


def test_make_run_writes_the_page_or_says_why_not(trained, tmp_path, monkeypatch, capsys):
    import run

    if not IS_MNIST:
        monkeypatch.setenv("DIGITS_DATA", str(data_file()))
    monkeypatch.setattr(run, "PAGES", tmp_path)
    monkeypatch.setattr(run, "DATA", trained.parent)
    run.write_draw_page()
    assert f"trained on {DATA_NAME}" in (tmp_path / "draw.html").read_text(encoding="utf-8")
    (tmp_path / "mnist.npz").symlink_to(data_file())
    monkeypatch.setattr(run, "DATA", tmp_path)
    run.write_draw_page()
    OTHERS["padding"].save(tmp_path / "model.keras")
    run.write_draw_page()
    said = capsys.readouterr().out
    assert "model.keras is missing; notebook 04 makes it" in said
    assert "has padding=same, but only padding=valid is known" in said
    assert not (tmp_path / "draw.html").exists(), "an old page would be about another model"


OTHERS = {
    "batch normalization": small_network(layers.BatchNormalization()),
    "padding": small_network(layers.Conv2D(4, 3, padding="same", activation="relu")),
    "strides": small_network(layers.Conv2D(4, 3, strides=2, activation="relu")),
    "no activation": small_network(layers.Conv2D(4, 3)),
    "large pools": small_network(layers.MaxPooling2D(3)),
    "other data": small_network(name="cnn_toy"),
    "eleven classes": keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(11, activation="softmax")]
    ),
    "another size": keras.Sequential(
        [keras.Input((32, 32, 1)), layers.Flatten(), layers.Dense(10, activation="softmax")]
    ),
    "logits": keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(10)]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_network_is_refused_with_a_sentence(write, tmp_path, name):
    OTHERS[name].save(tmp_path / "model.keras")
    sentence = r"the layer .+ is a .+; known are|the layer .+ has .+, but only .+ is known"
    sentence += r"|expected is relu|does not return ten|which was not trained on"
    with pytest.raises(ValueError, match=sentence):
        write(tmp_path / "model.keras")


def test_a_page_with_damaged_weights_says_so(browser, write, tiny, tmp_path):
    text = write(tiny).read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="model">(.+?)</script>', text)
    model = json.loads(found[1])
    model["layers"][0]["kernel"] = model["layers"][0]["kernel"][:8]
    (tmp_path / "damaged.html").write_text(
        text.replace(found[1], json.dumps(model)), encoding="utf-8"
    )
    page = open_page(browser, tmp_path / "damaged.html")
    sync_api.expect(page.locator("#problem")).to_contain_text("This page cannot run the model")
    sync_api.expect(page.locator("main")).to_be_hidden()
    close(page)
