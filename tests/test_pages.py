"""Notebook 09: finding and reading the digits on photos of pages.

Nothing here is timed; the accuracy is measured on the held-out part of `digit_images`.
"""

import digit_images
import numpy as np
import pytest
from conftest import ROOT, data_file, definitions
from digit_images import compare, draw_digit, page
from test_handwriting import IS_MNIST, functions_with_model


def page_digits(part):
    """The MNIST images and labels of which `part`'s pages are made; None without MNIST."""
    with np.load(data_file()) as file:
        return digit_images.mnist_part(file["x_train"], file["y_train"], part)


@pytest.fixture(scope="module")
def names(nbval):
    """The notebook's functions, with the model that notebook 04 has left in the tested copy."""
    tree, _ = nbval
    return functions_with_model("09", tree / "data")


@pytest.fixture(scope="module")
def model(names):
    return names["model"]


NOTEBOOK_09 = definitions("09", DATA=ROOT / "data")
find_digits = NOTEBOOK_09["find_digits"]


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
    rows = NOTEBOOK_09["reading_order"]([boxes[k] for k in shuffled])
    assert [[int(shuffled[k]) for k in row] for row in rows] == np.arange(15).reshape(3, 5).tolist()


# --- How good it is, on images that it was not tuned with ---------------------------------------


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
