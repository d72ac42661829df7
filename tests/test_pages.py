"""Notebook 09: finding and reading the digits on photos of pages.

Nothing here is timed; the accuracy is measured on the held-out part of `digit_images`.
"""

import functools
import itertools
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import digit_images
import keras
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, data_file, definitions
from digit_images import compare, draw_digit, page
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage as ndi
from skimage.measure import regionprops
from skimage.transform import AffineTransform, warp
from test_handwriting import IS_MNIST, functions_with_model, no_image, pixels, write_files

on_mnist = pytest.mark.skipif(not IS_MNIST, reason="accuracies are about MNIST's model")
NOTEBOOK_09 = definitions("09", DATA=ROOT / "data")
SIZE = NOTEBOOK_09["SIZE"]


def page_digits(part):
    """The MNIST images and labels of which `part`'s pages are made; None without MNIST."""
    with np.load(data_file()) as file:
        return digit_images.mnist_part(file["x_train"], file["y_train"], part)


@pytest.fixture(scope="module")
def names(left_file):
    """The notebook's functions, with the models that the notebooks have left in the tested copy."""
    names = functions_with_model("09", left_file("reader.keras").parent)
    names["reader"] = names["load_reader"]()
    assert names["reader"] is not None, "notebook 09 has not saved data/reader.keras"
    return names


@pytest.fixture(scope="module")
def reader(names):
    return names["reader"]


def text(rows):
    return [[digit for digit, *_ in row] for row in rows]


# --- pages without digits, and where digits are ---------------------------------------------------


def ruled():
    photo = np.full((600, 500, 3), 240, np.uint8)
    photo[30::40] = photo[31::40] = (120, 150, 210)
    return photo


@pytest.mark.parametrize(
    "photo",
    [np.full((400, 300), 200, np.uint8), np.zeros((90, 900, 3), bool), ruled()],
    ids=["gray", "black", "ruled"],
)
def test_a_blank_page_has_no_digits(names, reader, photo):
    assert names["find_digits"](photo, reader) == []
    assert names["read_digits"](photo, reader) == []


def drawn_page(digits=((3, 5, 8), (2, 6))):
    """A page of drawn digits: float32 (300, 400), 0 = paper to 1 = ink; and their corners."""
    photo, corners = np.zeros((300, 400), np.float32), []
    for top, row in zip((35, 165), digits, strict=True):
        for left, digit in zip((40, 160, 280), row, strict=False):
            ink = draw_digit(np.random.default_rng(digit), digit, "round", 80, 8)
            photo[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
            corners.append((top, left))
    return photo, corners


@pytest.mark.parametrize("light", [False, True])
@pytest.mark.parametrize("sheet", [False, True])
def test_dark_and_light_ink_are_told_apart(sheet, light):
    """Also if a sheet lies on a table, whose corners are far brighter than its ink is dark."""
    if sheet:
        page = np.pad(0.85 - 0.5 * drawn_page()[0], 400, constant_values=0.3)
        page = ndi.rotate(page, 10, order=1, mode="nearest", reshape=False)[500:]
    else:  # a digit that fills the photo, with a pen as wide as the window of the median
        page = 0.9 - 0.6 * np.pad(draw_digit(np.random.default_rng(5), 5, "round", 300, 45), 30)
    photo = np.repeat(page[..., None], 3, axis=2).astype("float32")
    photo = 1 - photo if light else photo
    same = (NOTEBOOK_09["dark_on_light"](photo)[0] == photo).all()
    assert same == (not light)


def few_digits(streak):
    """A large page, uint8 (h, w, 3), with five digits and, perhaps, a streak of sunlight."""
    photo, written = np.full((750, 1000), 0.6), drawn_page()[0]
    photo[40 : 40 + len(written), 60 : 60 + written.shape[1]] -= 0.35 * written
    photo[:, 700:750] += streak
    photo += np.random.default_rng(0).normal(0, 0.01, photo.shape)
    return (255 * np.repeat(photo[..., None], 3, axis=2)).clip(0, 255).astype("uint8")


def test_both_kinds_of_ink_are_tried_only_in_doubt():
    sure, doubtful = (
        NOTEBOOK_09["dark_on_light"](few_digits(streak).astype("float32") / 255)
        for streak in (0, 0.3)
    )
    assert len(sure) == 1 and len(doubtful) == 2
    np.testing.assert_allclose(doubtful[0], 1 - doubtful[1], atol=1e-6)


@on_mnist
def test_a_streak_of_sunlight_is_not_taken_for_light_ink(names, reader):
    for streak in (0, 0.3):
        assert text(names["read_digits"](few_digits(streak), reader)) == [[3, 5, 8], [2, 6]]


def test_noise_in_a_dark_color_is_not_ink():
    """On paper that is hardly blue, the same noise is a larger part of the brightness."""
    page = ndi.zoom(np.pad(drawn_page()[0], 60), 2, order=1)[..., None]
    dim = np.array([70, 60, 12]) * (1 - 0.65 * page)
    dim += np.random.default_rng(1).normal(0, 3, dim.shape)
    ink = NOTEBOOK_09["find_page_ink"]((dim.clip(0, 255) / 255).astype("float32"))
    found = ink > NOTEBOOK_09["ink_threshold"](ink)
    solid = ndi.binary_erosion(page[..., 0] > 0.5, iterations=2)
    assert found[solid].mean() > 0.95 and found[page[..., 0] < 0.1].mean() < 0.001


def test_one_mask_has_the_pen_without_a_narrow_shadow():
    page = np.pad(drawn_page()[0], 60)
    ink = np.where(page > 0.5, 0.8, 0.0)
    shadow = np.zeros_like(ink, bool)
    shadow[:, 150:210] = True  # it crosses digits
    ink = np.maximum(ink, 0.42 * shadow).astype("float32")
    ink += np.random.default_rng(2).normal(0, 0.02, ink.shape).astype("float32")
    masks = [mask for mask, _ in NOTEBOOK_09["find_masks"](ink)]
    best = min(masks, key=lambda mask: (mask != (page > 0.5)).sum())
    assert (best != (page > 0.5)).mean() < 0.002


def test_a_page_without_ink_has_no_masks():
    assert NOTEBOOK_09["find_masks"](np.zeros((50, 60), "float32")) == []


def test_no_two_masks_are_the_same():
    ink = np.zeros((200, 300), "float32")
    ink[90:94, 20:280] = ink[20:60, 50:80] = 0.7  # a line, and a solid stroke
    masks = [mask for mask, _ in NOTEBOOK_09["find_masks"](ink)]
    assert len(masks) >= 2 and (masks[0] != masks[-1]).any()
    for one, other in itertools.combinations(masks, 2):
        assert (one != other).any()


@pytest.mark.parametrize("others", [0, 2])
def test_what_touches_the_edge_is_looked_at_if_there_is_nothing_else(others):
    ink = np.zeros((200, 200), "float32")
    ink[:120, 40:60] = 1  # it touches the upper edge
    for k in range(others):
        ink[140:180, 80 + 50 * k : 90 + 50 * k] = 1
    model = SimpleNamespace(
        predict_on_batch=lambda images: np.tile(np.eye(11)[3], (len(images), 1))
    )
    looks = NOTEBOOK_09["look_at"](ink, ink > 0.5, False, model)
    upright = next(look for look in looks if look.turns == 0)
    assert upright.usual == pytest.approx(40 if others else 120, abs=1)


@on_mnist
@pytest.mark.parametrize("seed", range(3))
def test_a_page_on_a_table_is_read_and_its_boxes_are_on_the_photo(names, reader, seed):
    page, corners = drawn_page()
    photo, ends = on_a_table(np.repeat(0.9 - 0.8 * page[..., None], 3, axis=2), seed)
    h, w = page.shape
    forward = NOTEBOOK_09["projective_transform"]([(0, 0), (w, 0), (w, h), (0, h)], ends)
    rows = names["read_digits"](photo, reader)
    assert text(rows) == [[3, 5, 8], [2, 6]]
    boxes = [box for row in rows for _, _, box, _ in row]
    for (top, left), box in zip(corners, boxes, strict=True):
        (x, y) = forward([(left, top)])[0]
        assert abs(box[0] - y) < 15 and abs(box[1] - x) < 15


def on_a_rough_table(page, seed):
    """Photograph a page, float (300, 400), whose left part is outside the photo.

    The table is darker than the paper, and much rougher. Returns uint8 (500, 500, 3), and where
    the sheet is, bool (500, 500).
    """
    rng = np.random.default_rng(seed)
    table = 0.3 + ndi.zoom(rng.normal(0, 0.08, (100, 100)), 5, order=1)
    back = AffineTransform(rotation=np.radians(rng.uniform(-8, 8)), translation=(60, -110))
    sheet = warp(page, back, output_shape=(500, 500), cval=-1)
    photo = np.where(sheet < 0, table, sheet) + rng.normal(0, 0.03, (500, 500))
    return np.repeat(255 * photo.clip(0, 1)[..., None], 3, axis=2).astype("uint8"), sheet >= 0


@on_mnist
@pytest.mark.parametrize("seed", range(4))
def test_a_rough_table_beside_a_sheet_holds_no_digits(names, reader, seed):
    page = np.pad(drawn_page([(5, 8), (2,)])[0], [(0, 0), (60, 0)])[:, :400]
    photo, _ = on_a_rough_table(0.9 - 0.8 * page, seed)
    rows = names["read_digits"](photo, reader)
    assert text(rows) == [[5, 8], [2]]


@on_mnist
def test_a_digit_at_the_edge_is_read_but_doubtful(names, reader):
    page, _ = drawn_page()
    rows = names["read_digits"]((1 - page)[37:], reader)  # the upper row begins at row 35
    assert text(rows) == [[3, 5, 8], [2, 6]]
    upper, lower = ([confidence for _, confidence, *_ in row] for row in rows)
    assert max(upper) <= 0.5 and min(lower) > 0.5
    assert names["as_text"](rows).startswith("3? 5? 8?")


@on_mnist
@pytest.mark.parametrize("flip", [False, True], ids=["dark on light", "light on dark"])
def test_boxes_in_reading_order(names, reader, flip):
    photo, corners = drawn_page()
    rows = names["find_digits"](photo if flip else 1 - photo, reader)
    assert [len(row) for row in rows] == [3, 2]
    for (top, left), box in zip(corners, [box for row in rows for box in row], strict=True):
        assert abs(box[0] - top) <= 4
        assert abs(box[1] - left) <= 4


y, x = np.mgrid[-1:1:300j, -1:1:400j]
CONDITIONS = {
    "blurred": lambda page: ndi.gaussian_filter(1 - page, 3),
    "dark corners": lambda page: (1 - 0.8 * page) * (1 - 0.3 * (x**2 + y**2)),
    "half in the sun": lambda page: (1 - 0.8 * page) * np.where(x + y / 2 > 0.1, 1, 0.45),
    "overexposed": lambda page: 1.6 * (1 - 0.7 * page),
    "pencil": lambda page: 0.85 - 0.15 * page,
    "noisy": lambda page: 0.9 - 0.7 * page + np.random.default_rng(0).normal(0, 0.06, page.shape),
    "digits of 14 pixels": lambda page: ndi.zoom(ndi.gaussian_filter(1 - page, 2), 0.16, order=1),
    "digits of 500 pixels": lambda page: ndi.zoom(1 - page, 6, order=1),
}


@on_mnist
@pytest.mark.parametrize("condition", CONDITIONS)
def test_light_pens_and_sizes(names, reader, condition):
    for digits in (((3, 5, 8), (2, 6)), ((7, 4, 9), (0, 1))):
        photo = CONDITIONS[condition](drawn_page(digits)[0]).clip(0, 1)
        assert text(names["read_digits"](photo, reader)) == [list(row) for row in digits]


@on_mnist
def test_a_single_digit_may_be_larger_than_most_photos(names, reader):
    photo = ndi.zoom(1 - drawn_page()[0][:160, 20:160], 12, order=1)
    assert text(names["read_digits"](photo.clip(0, 1), reader)) == [[3]]


@on_mnist
def test_dashes_dots_and_scribbles_are_no_digits(names, reader):
    for digits in (((3, 5, 8), (2, 6)), ((7, 4, 9), (0, 1))):
        page, _ = drawn_page(digits)
        page[20:24, 130:150] = page[140:143, 300:360] = 1  # dashes
        page[150:158, 150:158] = 1  # a dot
        along = np.linspace(0, 1, 4000)  # a scribble beside the second row
        center = 215 + 28 * np.sin(35 * along + 1), 300 + 45 * np.sin(26 * along) + 10 * along
        for rows, columns in itertools.product(range(-2, 3), repeat=2):
            page[(center[0] + rows).astype(int), (center[1] + columns).astype(int)] = 1
        assert text(names["read_digits"](1 - page, reader)) == [list(row) for row in digits]


# --- the steps, one by one ------------------------------------------------------------------------


def test_a_line_is_erased_and_the_strokes_that_cross_it_stay():
    mask = np.zeros((200, 400), bool)
    mask[100:103] = True
    for left in (80, 200, 320):
        mask[60:140, left : left + 9] = True
    without = NOTEBOOK_09["erase_lines"](mask, 120)
    assert ndi.label(without)[1] == 3
    assert without[60:140, 80:89].all()
    assert not without[100:103, 100:190].any()
    assert mask[100:103].all(), "the mask that was given must not change"


def test_a_line_is_followed_and_what_stands_just_above_it_stays():
    columns = np.arange(800)
    middle = np.round(100 + 4 * np.sin(columns / 120)).astype(int)  # no paper is quite flat
    line = np.zeros((200, 800), bool)
    for row in (-1, 0, 1):
        line[middle + row, columns] = True
    digits = np.zeros_like(line)
    for left in range(100, 700, 60):  # open at the top, and four pixels above the line
        bottom = middle[left + 20] - 5
        digits[60:bottom, [*range(left, left + 5), *range(left + 35, left + 40)]] = True
        digits[bottom - 5 : bottom, left : left + 40] = True
    without = NOTEBOOK_09["erase_lines"](line | digits, 120)
    assert (without & digits).sum() > 0.99 * digits.sum(), "a digit's lower edge was erased"
    assert not (without & line).any()


def test_the_sides_of_a_printed_cell_go_with_its_lines_and_the_digit_stays():
    mask = np.zeros((200, 400), bool)
    mask[60:63] = mask[140:143] = True
    for left in (40, 130, 220, 310):
        mask[60:143, left : left + 3] = True
    mask[80:125, 70:78] = True  # a 1 in a cell
    without = NOTEBOOK_09["erase_lines"](mask, 120)
    assert without[80:125, 70:78].all()
    assert ndi.label(without)[1] == 1


def test_short_cells_go_and_the_digits_in_them_stay():
    mask = np.zeros((300, 500), bool)
    mask[100:109, 100:309] = mask[190:199, 100:309] = True  # two cells with thick lines
    for left in (100, 200, 300):
        mask[100:199, left : left + 9] = True
    digits = np.zeros_like(mask)
    digits[120:180, 145:153] = True  # a 1 in the first
    digits[150:192, 250:258] = True  # and in the second one that stands on the line
    digits[40:90, 400:440] = True  # an open 0 with a spot in it: no cell
    digits[48:82, 408:432] = False
    digits[63:67, 418:422] = True
    kept = NOTEBOOK_09["erase_frames"](mask | digits)
    assert kept[120:180, 145:153].all() and kept[150:186, 250:258].all()
    assert (kept & digits)[:, 380:].sum() == digits[:, 380:].sum()
    assert (kept & mask & ~digits).sum() < 0.01 * mask.sum()
    assert ndi.label(kept, np.ones((3, 3)))[1] == 4


def on_a_table(page, seed, table=0.3):
    """Photograph a page, float (h, w, 3), on a table: float (460, 620, 3), and its corners."""
    h, w = page.shape[:2]
    corners = np.array([(110, 80), (510, 80), (510, 380), (110, 380)], float)
    corners += np.random.default_rng(seed).uniform(-60, 60, (4, 2))
    corners = corners.clip(5, [614, 454])
    edges = [(0, 0), (w, 0), (w, h), (0, h)]
    back = NOTEBOOK_09["projective_transform"](corners, edges)
    return warp(page, back, output_shape=(460, 620), cval=table), corners


@pytest.mark.parametrize("seed", range(8))
def test_a_sheet_on_a_table_is_found_within_a_few_pixels(seed):
    photo, corners = on_a_table(np.full((300, 400, 3), 0.9), seed)
    found = NOTEBOOK_09["find_corners"](photo)
    expected = corners.mean(axis=0) + 0.97 * (corners - corners.mean(axis=0))
    assert np.abs(found - expected).max() < 6
    flat, transform = NOTEBOOK_09["flatten"](photo, found)
    assert flat.min() > 0.8, "the table, 0.3, should be gone"
    ends = [(0, 0), flat.shape[1::-1]]
    assert transform(ends) == pytest.approx(found[[0, 2]])


def test_a_shadow_on_the_sheet_belongs_to_it():
    photo, corners = on_a_table(np.full((300, 400, 3), 0.9), 0)
    shadow = np.where(np.arange(620) > 330, 0.6, 1)[:, np.newaxis]
    found = NOTEBOOK_09["find_corners"](photo * shadow)
    expected = corners.mean(axis=0) + 0.97 * (corners - corners.mean(axis=0))
    assert np.abs(found - expected).max() < 12


def test_no_sheet_is_found_where_there_is_none():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:300, :400]
    vignette = 1 - 0.6 * np.hypot(y - 150, x - 200) / 250
    disk = np.where(np.hypot(y - 150, x - 200) < 120, 0.9, 0.3)
    for gray in (vignette, disk, np.full((300, 400), 0.9), rng.random((300, 400)), 0 * x):
        photo = np.repeat(gray[..., None], 3, axis=2)
        assert NOTEBOOK_09["find_corners"](photo) is None
        if gray is not disk:  # it may be a sheet, if not a rectangular one
            assert NOTEBOOK_09["find_sheet"](photo) is None


@pytest.mark.parametrize("seed", range(4))
def test_the_table_is_not_taken_for_the_sheet_nor_the_sheet_for_the_table(seed):
    photo, expected = on_a_rough_table(np.full((300, 400), 0.9), seed)
    sheet = NOTEBOOK_09["find_sheet"](photo / np.float32(255))
    assert not (sheet & ~expected).any()
    assert sheet.sum() > 0.85 * expected.sum()
    assert sheet[:, 0].any(), "where the photo ends, the sheet does not"


def test_a_seam_goes_where_the_least_ink_is():
    image = np.zeros((30, 40), np.float32)
    image[:, 18:22] = 1
    image[12, 18:22] = 0.1  # a gap
    path, crossed = NOTEBOOK_09["seam"](image, 16)
    assert path.shape == (30,) and crossed == 0
    image[5, 8:17] = image[5, 17:32] = 1  # a bar that must be crossed
    assert NOTEBOOK_09["seam"](image, 16)[1] == pytest.approx(1)


def lift(mask):
    boxes = NOTEBOOK_09["find_strokes"](mask)
    return NOTEBOOK_09["lift_strokes"](mask.astype(np.float32), *boxes, SIZE)


def test_cutting_keeps_the_ink():
    mask = np.zeros((60, 120), bool)
    for left in (10, 40, 70):
        mask[10:50, left : left + 5] = True
    mask[28:32, 10:75] = True
    (stroke,) = lift(mask)
    pieces = NOTEBOOK_09["cut_stroke"](stroke)
    assert len(pieces) >= 3
    together = NOTEBOOK_09["paste"](pieces)
    assert together.sum() == pytest.approx(stroke.image.sum(), rel=0.03)
    lefts = [piece.box[1] for piece in pieces]
    assert lefts == sorted(lefts)


def test_slanted_strokes_are_separated_by_slanted_cuts_only():
    mask = np.zeros((60, 100), bool)
    for left in (30, 41):
        for row in range(10, 50):
            mask[row, left + 40 - row * 4 // 5 : left + 46 - row * 4 // 5] = True  # "//"
    mask[28:32, 40:60] = True  # and a bar
    (stroke,) = lift(mask)
    crossed = {}
    for slant in (-0.8, 0, 0.8):
        seams = NOTEBOOK_09["slanted_seams"](stroke.image, slant)
        left, right = stroke.box[[1, 3]] - stroke.left
        crossed[slant] = min(seams, key=lambda one: abs(one[0].mean() - (left + right) / 2))[1]
    assert crossed[-0.8] < 5 < min(crossed[0], crossed[0.8])
    cut = NOTEBOOK_09["cut_stroke"](stroke, slant=-0.8)
    assert NOTEBOOK_09["paste"](cut).sum() == pytest.approx(stroke.image.sum(), rel=0.03)


@pytest.mark.parametrize("vertical", [0.5, 4])
def test_slanted_cuts_are_tried_where_vertical_ones_read_badly(vertical, monkeypatch):
    """And the cheapest reading is kept."""
    mask = np.zeros((60, 120), bool)
    mask[10:50, 20:26] = mask[10:50, 60:66] = mask[28:32, 20:66] = True
    costs, slants = iter([vertical, 3.0, 2.0]), []

    def cut_stroke(stroke, slant):
        slants.append(slant)
        return [stroke]

    def read_rows(rows, *_):
        if not rows:
            return []
        cost = next(costs)
        return [(cost, [(0, 1, cost, (7, 0.9, rows[0][0].box, None, cost))])]

    monkeypatch.setitem(NOTEBOOK_09, "cut_stroke", cut_stroke)
    monkeypatch.setitem(NOTEBOOK_09, "read_rows", read_rows)
    monkeypatch.setitem(NOTEBOOK_09, "predict_classes", lambda images, _: np.full((1, 11), 1 / 11))
    strokes = NOTEBOOK_09["find_strokes"](mask)
    digits, total = NOTEBOOK_09["read_strokes"](mask.astype("float32"), *strokes, 40, None)
    assert slants == ([0] if vertical == 0.5 else [0, -0.3, 0.3])
    assert total == min(vertical, 2) and [digit[4] for digit in digits] == [total]


def test_groups_are_neighbors_and_no_larger_than_a_digit():
    mask = np.zeros((60, 200), bool)
    for left in range(10, 190, 30):
        mask[10:50, left : left + 5] = True
    strokes = sorted(lift(mask), key=lambda stroke: stroke.box[1])
    groups = NOTEBOOK_09["groups_of"](strokes)
    assert {(k, k + 1) for k in range(6)} <= set(groups)
    assert (0, 2) in groups and (0, 3) in groups and (0, 4) not in groups


def two_rings():
    """Two 0s that share a side, as one stroke."""
    y, x = np.mgrid[-30:30, :100]
    rings = np.zeros((60, 100), bool)
    for middle in (35, 57):  # the outer ellipses are 27 pixels wide, so they overlap by 5
        outer = (y / 20) ** 2 + ((x - middle) / 13.5) ** 2 < 1
        rings |= outer & ((y / 15) ** 2 + ((x - middle) / 8.5) ** 2 > 1)
    (stroke,) = lift(rings)
    return stroke


def test_ink_beside_a_cut_is_near_it_and_of_the_same_stroke():
    stroke = two_rings()
    pieces = NOTEBOOK_09["cut_stroke"](stroke)
    apart = stroke._replace(left=stroke.left + 3, box=stroke.box + [0, 80, 0, 80])
    row, n = [*pieces, apart], len(pieces)
    assert n > 2 and NOTEBOOK_09["beside_cuts"](row, 0, n) == []
    assert NOTEBOOK_09["beside_cuts"](row, n, n + 1) == []
    for cut in range(1, n):
        for place, others in (((0, cut), pieces[cut:]), ((cut, n), pieces[:cut])):
            (beside,) = NOTEBOOK_09["beside_cuts"](row, *place)
            own = np.any([p.side for p in row[slice(*place)]], axis=0)
            assert not np.any((beside.image > 0) & own)
            assert np.all(beside.image <= np.max([p.image for p in others], axis=0))
            assert ndi.distance_transform_cdt(~own, "chessboard")[beside.image > 0].max() <= 5


def test_zeros_that_share_a_side_are_both_read(monkeypatch):
    def predict_classes(images, _):
        """A 0 is whatever is a single ring, nothing more; all else is not a digit."""
        p = np.full((len(images), 11), 0.005)
        for row, image in zip(p, images, strict=True):
            (region,) = regionprops((image > 0.4).astype(int))
            hole = (region.area_filled - region.area) / region.area_bbox
            row[0 if region.euler_number == 0 and hole > 0.26 else 10] = 0.95
        return p

    monkeypatch.setitem(NOTEBOOK_09, "predict_classes", predict_classes)
    pieces = NOTEBOOK_09["cut_stroke"](two_rings())
    ((cost, path),) = NOTEBOOK_09["read_rows"]([pieces], 1.0, 5.0, False, None)
    assert [what and what[0] for *_, what in path if what] == [0, 0]
    for start, stop, _, what in path:
        box = NOTEBOOK_09["union"](pieces[start:stop])
        assert what is None or np.array_equal(what[2], box), "without the ink beside the cuts"
    monkeypatch.setitem(NOTEBOOK_09, "beside_cuts", lambda *_: [])
    ((without, path),) = NOTEBOOK_09["read_rows"]([pieces], 1.0, 5.0, False, None)
    assert without > cost and sum(what is not None for *_, what in path) < 2


def a_group(width):
    """A stroke of the usual height of a digit, and as wide as this fraction of it."""
    box = np.array([0, 0, SIZE, round(width * SIZE)])
    return [NOTEBOOK_09["Stroke"](np.ones(box[2:], "float32"), 0, 0, box, 0.5, 4.0, False)]


def test_skipping_a_wide_group_costs_as_much_as_skipping_several_digits():
    p = np.array([0.02] * 10 + [0.8])  # probably not a digit
    skip = {}
    for width in (0.3, 0.8, 1.7):
        _, (*_, skip[width], what) = NOTEBOOK_09["edges_of"](a_group(width), (0, 1), p, 1.0, None)
        assert what is None
    assert skip[0.3] == pytest.approx(skip[0.8]), "narrow digits are digits, too"
    assert skip[1.7] >= 2 * skip[0.8], "two digits that touch"


def test_two_doubtful_digits_are_read_rather_than_skipped():
    half = np.r_[0.0, 0.0, 0.0, 0.4, [0.0] * 6, 0.6]  # a 3, or not a digit
    joined = np.r_[[0.0] * 10, 1.0]
    edges = []
    for place, width, p in [((0, 1), 0.8, half), ((1, 2), 0.8, half), ((0, 2), 1.7, joined)]:
        edges += NOTEBOOK_09["edges_of"](a_group(width), place, p, 1.0, None)
    digits = [what and what[0] for *_, what in NOTEBOOK_09["best_path"](2, edges)[1]]
    assert digits == [3, 3]


costs = st.floats(0, 5).map(lambda cost: round(cost, 2))


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.lists(costs, min_size=n * n))))
@settings(max_examples=40, deadline=None)
def test_the_best_path_is_the_cheapest_of_all(case):
    n, numbers = case
    numbers = itertools.cycle(numbers)
    edges = [(i, j, next(numbers)) for i in range(n) for j in range(i + 1, n + 1)]
    cost = {edge[:2]: edge[2] for edge in edges}
    every = []
    for k in range(n):
        for inner in itertools.combinations(range(1, n), k):
            places = [0, *inner, n]
            every.append(sum(cost[pair] for pair in itertools.pairwise(places)))
    best, path = NOTEBOOK_09["best_path"](n, edges)
    assert best == pytest.approx(min(every))
    assert path[0][0] == 0 and path[-1][1] == n
    assert all(a[1] == b[0] for a, b in itertools.pairwise(path))
    assert sum(edge[2] for edge in path) == pytest.approx(best)


def test_the_best_path_of_a_graph_made_by_hand():
    edges = [(0, 1, 1.0, "a"), (1, 2, 1.0, "b"), (0, 2, 1.5, "c"), (2, 3, 0.5, "d")]
    best, path = NOTEBOOK_09["best_path"](3, edges)
    assert (best, [edge[3] for edge in path]) == (2.0, ["c", "d"])
    assert NOTEBOOK_09["best_path"](2, [(0, 1, 1.0)])[0] == np.inf  # place 2 cannot be reached


digit_lists = st.lists(st.integers(0, 3), max_size=7)


@given(digit_lists, digit_lists)
def test_digits_are_counted_in_the_alignment_with_the_fewest_errors(written, read):
    counts = NOTEBOOK_09["count_matches"](written, read)

    @functools.cache
    def best(i, j):
        """All (errors, -correct, false) of the alignments with the fewest errors up to here."""
        if i == j == 0:
            return {(0, 0, 0)}
        found = set()
        if i and j:
            same = written[i - 1] == read[j - 1]
            found |= {(e + (not same), c - same, f) for e, c, f in best(i - 1, j - 1)}
        if i:
            found |= {(e + 1, c, f) for e, c, f in best(i - 1, j)}
        if j:
            found |= {(e + 1, c, f + 1) for e, c, f in best(i, j - 1)}
        fewest = min(found)[0]
        return {one for one in found if one[0] == fewest}

    assert counts in {(-c, f) for _, c, f in best(len(written), len(read))}


@pytest.mark.parametrize(
    ("written", "read", "counts"),
    [
        ([7, 0, 5, 3], [7, 5, 3, 1], (3, 1)),
        ([9, 7, 8, 7, 5], [7, 7, 5, 7, 5], (3, 0)),  # two are misread, and nothing is false
        ([1, 2], [], (0, 0)),
        ([], [4, 4], (0, 2)),
    ],
)
def test_counts_of_some_readings(written, read, counts):
    assert NOTEBOOK_09["count_matches"](written, read) == counts


def read_at(digit, left, score, width=20):
    """A digit as `read_strokes` returns it, at this place of a row."""
    return digit, score, np.array([0, left, 30, left + width]), None, score


def merged(*readings):
    return sorted(digit for digit, *_ in NOTEBOOK_09["merge_readings"](readings))


def test_readings_are_merged_place_by_place():
    first = [read_at(3, 0, 0.9), read_at(7, 40, 0.2), read_at(5, 80, 0.9)]
    assert merged() == merged([]) == []
    assert merged(first) == merged(first, []) == [3, 5, 7]
    assert merged(first, [read_at(8, 1, 0.5), read_at(2, 41, 0.8)]) == [2, 3, 5], "the better ones"
    assert merged(first, [read_at(4, 120, 0.9)]) == [3, 4, 5, 7], "what only the second has found"
    assert merged(first, [read_at(4, 120, 0.3)]) == [3, 5, 7], "unless it is unlikely"


def test_a_place_is_read_by_one_reading_and_never_by_two():
    joined, apart = [read_at(6, 0, 0.3, width=40)], [read_at(2, 0, 0.9), read_at(4, 22, 0.9)]
    assert merged(joined, apart) == merged(apart, joined) == [2, 4]
    sure = [read_at(6, 0, 0.9, width=40)]
    assert merged(sure, [read_at(1, 0, 0.2), read_at(1, 22, 0.2)]) == [6]


def test_a_model_with_ten_classes_gets_an_eleventh():
    class Ten:
        def predict_on_batch(self, images):
            p = np.full((len(images), 10), 0.05)
            p[:, 3] = 0.55
            return p

    p = NOTEBOOK_09["predict_classes"](np.zeros((5, 28, 28), "float32"), Ten())
    assert p.shape == (5, 11)
    assert p.sum(axis=1) == pytest.approx(1)
    assert p.argmax(axis=1).tolist() == [10 if 0.55**2 < 0.45 else 3] * 5


def test_a_model_of_any_names_becomes_a_reader():
    """Keras counts the names of layers anew in each kernel, so a loaded model may have the next."""
    keras.utils.clear_session()
    model = definitions("04", "build_cnn")["build_cnn"]("cnn_toy")
    keras.utils.clear_session()  # as in the kernel that loads it
    reader = definitions("09", data_name="toy")["build_reader"](model)
    assert reader.name == "reader_toy" and reader.output_shape == (None, 11)
    images = np.random.default_rng(0).random((3, 28, 28, 1), "float32")
    ten, eleven = (keras.ops.convert_to_numpy(network(images)) for network in (model, reader))
    np.testing.assert_allclose(eleven[:, :10] / eleven[:, :10].sum(axis=1)[:, None], ten, rtol=1e-4)


def test_a_damaged_or_foreign_reader_is_not_used(tmp_path):
    names = definitions("09", DATA=tmp_path, data_name="MNIST")
    assert names["load_reader"]() is None
    (tmp_path / "reader.keras").write_bytes(b"PK no model")
    assert names["load_reader"]() is None
    other = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()], name="other")
    other.save(tmp_path / "reader.keras")
    assert names["load_reader"]() is None


# --- order and orientation ------------------------------------------------------------------------


def boxes_in_rows(degrees=0.0, curve=0.0, jump=0.0):
    """Boxes of three rows of five digits, row by row."""
    boxes, rng = [], np.random.default_rng(1)
    for top in (100, 220, 340):
        for left in (0, 90, 180, 270, 360):
            x, y = left - 180, top - 220 + curve * (left - 180) ** 2 + rng.uniform(-jump, jump)
            c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            x, y = 1000 + c * x - s * y, 1000 + s * x + c * y
            boxes.append((y, x, y + 60, x + 40))
    return boxes


@pytest.mark.parametrize(
    "form",
    [{"degrees": d} for d in (-40, -20, -10, -4, 0, 4, 10, 20, 40)]
    + [{"curve": 0.0005}, {"curve": -0.0005}, {"jump": 12}],
    ids=str,
)
def test_rows_may_slope_curve_and_jump(form):
    boxes = boxes_in_rows(**form)
    shuffled = np.random.default_rng(0).permutation(len(boxes))
    rows = NOTEBOOK_09["reading_order"]([boxes[k] for k in shuffled])
    assert [[int(shuffled[k]) for k in row] for row in rows] == np.arange(15).reshape(3, 5).tolist()


def test_a_box_comes_back_from_the_rotated_photo():
    photo = np.zeros((30, 50), bool)
    photo[5:12, 20:24] = True
    for turns in range(4):
        rows, columns = np.nonzero(np.rot90(photo, turns))
        box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
        assert NOTEBOOK_09["turn_back"](box, turns, photo.shape) == (5, 20, 12, 24)


@on_mnist
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_page_on_its_side_is_read_like_others(names, reader, turns):
    photo = 1 - drawn_page(((3, 5, 2), (7, 4)))[0]
    rows = names["read_digits"](np.rot90(photo, turns), reader)
    assert text(rows) == [[3, 5, 2], [7, 4]]
    top, left, bottom, right = rows[0][0][2]  # the 3, in pixels of the rotated photo
    expected = np.rot90(photo[35:115, 40:110], turns)
    assert np.rot90(photo, turns)[top:bottom, left:right].min() == expected.min()


@on_mnist
def test_margins_change_nothing_and_pages_side_by_side_are_both_read(names, reader):
    photo = 1 - drawn_page(((3, 5, 2), (7, 4)))[0]
    wider = np.pad(photo, ((90, 40), (30, 160)), constant_values=1)
    assert text(names["read_digits"](wider, reader)) == [[3, 5, 2], [7, 4]]
    two = np.hstack([photo, photo])
    assert text(names["read_digits"](two, reader)) == [[3, 5, 2, 3, 5, 2], [7, 4, 7, 4]]


def with_margin(photo):
    """Add a fifth of a photo's size on each side, in the color that most of its edge has."""
    top, left = photo.shape[0] // 5, photo.shape[1] // 5
    edge = np.concatenate([photo[0], photo[-1], photo[:, 0], photo[:, -1]])
    larger = np.empty((len(photo) + 2 * top, photo.shape[1] + 2 * left, *photo.shape[2:]), np.uint8)
    larger[...] = np.median(edge, axis=0)
    larger[top : top + photo.shape[0], left : left + photo.shape[1]] = photo
    return larger


@on_mnist
def test_margins_and_turns_change_hardly_a_digit_of_real_pages(names, reader):
    """Close decisions may change, because masks and scales do, but no more than one in a page."""
    images, labels = page_digits("held out")
    for seed in (4, 5, 7, 8):  # those with more than three digits: 90 on its side may be 06
        photo = page(seed, images, labels, "held out", limit=500_000).photo
        rows = text(names["read_digits"](photo, reader))
        for other in (with_margin(photo), np.rot90(photo), np.rot90(photo, 3)):
            again = names["read_digits"](other, reader)
            n_same, n_more = names["count_page"](rows, again)
            assert n_same >= sum(map(len, rows)) - 1 and n_more <= 1, (seed, rows, text(again))


@on_mnist
@pytest.mark.parametrize("degrees", [-40, -20, 20, 40])
def test_rows_that_rise_or_fall_are_read(names, reader, degrees):
    photo = ndi.rotate(1 - drawn_page(((3, 5, 2), (7, 4)))[0], degrees, order=1, cval=1)
    assert text(names["read_digits"](photo.clip(0, 1), reader)) == [[3, 5, 2], [7, 4]]


@on_mnist
def test_pages_stored_upside_down_are_turned(names, reader):
    """The 0, 1, 2, 5, 6, 8, and 9 are digits that way, too, so only other digits can tell."""
    images, labels = page_digits("held out")
    n_right = n_digits = 0
    for seed in range(12):
        one = page(seed, images, labels, "held out", limit=1_000_000)
        truth = [[digit for digit, *_ in row] for row in one.rows]
        if not {3, 4, 7} & set(itertools.chain.from_iterable(truth)):
            continue
        rows = names["read_digits"](np.rot90(one.photo, 2), reader)
        n_right += names["count_page"](truth, rows)[0]
        n_digits += sum(map(len, truth))
    assert n_digits > 100 and n_right >= 0.92 * n_digits, (n_right, n_digits)


@pytest.mark.parametrize(
    ("scores", "costs", "kept"),
    [
        ({0: 9.0, 2: 3.0, 1: 2.0}, None, [0, 2, 1]),  # the quick look is sure: nothing is read
        ({2: 9.0, 0: 5.0, 3: 2.0}, None, [2, 0, 3]),
        ({0: 9.0, 2: 4.0, 1: 2.0}, {0: 5.0, 2: 2.5}, [2, 1]),
        ({0: 9.0, 2: 4.0, 1: 2.0}, {0: 5.0, 2: 3.5}, [0, 1]),  # the stored orientation is preferred
        ({2: 6.0, 0: 5.0, 3: 2.0}, {0: 3.5, 2: 2.0}, [0, 3]),
        ({1: 6.0, 3: 5.0, 0: 2.0}, {1: 3.0, 3: 2.9}, [3, 0]),
    ],
)
def test_upside_down_is_decided_by_the_total_cost(scores, costs, kept, monkeypatch):
    mask = np.zeros((8, 8), bool)
    mask[1, 2] = True  # which way is up can be seen
    looks = [NOTEBOOK_09["Look"](s, turns, 30.0, mask, False) for turns, s in scores.items()]

    def read_strokes(ink, strokes, boxes, usual, model):
        assert costs is not None, "read although the quick look was sure"
        (turns,) = (k for k in range(4) if np.array_equal(ink, np.rot90(mask, k)))
        return [], costs[turns]

    monkeypatch.setitem(NOTEBOOK_09, "read_strokes", read_strokes)
    left = NOTEBOOK_09["drop_inverted"](mask, looks, None)
    assert [look.turns for look in left] == kept
    for look in left:  # what was read is not read again
        known = costs is not None and look.turns in costs
        assert look.reading == (([], costs[look.turns]) if known else None)


def test_a_look_that_was_read_is_not_read_again(monkeypatch):
    mask = np.zeros((8, 8), bool)
    monkeypatch.setitem(NOTEBOOK_09, "read_strokes", None)  # it cannot be called
    digit = (7, 0.9, np.array([0, 0, 4, 4]), mask, 0.9)
    look = NOTEBOOK_09["Look"](1.0, 0, 4.0, mask, False, ([digit], 0.7))
    digits, score = NOTEBOOK_09["read_look"](mask, look, None)
    assert digits == [digit]
    assert score == NOTEBOOK_09["page_score"]([digit], 4.0)


def sloping_page(degrees):
    """Two rows of twelve squares, rising from left to right by some degrees, and where they are."""
    ink, places = np.zeros((500, 500), "float32"), []
    for row in (-40, 40):
        for along in range(-220, 221, 40):
            turn = np.radians(degrees)
            x, y = (
                along * np.cos(turn) + row * np.sin(turn),
                row * np.cos(turn) - along * np.sin(turn),
            )
            places.append((int(250 + y), int(250 + x)))
            ink[places[-1][0] - 9 : places[-1][0] + 9, places[-1][1] - 9 : places[-1][1] + 9] = 1
    return ink, places


@pytest.mark.parametrize(
    ("degrees", "score", "leveled"),
    [
        (4, None, False),  # hardly any slope: no other look
        (30, 9.1, True),  # hardly worse than 10
        (-30, 20.0, True),
        (30, 8.0, False),
        (30, 0.0, False),  # nothing is left
    ],
)
@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_page_is_leveled_unless_it_looks_worse(degrees, score, leveled, turns, monkeypatch):
    """However the page is stored: its rows become horizontal or, on their side, vertical."""
    Look, (ink, places) = NOTEBOOK_09["Look"], sloping_page(degrees)
    ink = np.rot90(ink, -turns)  # so many turns make its rows horizontal, but for their slope
    looks = [Look(10.0 * (k == turns), k, 18.0, ink > 0.5, False) for k in (turns, turns + 2)]

    def look_at(level, mask, no_lines, model):
        assert score is not None, "another look, although the rows hardly slope"
        assert np.mean((level > 0.5) == mask) > 0.99
        return [Look(s, k, 18.0, mask, no_lines) for k, s in [(0, 0.0), (turns, score)] if score]

    monkeypatch.setitem(NOTEBOOK_09, "look_at", look_at)
    level, level_looks, back = NOTEBOOK_09["level_page"](ink, looks, None)
    if not leveled:
        assert level is ink and level_looks is looks and np.array_equal(back.params, np.eye(3))
        return
    assert (level_looks[0].score, level_looks[0].turns) == (score, turns)
    upright = np.rot90(level, turns)
    rows = upright.sum(axis=1) > 0.3 * upright.sum(axis=1).max()
    assert np.diff(rows.astype(int), prepend=0).clip(0).sum() == 2, "not two horizontal rows"
    labels, n = ndi.label(level > 0.5)
    middles = back(np.array(ndi.center_of_mass(labels > 0, labels, range(1, n + 1)))[:, ::-1])
    marks = np.zeros_like(ink)
    marks[middles[:, 1].round().astype(int), middles[:, 0].round().astype(int)] = 1
    found = np.argwhere(np.rot90(marks, turns) > 0)
    distances = np.hypot(*(np.array(places)[:, np.newaxis] - found).T)
    assert n == len(places) and distances.min(axis=0).max() < 2, (
        "boxes come back to the wrong place"
    )


def test_each_mask_is_leveled_once_and_hopeless_ones_are_not(monkeypatch):
    Look, (ink, _) = NOTEBOOK_09["Look"], sloping_page(30)
    masks = [ink > level for level in (0.5, 0.6, 0.7)]
    scores = {0: 10.0, 1: 6.0, 2: 4.0}
    looks = [Look(s - k / 9, k, 18.0, masks[m], m == 1) for m, s in scores.items() for k in (0, 2)]
    seen = []
    monkeypatch.setitem(NOTEBOOK_09, "look_at", lambda *of: seen.append(of[2]) or [])
    assert NOTEBOOK_09["level_page"](ink, looks, None)[0] is ink
    assert seen == [False, True]


def test_without_any_look_a_page_stays_as_it_is():
    ink = np.zeros((30, 40), "float32")
    level, looks, back = NOTEBOOK_09["level_page"](ink, [], None)
    assert level is ink and looks == [] and np.array_equal(back.params, np.eye(3))


class Eights:
    """A model that takes everything for an 8."""

    def predict_on_batch(self, images):
        return np.eye(11)[[8] * len(images)]


@pytest.mark.parametrize("turns", [0, 1])
def test_a_row_of_joined_digits_is_not_a_tall_digit_on_its_side(turns):
    """Whatever the network takes it for: two rows, as stored and on their side."""
    ink = np.zeros((260, 400), "float32")
    for top in (30, 150):
        for left in range(50, 330, 50):  # boxes with a common side
            ink[top : top + 70, left : left + 54] = 1
            ink[top + 4 : top + 66, left + 4 : left + 50] = 0
    mask = np.rot90(ink, turns) > 0.5
    looks = NOTEBOOK_09["look_at"](mask.astype("float32"), mask, False, Eights())
    best = max(looks, key=lambda look: look.score / NOTEBOOK_09["preference"](look.turns))
    assert best.turns % 2 == turns and best.usual == pytest.approx(70)


# --- digits that are not solid --------------------------------------------------------------------


def test_narrow_gaps_are_filled_and_wide_ones_stay():
    ink = np.zeros((40, 60), "float32")
    ink[8:32, [10, 11, 16, 17, 40, 41, 54, 55]] = 0.6  # two lines 4 pixels apart, two 12 apart
    filled = NOTEBOOK_09["fill_gaps"](ink, 6)
    assert (filled[8:32, 10:18] == np.float32(0.6)).all()
    filled[8:32, 12:16] = 0
    np.testing.assert_array_equal(filled, ink)  # nothing else has changed, nor become wider


def ring(shape, center, outer, width=3):
    """A circle, bool, drawn with a pen of this width."""
    y, x = np.indices(shape) - np.reshape(center, (2, 1, 1))
    return abs(np.hypot(y, x) - outer + width / 2) <= width / 2


def test_only_the_inside_of_outlined_strokes_is_filled():
    shape, near = (120, 260), np.hypot(*(np.indices((120, 260)) - np.array([[[60]], [[60]]])))
    zero = ring(shape, (60, 60), 50) | ring(shape, (60, 60), 34)  # an outlined 0
    solid = ring(shape, (60, 180), 40, 12)  # its hole is wider than a stroke
    inside = NOTEBOOK_09["fill_outlines"](zero | solid, 40)
    np.testing.assert_array_equal(inside, (near > 34) & (near < 47))
    assert not NOTEBOOK_09["fill_outlines"](zero | solid, 10).any(), "it is 13 pixels wide"
    broken = zero.copy()
    broken[:, 60:64] = False  # no outline is closed
    assert not NOTEBOOK_09["fill_outlines"](broken, 40).any()
    assert not NOTEBOOK_09["fill_outlines"](np.zeros((30, 30), bool), 40).any()


@pytest.mark.parametrize(
    ("quick", "scores", "kept"),
    [
        ({4: 12.0, 8: 11.0}, {4: 20.0}, 4),  # the gaps: a tenth and a fifth of a digit
        ({4: 12.0, 8: 12.0}, {4: 10.4, 8: 10.2}, 0),  # hardly better than 10
        ({4: 12.0, 8: 11.0}, {4: 11.0, 8: 14.0}, 8),
        ({4: 10.0, 8: 11.0}, {8: 14.0}, 8),  # the quick look was no better: that was enough
        ({4: 9.0, 8: 3.0}, {}, 0),
        ({8: 11.0}, {8: 14.0}, 8),  # nothing is left of the other
        (None, {}, 0),  # hardly anything is filled, so there is no other look
    ],
)
def test_filled_ink_has_to_be_better(quick, scores, kept, monkeypatch):
    """At one mask first, then at all; `scores` says which fillings get as far as that."""
    ink, tried = np.zeros((30, 30), "float32"), []
    ink[10] = 1
    look = NOTEBOOK_09["Look"](10.0, 0, 40.0, ink > 0.5, False)

    def fill_gaps(ink, size):
        filled = ink + (np.arange(30)[:, np.newaxis] == 11) * (quick is not None)
        filled[0, 0] = -size  # so that the others know it
        return filled

    def look_at(filled, mask, no_lines, model):
        assert quick is not None, "another look, although hardly anything was filled"
        assert mask[11].all()  # filled as the ink is
        size = round(-filled[0, 0])
        return [look._replace(score=s) for s in (1.0, quick[size])] if size in quick else []

    def first_looks(filled, model):
        tried.append(round(-filled[0, 0]))
        return [look._replace(score=scores[tried[-1]])]

    monkeypatch.setitem(NOTEBOOK_09, "fill_gaps", fill_gaps)
    monkeypatch.setitem(NOTEBOOK_09, "look_at", look_at)
    monkeypatch.setitem(NOTEBOOK_09, "first_looks", first_looks)
    best, looks = NOTEBOOK_09["look_again"](ink, [look], None)
    assert (-best[0, 0], looks[0].score) == (kept, scores.get(kept, 10.0))
    assert tried == list(scores)


def test_outlines_are_filled_in_the_ink(monkeypatch):
    """The mask with lines erased has holes in its outlines; another one is complete."""
    ink = 0.7 * (ring((120, 130), (60, 60), 50) | ring((120, 130), (60, 60), 30))
    ink = ink.astype("float32")
    broken = ink > 0.5
    broken[55:65] = False
    Look, seen = NOTEBOOK_09["Look"], []
    looks = [Look(10.0, 0, 100.0, broken, True), Look(9.0, 0, 100.0, ink > 0.5, False)]

    def look_at(filled, mask, no_lines, model):
        assert mask[60, 100] and mask[60, 108] and not mask[60, 60] and not mask[60, 115]
        return [looks[0]._replace(score=11.0)]

    def first_looks(filled, model):
        seen.append(filled)
        return [looks[0]._replace(score=20.0 - len(seen))]

    monkeypatch.setitem(NOTEBOOK_09, "look_at", look_at)
    monkeypatch.setitem(NOTEBOOK_09, "first_looks", first_looks)
    monkeypatch.setitem(NOTEBOOK_09, "fill_gaps", lambda image, size: image)
    best, [look] = NOTEBOOK_09["look_again"](ink, looks, None)
    assert look.score == 19.0 and len(seen) == 1
    assert best[60, 60] == best[60, 115] == 0 and best[60, 100] == best[60, 108] == np.float32(0.7)


def test_without_a_look_there_is_nothing_to_fill():
    ink = np.zeros((30, 30), "float32")
    assert NOTEBOOK_09["look_again"](ink, [], None) == (ink, [])


@on_mnist
def test_outlined_digits_are_read(names, reader, monkeypatch):
    """Readers of four trainings had 48 to 55 of 60 right, and one or two false."""
    images, labels = page_digits("held out")
    photos = []
    for seed in range(6):
        rng = np.random.default_rng([3, seed])
        sheet, height, truth = names["write_page"](images, labels, rng, 2, 5, touching=0)
        solid = names["change_pen"](sheet > 0.5, (0.04, 0.08, 0.12)[seed % 3] * height) > 0.5
        around = ndi.binary_dilation(solid, iterations=max(2, round(0.03 * height)))
        photos.append((truth, names["take_photo"](0.9 * (around & ~solid), height, rng)))

    def count():
        counts = [names["count_page"](rows, names["read_digits"](p, reader)) for rows, p in photos]
        return np.sum(counts, axis=0)

    right, false = count()
    assert right >= 40 and false <= 5, (right, false)
    monkeypatch.setitem(names, "look_again", lambda ink, looks, model: (ink, looks))
    right_without, false_without = count()
    assert right - false > right_without - false_without, "filling gaps should help"


# --- what the program writes, and what the reader learns from it ---------------------------------


def test_a_form_has_a_digit_in_each_of_its_cells():
    """Rectangles stand for the digits: number k is 8 + k pixels wide."""
    images = np.zeros((10, 28, 28), "float32")
    for k in range(10):
        images[k, 4:24, 5 : 13 + k] = 1
        images[k, 6:22, 7 : 11 + k] = 0
    rng = np.random.default_rng(0)
    ink, height, truth, printed = NOTEBOOK_09["write_form"](images, np.arange(10), rng, 3, 5)
    cells = ndi.label(~printed)[0]
    places = [s for k, s in enumerate(ndi.find_objects(cells), 1) if k != cells[0, 0]]
    assert len(places) == 15 and np.shape(truth) == (3, 5)
    tops = [rows.start for rows, _ in places]
    assert len(set(tops)) == 3 and tops == sorted(tops), "three rows of five"
    for (rows, columns), digit in zip(places, np.ravel(truth), strict=True):
        digits, n = ndi.label(ink[rows, columns] > 0.5)
        assert n == 1, "one digit in each cell"
        (box,) = ndi.find_objects(digits)
        h, w = (side.stop - side.start for side in box)
        assert 0.8 * height < h < 1.2 * height
        assert w / h == pytest.approx((8 + digit) / 20, rel=0.15)
    photo = NOTEBOOK_09["take_photo"](ink, height, np.random.default_rng(1), printed=printed)
    bare = NOTEBOOK_09["take_photo"](ink, height, np.random.default_rng(1), printed=0 * printed)
    darker = bare.mean(axis=2).astype(float) - photo.mean(axis=2)
    assert darker.sum() > 0 and photo.shape == (*ink.shape, 3) and photo.dtype == np.uint8
    assert 0.5 < (darker > 20).sum() / printed.sum() < 2, "only what is printed is darker"


@pytest.mark.parametrize("pen", [3, 6, 9])
def test_a_written_digit_keeps_what_its_own_pen_has_filled(pen):
    """A 6 whose loop is filled: a blob of ink below a stem, on whose center line is no loop."""
    y, x = np.mgrid[:28, :28]
    loop = (y - 18) ** 2 + (x - 14) ** 2 < 36
    stem = (x >= 8) & (x < 11) & (y > 3) & (y < 19)
    ink = NOTEBOOK_09["write_digit"](1.0 * (loop | stem), 60, pen)
    assert ink.dtype.kind == "f" and ink.min() >= 0 and ink.max() <= 1
    assert ink[0].any() and ink[-1].any() and ink[:, 0].any() and ink[:, -1].any()  # cropped
    half = len(ink) // 2
    above, below = (
        ndi.distance_transform_edt(part > 0.5).max() for part in (ink[:half], ink[half:])
    )
    assert below > 2 * above


@pytest.mark.parametrize("pen", [8, 12])
def test_a_digit_is_written_with_the_pen_that_was_asked_for(pen):
    digit = np.zeros((28, 28))
    digit[4:24, 12:15] = 1
    ink = np.pad(NOTEBOOK_09["write_digit"](digit, 80, pen), 5)
    assert NOTEBOOK_09["stroke_width"](ink > 0.5) == pytest.approx(pen, rel=0.2)


class Never:
    """A generator that leaves out everything that is left out at random."""

    def random(self):
        return 1.0

    def choice(self, options):
        """Return the one that changes the least: cuts without a slant."""
        return min(options, key=abs)


def test_most_of_two_digits_is_not_a_digit():
    """Also if one of them is a thin 1, which adds little ink to the other one."""
    owner = np.zeros((60, 70), int)
    owner[10:50, 10:36] = 1
    owner[17:43, 17:29] = 0  # a 0
    owner[10:50, 42:47] = 2  # and a 1
    images, classes = NOTEBOOK_09["candidates"]([0, 1], owner, Never())
    assert sorted(classes) == [0, 1, NOTEBOOK_09["NOT_A_DIGIT"]]
    both = images[classes.index(NOTEBOOK_09["NOT_A_DIGIT"])]
    assert ndi.label(both > 0.3)[1] == 2


# --- files, and what is no photo ------------------------------------------------------------------


class Unsure:
    """A model that finds all classes equally likely."""

    def predict_on_batch(self, images):
        return np.full((len(images), 11), 1 / 11)


@settings(deadline=None, max_examples=40)
@given(no_image)
def test_what_is_no_image_is_refused_with_the_reason(thing):
    with pytest.raises(ValueError, match="not an image|too small|pixels should be"):
        NOTEBOOK_09["read_digits"](thing, Unsure())


@settings(deadline=None, max_examples=30)
@given(pixels)
def test_any_image_is_read_without_an_error(array):
    rows = NOTEBOOK_09["read_digits"](array, Unsure())
    height, width = array.shape[:2]
    for top, left, bottom, right in (box for row in rows for _, _, box, _ in row):
        assert 0 <= top < bottom <= height and 0 <= left < right <= width


@pytest.mark.parametrize(
    ("size", "usual", "tried"),
    [
        (3000, 70, [1000]),
        (3000, 60, [1000, 1500]),  # small digits; of 3,000 pixels, 2 × 2 become one
        (3000, None, [1000, 1500]),  # no digits
        (1400, 70, [700]),
        (900, 30, [900]),  # there is nothing larger
    ],
)
def test_a_large_photo_is_read_small_if_its_digits_are_large(size, usual, tried, monkeypatch):
    shapes, photo = [], np.full((size // 2, size), 0.9, "float32")

    def choose_view(pixels, model):
        shapes.append(pixels.shape[1])
        looks = (
            [NOTEBOOK_09["Look"](10.0, 0, usual, np.zeros(pixels.shape[:2], bool), False)]
            if usual
            else []
        )
        return pixels[..., 0], looks, NOTEBOOK_09["ProjectiveTransform"]()

    def read_ink(ink, looks, model):
        return [(7, 0.9, np.array([0.1, 0.2, 0.3, 0.4]) * len(ink), None, 0.9)], 0

    monkeypatch.setitem(NOTEBOOK_09, "choose_view", choose_view)
    monkeypatch.setitem(NOTEBOOK_09, "read_ink", read_ink)
    [[(_, _, box, _)]] = NOTEBOOK_09["read_digits"](photo, None)
    assert shapes == tried
    np.testing.assert_allclose(box, np.array([0.1, 0.2, 0.3, 0.4]) * len(photo), atol=1)


def test_a_line_too_wide_to_be_skipped_cheaply_is_no_digit(monkeypatch):
    """Skipping it costs more than reading it, but the network is hardly certain of any digit."""
    ink = np.zeros((100, 400), "float32")
    ink[48:52, 100:180] = 1

    def digits(p):
        model = SimpleNamespace(predict_on_batch=lambda images: np.tile(p, (len(images), 1)))
        labels_and_boxes = NOTEBOOK_09["find_strokes"](ink > 0.5)
        return NOTEBOOK_09["read_strokes"](ink, *labels_and_boxes, 40, model)[0]

    p = np.full(11, 0.01)
    p[1], p[10] = 0.15, 0.76
    assert digits(p) == []
    monkeypatch.setitem(NOTEBOOK_09, "LEAST_CONFIDENCE", 0)
    assert [digit for digit, *_ in digits(p)] == [1], "only its confidence speaks against it"


@pytest.mark.parametrize("seed", [50, 67, 159, 240, 274])
def test_boxes_stay_on_the_photo(seed, monkeypatch):
    """The rows seem to slope; on the rotated page, a box reaches beyond the photo."""
    monkeypatch.setitem(NOTEBOOK_09, "LEAST_CONFIDENCE", 0)
    rng = np.random.default_rng(seed)
    height, width = rng.integers(8, 33, 2)
    photo = np.full((height, width), rng.choice([0.947, 0.9, 0.5]), "float32")
    dots = rng.random((height, width)) < rng.uniform(0.05, 0.4)
    photo[dots] = rng.random(dots.sum()) * (rng.random(dots.sum()) < 0.5)
    boxes = [box for row in NOTEBOOK_09["read_digits"](photo, Unsure()) for _, _, box, _ in row]
    assert len(boxes) > 0
    for top, left, bottom, right in boxes:
        assert 0 <= top < bottom <= height and 0 <= left < right <= width


def test_without_a_reader_boxes_cannot_be_found(tmp_path):
    find_digits = definitions("09", DATA=tmp_path)["find_digits"]
    with pytest.raises(FileNotFoundError, match="reader.keras is missing: run this notebook"):
        find_digits(1 - drawn_page()[0])


@on_mnist
def test_without_a_reader_the_model_of_04_finds_digits(left_file, tmp_path):
    shutil.copy(left_file("model.keras"), tmp_path)
    page = 1 - drawn_page(((3, 5, 8), (7, 4)))[0]
    found = definitions("09", DATA=tmp_path, data_name="MNIST")["find_digits"](page)
    assert [len(row) for row in found] == [3, 2]


@on_mnist
def test_bad_files_get_their_sentence_and_the_others_are_read(names, reader, tmp_path, capsys):
    bad, fine = write_files(tmp_path)
    readings = names["read_pages"](tmp_path, reader, show=False)
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.strip().splitlines())
    assert sorted(lines) == sorted([*bad, *fine]) and sorted(readings) == sorted(fine)
    for name, reason in bad.items():
        assert any(word in lines[name] for word in reason.split("|")), (name, lines[name])
    for name in fine:
        assert text(readings[name]) == [[1]], (name, lines[name])


@pytest.mark.parametrize("fine", [False, True])
def test_thin_strokes_are_seen_on_your_own_photos(fine):
    photo = np.full((900, 1600, 3), 220, "uint8")
    photo[300:600:40, 200:1400] = photo[300:602, 200:1400:40] = 60  # 1 pixel wide
    ax = Figure().subplots()
    NOTEBOOK_09["show_photo"](ax, photo, fine)
    pixels = np.asarray(ax.images[0].get_array())
    assert ((pixels < 0.5).mean() > 0.01) == fine, "coarse only where the notebook has to be small"


@on_mnist
def test_a_folder_of_pages_becomes_a_table_and_is_measured(names, reader, tmp_path, capsys):
    folder = tmp_path / "my-digits"
    folder.mkdir()
    photo = (255 * (1 - drawn_page(((3, 5, 2), (7, 4)))[0])).astype(np.uint8)
    Image.fromarray(photo).save(folder / "page.png")
    (folder / "page.txt").write_text("3 5 2\n7 9\n")  # one digit that was not written
    (folder / "bad.png").write_text("no image")
    (folder / "bad.txt").write_text("1 2")
    readings = names["read_pages"](folder, reader, table=tmp_path / "page.csv", show=False)
    names["measure_own"](folder, readings)
    printed = capsys.readouterr().out
    assert "bad.png: the file is empty, or not a JPEG, PNG" in printed
    assert "page: 4 of 5 correct, 0 false" in printed
    assert "bad: 0 of 2 correct, 0 false" in printed, "a page that cannot be read counts, too"
    assert "text files beside your pages: 2\nall: 4 of 7 correct, 0 false; 0 without" in printed
    assert "accuracy 57.1% (95% interval 0.0% to 80.0%)" in printed, "0 of 4, 4 of 7, or 8 of 10"
    table = pd.read_csv(tmp_path / "page.csv")
    assert table["digit"].tolist() == [3, 5, 2, 7, 4]
    assert table["row"].tolist() == [1, 1, 1, 2, 2]
    assert table["column"].tolist() == [1, 2, 3, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-digits", "page.csv"]


def test_intervals_are_those_of_a_bootstrap_over_pages():
    interval, accuracy = NOTEBOOK_09["page_interval"], NOTEBOOK_09["accuracy_of"]
    rng = np.random.default_rng(1)
    written = rng.integers(5, 40, 30)
    correct = rng.binomial(written, 0.9)
    drawn = rng.integers(30, size=(20_000, 30))
    means = correct[drawn].sum(axis=1) / written[drawn].sum(axis=1)
    assert interval(accuracy, correct, written) == pytest.approx(
        np.percentile(means, [2.5, 97.5]), abs=0.003
    )
    low, high = interval(np.sum, np.r_[np.ones(10), np.zeros(20)])
    assert 4 <= low <= 6 and 14 <= high <= 16, "the 95% of a binomial with 30 trials and p = 1/3"


LARGE = """
import re, sys
from pathlib import Path
sys.path[:0] = {path!r}
import keras, numpy as np
from conftest import definitions
names = definitions("09", DATA=None, data_name="MNIST")
photo = np.load({photo!r})
rows = names["read_digits"](photo, keras.models.load_model({reader!r}))
print([[digit for digit, *_ in row] for row in rows])
# Not getrusage: on Linux, its peak begins with that of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e9)
"""


@on_mnist
def test_a_photo_of_12_megapixels_needs_less_than_one_and_a_half_gigabytes(left_file, tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells the most memory that a process has used")
    page = ndi.zoom(1 - drawn_page(((3, 5, 8), (7, 4)))[0], 10, order=1)
    np.save(tmp_path / "photo.npy", np.uint8(255 * page.clip(0, 1))[..., None].repeat(3, axis=2))
    places = {"path": sys.path, "photo": str(tmp_path / "photo.npy")}
    code = LARGE.format(**places, reader=str(left_file("reader.keras")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    read, gigabytes = done.stdout.splitlines()
    assert read == "[[3, 5, 8], [7, 4]]" and float(gigabytes) < 1.5


# --- How good it is, on images that it was not tuned with ---------------------------------------


def read_held_out(names, reader, seeds, **options):
    images, labels = page_digits("held out")
    total = {"digits": 0, "right": 0, "false": 0}
    for seed in seeds:
        one = page(seed, images, labels, "held out", limit=1_000_000, **options)
        rows = names["read_digits"](one.photo, reader)
        counts = compare(one, [[(digit, box) for digit, _, box, _ in row] for row in rows])
        total = {key: total[key] + counts[key] for key in total}
    return total


@on_mnist
def test_pages(names, reader):
    total = read_held_out(names, reader, range(20))
    assert total["right"] >= 0.96 * total["digits"], total
    assert total["false"] <= 4, total


@on_mnist
def test_printed_forms(names, reader):
    total = read_held_out(names, reader, range(12), kinds=("cells",))
    assert total["right"] >= 0.9 * total["digits"], total
    assert total["false"] <= 12, total


@on_mnist
def test_pages_where_digits_touch(names, reader):
    total = read_held_out(names, reader, range(12), touching=0.2)
    assert total["right"] >= 0.9 * total["digits"], total
    assert total["false"] <= 6, total
