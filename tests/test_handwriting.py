"""Notebook 07: preparing one digit, finding and reading pages, files that are no good.

Nothing here is timed; the accuracy is measured on the held-out part of `pictures`.
"""

import io
import struct
import zlib

import numpy as np
import pictures
import pytest
from conftest import ROOT, data_file, definitions
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pictures import compare, draw_digit, page, single_digit
from PIL import Image

if data_file() is None:
    pytest.skip("no data: python data/get_mnist.py", allow_module_level=True)
IS_MNIST = data_file().name == "mnist.npz"


def load_model(names, folder):
    """Load model.keras from `folder`, or train a quick one, with the notebook's own functions."""
    names["DATA"] = folder
    (x_all, y_all), _, name = names["load_digits"]()
    names["data_name"] = name
    names["x_train"], _, names["y_train"], _ = names["split"](names["scale"](x_all), y_all)
    names["model"] = names["load_or_train"]("model.keras")
    return names["model"]


def page_digits(part):
    """The MNIST pictures and labels of which `part`'s pages are made; None without MNIST."""
    with np.load(data_file()) as file:
        return pictures.mnist_part(file["x_train"], file["y_train"], part)


@pytest.fixture(scope="module")
def names(nbval):
    """The notebook's functions, with the model that notebook 04 has left in the tested copy."""
    names = definitions("07", DATA=ROOT / "data")
    tree, _ = nbval
    load_model(names, tree / "data")
    return names


@pytest.fixture(scope="module")
def model(names):
    return names["model"]


NOTEBOOK_07 = definitions("07", DATA=ROOT / "data")
to_mnist_style = NOTEBOOK_07["to_mnist_style"]
find_digits, place, brightness = (NOTEBOOK_07[n] for n in ("find_digits", "place", "brightness"))


def is_mnist_style(picture):
    assert picture.shape == (28, 28)
    assert picture.dtype == np.float32
    assert 0 <= picture.min() <= picture.max() <= 1
    assert picture.max() > 0.3


def like(a, b):
    """How alike two pictures are: the correlation of their pixels."""
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
def test_any_picture_gives_mnist_style_or_says_why_not(array):
    try:
        picture = to_mnist_style(array)
    except ValueError as error:
        assert "colour" in str(error)
    else:
        is_mnist_style(picture)


@settings(deadline=None, max_examples=60)
@given(
    st.one_of(
        hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=7)),
        hnp.arrays(np.int16, (12, 12), elements=st.integers(-300, -1)),
        hnp.arrays(np.float64, (12, 12), elements=st.sampled_from([np.nan, 1e9, -0.5])),
        hnp.arrays(np.complex64, (12, 12)),
        hnp.arrays(np.uint8, (12, 12, 5)),
        st.text(max_size=9),
        st.none(),
    )
)
def test_what_is_no_picture_is_refused_with_the_reason(thing):
    with pytest.raises(ValueError, match="no picture|too small|pixels should be"):
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
    grey = np.uint8(255 * (1 - drawing()))
    image = Image.fromarray(grey)
    expected = to_mnist_style(image)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32))
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


def test_size_and_centre():
    picture = to_mnist_style(1 - drawing())
    rows, columns = np.flatnonzero(picture.max(1) > 0.2), np.flatnonzero(picture.max(0) > 0.2)
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
    y, x = np.mgrid[:28, :28]
    centre = [(picture * y).sum() / picture.sum(), (picture * x).sum() / picture.sum()]
    assert np.allclose(centre, 14, atol=0.6)


def test_light_and_shadow_make_no_difference():
    paper = 1 - 0.9 * drawing()
    light = np.linspace(1, 0.6, 140, dtype=np.float32) * np.where(np.arange(140) > 80, 0.6, 1)
    assert like(to_mnist_style((paper * light).astype(np.float32)), to_mnist_style(paper)) > 0.95


# --- Pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "photo", [np.full((400, 300), 200, np.uint8), np.zeros((90, 900, 3), bool)]
)
def test_a_blank_page_has_no_digits(photo):
    assert find_digits(photo) == []


def test_blank_ruled_paper_has_no_digits():
    photo = np.full((600, 500, 3), 240, np.uint8)
    photo[30::40] = photo[31::40] = (120, 150, 210)
    assert find_digits(photo) == []


@pytest.mark.parametrize("flip", [False, True], ids=["dark on light", "light on dark"])
def test_boxes_in_reading_order(flip):
    photo = np.zeros((300, 400), np.float32)
    corners = [(30, 40), (40, 160), (35, 280), (160, 60), (165, 200)]
    for (top, left), digit in zip(corners, [3, 5, 8, 2, 6], strict=True):
        ink = draw_digit(np.random.default_rng(digit), digit, "round", 80, 8)
        photo[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    rows = find_digits(photo if flip else 1 - photo)
    assert [len(row) for row in rows] == [3, 2]
    for (top, left), box in zip(corners, [box for row in rows for box in row], strict=True):
        assert abs(box[0] - top) <= 3
        assert abs(box[1] - left) <= 3


@pytest.mark.parametrize("degrees", [-10, -4, 0, 4, 10])
def test_rows_may_slope(degrees):
    boxes = []
    for top in (100, 220, 340):
        for left in (0, 90, 180, 270, 360):
            down = top + left * np.tan(np.radians(degrees))
            boxes.append((down, left, down + 60, left + 40))
    shuffled = np.random.default_rng(0).permutation(len(boxes))
    rows = NOTEBOOK_07["reading_order"]([boxes[k] for k in shuffled])
    assert [[int(shuffled[k]) for k in row] for row in rows] == np.arange(15).reshape(3, 5).tolist()


# --- How good it is, on pictures that it was not tuned with -------------------------------------


@pytest.mark.skipif(not IS_MNIST, reason="accuracies are about MNIST's model")
def test_single_drawn_digits(names, model):
    drawn = [single_digit(seed, "held out") for seed in range(400)]
    prepared = np.stack([names["to_mnist_style"](picture) for picture, _, _ in drawn])
    says = model.predict(prepared[..., np.newaxis], verbose=0).argmax(axis=1)
    wrong = [what for (_, digit, what), s in zip(drawn, says, strict=True) if s != digit]
    assert len(wrong) <= 0.02 * len(drawn), wrong


@pytest.mark.skipif(not IS_MNIST, reason="accuracies are about MNIST's model")
def test_pages(names, model):
    images, labels = page_digits("held out")
    total = {"digits": 0, "right": 0, "false": 0}
    for seed in range(30):
        one = page(seed, images, labels, "held out", limit=1_000_000)
        rows = names["read_digits"](one.photo, model)
        counts = compare(one, [[(digit, box) for digit, _, box, _ in row] for row in rows])
        total = {key: total[key] + counts[key] for key in total}
    assert total["right"] >= 0.98 * total["digits"], total
    assert total["false"] <= 3, total


# --- Files that are no good ---------------------------------------------------------------------


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


@pytest.fixture
def folder(tmp_path):
    """A folder of files: what must be refused, with a word of the reason, and what must be read."""
    ink = drawing(digit=1, width=8)
    good = Image.fromarray(np.uint8(255 * (1 - ink))).convert("RGB")
    alpha = np.zeros((140, 140, 4), np.uint8)
    alpha[..., 3] = 255 * ink
    jpeg = saved(good, "JPEG")
    bad = {
        "text.png": (b"no picture at all", "no picture"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "cut short"),
        "empty.png": (b"", "empty"),
        "dot.png": (saved(Image.new("L", (1, 1)), "PNG"), "too small"),
        "bomb.png": (bomb(), "too large|larger"),
        "grey.png": (saved(Image.new("RGB", (90, 90), (99, 99, 99)), "PNG"), "one colour"),
        "clear.png": (saved(Image.new("RGBA", (90, 90), (0, 0, 0, 0)), "PNG"), "one colour"),
    }
    fine = {
        "cmyk.jpg": saved(good.convert("CMYK"), "JPEG"),
        "moving.gif": saved(good.convert("P"), "GIF", save_all=True, append_images=[good] * 2),
        "alpha.png": saved(Image.fromarray(alpha), "PNG"),
        "zz-good.png": saved(good, "PNG"),
    }
    for name, content in fine.items():
        (tmp_path / name).write_bytes(content)
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path, {name: reason for name, (_, reason) in bad.items()}, list(fine)


def test_bad_files_get_their_sentence_and_the_others_are_read(folder, names, model, capsys):
    path, bad, fine = folder
    names["read_folder"](path, show=False)
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.strip().splitlines())
    assert sorted(lines) == sorted([*bad, *fine])
    for name, reason in bad.items():
        assert any(word in lines[name] for word in reason.split("|")), (name, lines[name])
    for name in fine if IS_MNIST else ():
        assert lines[name].rstrip("?") == "1", (name, lines[name])
