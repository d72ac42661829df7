"""Notebook 07: preparing one digit, files that cannot be read, the back half of the drawing pad.

Nothing here is timed; the accuracy is measured on the held-out part of `digit_images`.
"""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from conftest import ROOT, data_file, definitions
from digit_images import draw_digit, single_digit
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

IS_MNIST = data_file().name == "mnist.npz"


def functions_with_model(number, folder):
    """Return a notebook's functions, and with them the model of `folder`, as `load_model` does."""
    names = definitions(number, DATA=ROOT / "data")
    names["reader"] = load_model(names, folder)  # the pad's; the tests of 09 load another one
    return names


def load_model(names, folder):
    """Load model.keras from `folder`, or train a quick one, with the notebook's own functions."""
    names["DATA"] = folder
    (x_all, y_all), _, name = names["load_digits"]()
    names["data_name"] = name
    names["x_train"], _, names["y_train"], _ = names["split"](names["scale"](x_all), y_all)
    names["model"] = names["load_or_train"]("model.keras")
    return names["model"]


@pytest.fixture(scope="module")
def names(left_file):
    """The notebook's functions, with the model that notebook 04 has left in the tested copy."""
    return functions_with_model("07", left_file("model.keras").parent)


@pytest.fixture(scope="module")
def model(names):
    return names["model"]


NOTEBOOK_07 = definitions("07", DATA=ROOT / "data")
to_mnist_style = NOTEBOOK_07["to_mnist_style"]


def is_mnist_style(image):
    assert image.shape == (28, 28)
    assert image.dtype == np.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert image.max() > 0.3


def like(a, b):
    """How alike two images are: the correlation of their pixels."""
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]


def drawing(seed=0, side=140, height=90, width=9.0, digit=3, style="round", at=(25, 30)):
    """A digit as ink float32 (side, side), 0 to 1."""
    ink = draw_digit(np.random.default_rng(seed), digit, style, height, width)
    page = np.zeros((side, side), np.float32)
    page[at[0] : at[0] + ink.shape[0], at[1] : at[1] + ink.shape[1]] = ink
    return page


# --- to_mnist_style -----------------------------------------------------------------------------

sides = st.integers(8, 60)
pixels = st.one_of(
    hnp.arrays(np.uint8, st.tuples(sides, sides)),
    hnp.arrays(np.uint8, st.tuples(sides, sides, st.integers(1, 4))),
    hnp.arrays(np.uint16, st.tuples(sides, sides)),
    hnp.arrays(bool, st.tuples(sides, sides)),
    hnp.arrays(np.float32, st.tuples(sides, sides), elements=st.floats(0, 1, width=32)),
)


@settings(deadline=None, max_examples=150)
@given(pixels)
def test_any_image_gives_mnist_style_or_says_why_not(array):
    try:
        image = to_mnist_style(array)
    except ValueError as error:
        assert "no ink" in str(error)
    else:
        is_mnist_style(image)


no_image = st.one_of(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=7)),
    hnp.arrays(np.int16, (12, 12), elements=st.integers(-300, -1)),
    hnp.arrays(np.float64, (12, 12), elements=st.sampled_from([np.nan, 1e9, -0.5])),
    hnp.arrays(np.complex64, (12, 12)),
    hnp.arrays(np.uint8, (12, 12, 5)),
    st.text(max_size=9),
    st.none(),
)


@settings(deadline=None, max_examples=60)
@given(no_image)
def test_what_is_no_image_is_refused_with_the_reason(thing):
    with pytest.raises(ValueError, match="not an image|too small|pixels should be"):
        to_mnist_style(thing)


@settings(deadline=None, max_examples=40)
@given(
    digit=st.integers(0, 9),
    seed=st.integers(0, 10**6),
    at=st.tuples(st.integers(0, 40), st.integers(0, 30)),
)
def test_shifted_and_inverted_digits_give_the_same(digit, seed, at):
    ink = drawing(seed, digit=digit, at=(25, 20))
    moved = drawing(seed, digit=digit, at=at)
    same = to_mnist_style(1 - ink)
    is_mnist_style(same)
    assert np.allclose(same, to_mnist_style(1 - moved), atol=0.02)
    assert np.allclose(same, to_mnist_style(ink), atol=0.02)


@settings(deadline=None, max_examples=30)
@given(
    digit=st.integers(0, 9),
    seed=st.integers(0, 10**6),
    height=st.integers(28, 400),
    style=st.sampled_from(["round", "school", "sharp", "loopy"]),
)
def test_scaled_digits_give_nearly_the_same(digit, seed, height, style):
    small = drawing(seed, 120, 60, 7.2, digit, style, (20, 15))
    large = drawing(seed, 2 * height, height, 0.12 * height, digit, style, (9, 9))
    assert like(to_mnist_style(1 - small), to_mnist_style(1 - large)) > 0.85


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"])
def test_every_kind_of_image_gives_the_same(mode):
    gray = np.uint8(255 * (1 - drawing()))
    image = Image.fromarray(gray)
    expected = to_mnist_style(image)
    if mode == "I;16":
        image = Image.fromarray(gray.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(gray.astype(np.float32))
    elif mode in ("P", "CMYK", "YCbCr", "RGBA"):
        image = image.convert("RGB").convert(mode)
    else:
        image = image.convert(mode)
    assert like(to_mnist_style(image), expected) > 0.97


@pytest.mark.parametrize("ink", [0, 255])
def test_ink_on_nothing(ink):
    """A drawing whose paper is transparent: all the shape is in the alpha channel."""
    shape = drawing()
    pixels = np.full((*shape.shape, 4), ink, np.uint8)
    pixels[..., 3] = 255 * shape
    assert like(to_mnist_style(Image.fromarray(pixels)), to_mnist_style(1 - shape)) > 0.97


def test_exif_rotation_is_undone():
    image = Image.fromarray(np.uint8(255 * (1 - drawing())))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me to the right"
    file = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", exif=exif, quality=95)
    assert like(to_mnist_style(Image.open(file)), to_mnist_style(image)) > 0.97


def test_size_and_center():
    image = to_mnist_style(1 - drawing())
    rows, columns = np.flatnonzero(image.max(1) > 0.2), np.flatnonzero(image.max(0) > 0.2)
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
    y, x = np.mgrid[:28, :28]
    center = [(image * y).sum() / image.sum(), (image * x).sum() / image.sum()]
    assert np.allclose(center, 14, atol=0.6)


def test_light_and_shadow_make_no_difference():
    paper = 1 - 0.9 * drawing()
    light = np.linspace(1, 0.6, 140, dtype=np.float32) * np.where(np.arange(140) > 80, 0.6, 1)
    assert like(to_mnist_style((paper * light).astype(np.float32)), to_mnist_style(paper)) > 0.95


# --- How good it is, on images that it was not tuned with ---------------------------------------


@pytest.mark.skipif(not IS_MNIST, reason="accuracies are about MNIST's model")
@pytest.mark.parametrize("network", ["model", "reader"])
def test_single_drawn_digits(names, model, network, left_file):
    if network == "reader":  # of notebook 09: the pad and the files of 07 are read by it
        left_file("reader.keras")
        model = names["load_reader"]()
    drawn = [single_digit(seed, "held out") for seed in range(400)]
    prepared = np.stack([names["to_mnist_style"](image) for image, _, _ in drawn])
    says = model.predict(prepared[..., np.newaxis], verbose=0)[:, :10].argmax(axis=1)
    wrong = [what for (_, digit, what), s in zip(drawn, says, strict=True) if s != digit]
    assert len(wrong) <= 0.02 * len(drawn), wrong


# --- Files that cannot be read -----------------------------------------------------------------


def bomb():
    """The head of a PNG that claims 20,000 x 20,000 pixels."""
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_files(folder):
    """Write files: what must be refused, with a word of the reason, and what must be read."""
    ink = drawing(digit=1, width=8)
    good = Image.fromarray(np.uint8(255 * (1 - ink))).convert("RGB")
    alpha = np.zeros((140, 140, 4), np.uint8)
    alpha[..., 3] = 255 * ink
    jpeg = saved(good, "JPEG")
    bad = {
        "text.png": (b"no image at all", "not a JPEG"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "incomplete"),
        "empty.png": (b"", "empty"),
        "dot.png": (saved(Image.new("L", (1, 1)), "PNG"), "too small"),
        "line.png": (saved(Image.new("1", (10_000, 8)), "PNG"), "too long and thin"),
        "bomb.png": (bomb(), "too large|larger"),
        "gray.png": (saved(Image.new("RGB", (90, 90), (99, 99, 99)), "PNG"), "no ink"),
        "clear.png": (saved(Image.new("RGBA", (90, 90), (0, 0, 0, 0)), "PNG"), "no ink"),
    }
    fine = {
        "cmyk.jpg": saved(good.convert("CMYK"), "JPEG"),
        "moving.gif": saved(good.convert("P"), "GIF", save_all=True, append_images=[good] * 2),
        "alpha.png": saved(Image.fromarray(alpha), "PNG"),
        "zz-good.png": saved(good, "PNG"),
    }
    for name, content in fine.items():
        (folder / name).write_bytes(content)
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    return {name: reason for name, (_, reason) in bad.items()}, list(fine)


def test_bad_files_get_their_sentence_and_the_others_are_read(tmp_path, names, model, capsys):
    bad, fine = write_files(tmp_path)
    names["read_folder"](tmp_path, model, show=False)
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.strip().splitlines())
    assert sorted(lines) == sorted([*bad, *fine])
    for name, reason in bad.items():
        assert any(word in lines[name] for word in reason.split("|")), (name, lines[name])
    for name in fine if IS_MNIST else ():
        assert lines[name].startswith("1 (confidence "), (name, lines[name])


def test_an_image_of_several_digits_gets_a_note(tmp_path, names, model, capsys):
    several = np.hstack([drawing(digit=digit)[:, 20:120] for digit in (3, 5, 8)])
    Image.fromarray(np.uint8(255 * (1 - several))).save(tmp_path / "several.png")
    Image.fromarray(np.uint8(255 * (1 - drawing()))).save(tmp_path / "single.png")
    names["read_folder"](tmp_path, model, show=False)
    several, single = capsys.readouterr().out.splitlines()
    assert "notebook 09" in several
    assert "notebook 09" not in single


# --- The drawing pad, without a browser ---------------------------------------------------------


def data_url(content):
    return "data:image/png;base64," + base64.b64encode(content).decode()


def test_a_drawing_is_answered(names, model):
    image = np.uint8(255 * (1 - drawing(digit=1, width=8)))
    answer = names["answer_drawing"](data_url(saved(Image.fromarray(image), "PNG")), model)
    assert len(answer["image"]) == 784
    assert all(isinstance(pixel, int) and 0 <= pixel <= 255 for pixel in answer["image"])
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert names["answer_drawing"]("", model) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (data_url(bomb()), "larger than 89 million pixels"),
        ("data:,", "empty"),
        ("nonsense", "empty"),
    ],
)
def test_what_is_no_drawing_gets_its_sentence(text, reason):
    NOTEBOOK_07["reader"] = None  # nothing gets as far as a model
    pad = NOTEBOOK_07["DrawingPad"]()
    pad.drawing = text
    assert reason in pad.answer["message"]
