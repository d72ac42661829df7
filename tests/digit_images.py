"""Make images of digits whose labels are known: single drawn digits, and photos of pages.

Two parts, which share no MNIST image, no drawing style, and no seed:

    "development"   for building and tuning the functions of notebooks 07 and 09
    "held out"      for measuring them: look at its numbers, but never tune on it

The MNIST digits come from the 5,000 images of the training file that the series keeps for
validation (`split` in notebook 02), so that no model of the series was trained on them.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage as ndi
from scipy.interpolate import make_interp_spline
from sklearn.model_selection import train_test_split

PARTS = {"development": 0, "held out": 1}


# --- Drawn digits -------------------------------------------------------------------------------
# A digit is a list of strokes, a stroke a string of points "x,y" in a box 100 wide and 100 high,
# y downwards. A stroke that begins with "~" is a smooth curve, the others have corners.

STYLES = {
    "round": {
        0: ["~50,3 26,14 16,50 26,86 50,97 74,86 84,50 74,14 50,3"],
        1: ["50,3 50,97"],
        2: ["~20,25 32,7 55,3 76,14 76,35 55,62 20,96", "20,96 82,95"],
        3: ["~20,12 45,3 72,11 72,33 45,47 72,58 78,80 52,97 20,88"],
        4: ["62,3 16,65 86,65", "66,40 66,97"],
        5: ["76,4 30,4 26,44", "~26,44 50,38 76,52 78,78 55,97 20,90"],
        6: ["~68,4 38,28 20,66 34,94 62,95 76,72 58,52 34,58 22,72"],
        7: ["18,5 80,5 40,97"],
        8: ["~50,47 26,32 30,9 50,3 70,9 74,32 50,47 22,66 26,90 50,97 74,90 78,66 50,47"],
        9: ["~74,22 52,3 28,14 28,40 50,49 72,36 75,20 74,60 68,97"],
    },
    "school": {
        0: ["~60,4 34,8 18,40 22,80 46,97 72,84 82,48 72,14 60,4"],
        1: ["26,32 56,4 56,97"],
        2: ["~22,30 28,10 50,3 74,12 74,34 22,95", "22,95 84,95"],
        3: ["20,5 76,5 44,40", "~44,40 70,46 80,70 66,92 40,97 18,86"],
        4: ["30,4 20,55 82,55", "64,30 64,97"],
        5: ["30,4 26,46", "~26,46 54,38 78,56 74,86 48,97 18,88", "30,5 78,3"],
        6: ["~62,3 34,34 20,70 40,96 68,90 74,66 50,54 26,66"],
        7: ["16,6 82,6 44,97", "32,50 74,50"],
        8: ["~68,14 48,4 30,16 36,38 66,58 74,80 54,97 28,88 26,68 60,40 70,20 68,14"],
        9: ["~70,14 46,4 26,22 34,44 58,44 72,16", "72,14 66,97"],
    },
    "sharp": {
        0: ["40,3 20,30 20,72 42,97 62,97 82,70 82,28 62,3 40,3"],
        1: ["34,26 54,3 50,97"],
        2: ["18,22 40,3 70,6 78,30 16,96 84,92"],
        3: ["18,6 76,4 46,42 76,54 74,84 50,97 16,90"],
        4: ["44,3 14,62 88,58", "70,34 60,97"],
        5: ["80,3 28,6 24,42 64,40 80,62 68,92 18,97"],
        6: ["72,3 30,42 18,76 36,97 66,95 78,70 60,54 24,64"],
        7: ["14,10 84,4 50,50 36,97"],
        8: ["50,46 24,26 36,4 66,4 76,24 50,46 20,72 34,97 66,97 80,72 50,46"],
        9: ["76,30 52,3 26,12 22,36 44,50 76,30 70,66 46,97"],
    },
    "loopy": {
        0: ["~56,8 30,6 16,44 24,84 50,97 78,82 84,44 70,12 48,3"],
        1: ["~22,40 40,24 56,3", "56,3 52,97"],
        2: ["~18,28 34,5 62,4 74,24 54,62 26,92 16,84 30,76 54,92 86,90"],
        3: ["~22,18 40,3 68,8 66,32 44,44 54,50 62,44 46,46 76,58 80,82 54,98 18,84"],
        4: ["~36,4 28,34 20,56 40,60 86,52", "~72,20 66,56 62,97"],
        5: ["~34,8 30,26 26,44 46,36 74,46 80,74 58,96 18,88", "~32,8 56,10 82,3"],
        6: ["~78,8 56,4 28,34 18,72 40,98 70,88 72,64 48,56 26,78"],
        7: ["~14,16 26,6 50,10 84,4 58,44 42,97", "30,54 70,46"],
        8: ["~74,10 50,3 28,18 40,40 68,62 72,86 46,98 24,84 34,60 66,36 78,12"],
        9: ["~76,12 50,3 26,26 40,48 66,40 76,14 78,56 62,90 32,96"],
    },
}
PART_STYLES = {"development": ("round", "school"), "held out": ("sharp", "loopy")}


def _path(stroke, rng, wobble):
    points = np.array([p.split(",") for p in stroke.lstrip("~").split()], float)
    points += rng.normal(0, wobble, points.shape)
    if stroke[0] != "~" or len(points) < 3:
        return points
    along = np.r_[0, np.cumsum(np.hypot(*np.diff(points, axis=0).T))]
    curve = make_interp_spline(along, points, k=min(3, len(points) - 1))
    return curve(np.linspace(0, along[-1], 60))


def draw_digit(rng, digit, style, height, width, fine=4):
    """Return ink float32, 0 to 1, cropped tightly: a digit `height` pixels high.

    width: of the pen, in pixels. fine: each pixel is drawn as fine x fine; 1 leaves the edges
    without gray, as a paint program does.
    """
    slant, aspect, turn = rng.uniform(-0.25, 0.35), rng.uniform(0.6, 1.0), rng.uniform(-0.1, 0.1)
    paths = [_path(stroke, rng, 2.0) - 50 for stroke in STYLES[style][digit]]
    cos, sin = np.cos(turn), np.sin(turn)
    matrix = np.array([[cos, sin], [-sin, cos]]) @ np.array([[aspect, -slant], [0, 1]])
    paths = [path @ matrix.T for path in paths]
    low = np.min([path.min(axis=0) for path in paths], axis=0)
    high = np.max([path.max(axis=0) for path in paths], axis=0)
    scale = max(height - width, 1) / (high - low)[1]
    size = np.ceil((high - low) * scale + width + 2).astype(int)
    canvas = Image.new("L", tuple(size * fine))
    pen, radius = ImageDraw.Draw(canvas), width * fine / 2
    for path in paths:
        points = ((path - low) * scale + width / 2 + 1) * fine
        pen.line([tuple(p) for p in points], fill=255, width=max(1, round(2 * radius)))
        if radius > 0.6:
            for x, y in points:
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    ink = np.asarray(canvas, np.float32).reshape(size[1], fine, size[0], fine).mean((1, 3)) / 255
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def single_digit(seed, part="development"):
    """Return (image uint8 (h, w) or (h, w, 3), digit, what): one digit as somebody may draw it.

    28 to 600 pixels, thin to very thick, off-center, both polarities, with and without gray edges.
    """
    rng = np.random.default_rng([PARTS[part], 1, seed])
    digit, style = int(rng.integers(10)), str(rng.choice(PART_STYLES[part]))
    side = int(np.exp(rng.uniform(np.log(28), np.log(600.99))))
    height = side * rng.uniform(0.4, 0.9)
    thin = max(1.0, 0.012 * height)
    width = np.exp(rng.uniform(np.log(thin), np.log(0.26 * height)))
    ink = draw_digit(rng, digit, style, height, width, fine=int(rng.choice([1, 4])))
    ink = ink[:side, :side]
    image = np.zeros((side, side), np.float32)
    top, left = (rng.integers(0, side - n + 1) for n in ink.shape)
    image[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    paper, pen = np.ones(3), np.zeros(3)
    if rng.random() < 0.5:  # colors
        paper = rng.uniform(0.8, 1, 3)
        pen = rng.choice([[0.1, 0.1, 0.5], [0.7, 0.1, 0.1], [0.1, 0.4, 0.2], [0.2, 0.2, 0.2]])
    if rng.random() < 0.4:
        paper, pen = 1 - paper, 1 - pen
    image = paper + image[..., None] * (pen - paper)
    what = f"{style}, {side} px, pen {width:.1f}, digit {ink.shape[0]} high"
    return (image * 255).round().astype(np.uint8), digit, what


# --- Pages --------------------------------------------------------------------------------------


@dataclass
class Page:
    """A photo uint8 (h, w, 3) and its truth: rows of (digit, center row, center column, size)."""

    photo: np.ndarray
    rows: list
    what: str


def mnist_part(x_train, y_train, part):
    """Return the images uint8 (2500, 28, 28) and labels from which pages of `part` are made."""
    _, images, _, labels = train_test_split(
        x_train, y_train, test_size=1 / 12, stratify=y_train, random_state=0
    )
    half = len(images) // 2
    return (images[:half], labels[:half]) if PARTS[part] == 0 else (images[half:], labels[half:])


def pen_stroke(image, size, weight):
    """Turn MNIST's (28, 28) into ink float32 `size` pixels high, the stroke made `weight` wider.

    weight: in pixels of the 28 x 28 image, added to the stroke's width; below 0 is thinner.
    """
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    crop = np.pad(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / 255.0, 3)
    zoom = size / (crop.shape[0] - 6)
    big = ndi.zoom(crop, zoom, order=3)
    shape = big > 0.5
    distance = ndi.distance_transform_edt(shape) - ndi.distance_transform_edt(~shape)
    ink = np.clip(0.5 + distance + weight * zoom / 2, 0, 1).astype(np.float32)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _stamp(ink, digit, top, left):
    h, w = digit.shape
    place = ink[top : top + h, left : left + w]
    np.maximum(place, digit[: place.shape[0], : place.shape[1]], out=place)


def _noise(rng, shape, scale):
    small = rng.normal(0, 1, [int(n / scale) + 2 for n in shape]).astype(np.float32)
    image = Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC)
    return np.asarray(image)


def _paper(rng, shape, size, kind):
    """Paper with texture, lines and creases: float32 (h, w, 3)."""
    h, w = shape
    base = rng.choice(
        [[0.97, 0.97, 0.96], [0.95, 0.92, 0.84], [0.85, 0.84, 0.82], [0.9, 0.93, 0.95]]
    )
    paper = np.ones((h, w, 3), np.float32) * np.float32(base)
    strength = rng.uniform(0, 0.015)
    grain = strength * (
        _noise(rng, shape, 2) + 0.7 * _noise(rng, shape, 9) + 0.7 * _noise(rng, shape, 60)
    )
    paper += grain[..., None]
    if kind != "plain":
        step = size * (rng.uniform(1.25, 2.0) if kind == "ruled" else rng.uniform(0.55, 1.1))
        width = max(1, round(size * rng.uniform(0.015, 0.045)))
        color = rng.choice([[0.35, 0.5, 0.8], [0.5, 0.5, 0.5], [0.6, 0.4, 0.7], [0.4, 0.65, 0.65]])
        alpha = rng.uniform(0.25, 0.75)
        lines = np.zeros(shape, bool)
        for y in np.arange(rng.uniform(0, step), h, step):
            lines[int(y) : int(y) + width] = True
        if kind == "squared":
            for x in np.arange(rng.uniform(0, step), w, step):
                lines[:, int(x) : int(x) + width] = True
        paper[lines] += alpha * (np.float32(color) - paper[lines])
        if kind == "ruled" and rng.random() < 0.4:
            x = int(w * rng.uniform(0.04, 0.1))
            paper[:, x : x + width] += alpha * (
                np.float32([0.85, 0.3, 0.3]) - paper[:, x : x + width]
            )
    for _ in range(rng.integers(0, 3)):  # creases
        angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3) * max(h, w)
        y, x = np.ogrid[:h, :w]
        d = (x - w / 2) * np.cos(angle) + (y - h / 2) * np.sin(angle) - offset
        wide = rng.uniform(1, 4) + size / 60
        fold = rng.uniform(-0.07, 0.07) * np.exp(-((d / wide) ** 2)) * np.sign(d + 0.01)
        paper *= 1 + fold[..., None].astype(np.float32)
    return paper


def _light(rng, shape):
    """Light on the page, float32 (h, w): a gradient, and perhaps a shadow with a soft edge."""
    h, w = shape
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 - rng.uniform(0, 0.22) * (1 + np.cos(angle) * x + np.sin(angle) * y) / 1.5
    if rng.random() < 0.5:
        angle, offset, soft = (
            rng.uniform(0, 2 * np.pi),
            rng.uniform(-0.6, 0.6),
            rng.uniform(0.01, 0.3),
        )
        edge = (
            np.cos(angle) * x + np.sin(angle) * y + 0.15 * np.sin(2 * x + 3 * y) - offset
        ) / soft
        light *= 1 - rng.uniform(0.1, 0.5) / (1 + np.exp(np.clip(edge, -30, 30)))
    return light


def _camera(rng, photo, centers, outside):
    """Rotate by up to 10 degrees and tilt; return the photo, and the centers where they are now."""
    h, w = photo.shape[:2]
    corners = np.array([[0, 0], [w, 0], [w, h], [0, h]], float)
    angle = np.radians(rng.uniform(-10, 10))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    seen = (corners - corners.mean(0)) @ turn.T
    seen *= 1 + rng.uniform(-0.05, 0.05, (4, 2))
    seen -= seen.min(0)
    width, height = np.ceil(seen.max(0)).astype(int)
    rows, target = [], []
    for (x, y), (u, v) in zip(seen, corners, strict=True):  # photo → page, as Pillow wants it
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        target += [u, v]
    map_back = np.linalg.solve(np.array(rows), np.array(target))
    image = Image.fromarray(photo).convert("RGBA")
    image = image.transform(
        (width, height), Image.Transform.PERSPECTIVE, map_back, Image.Resampling.BICUBIC
    )
    desk = Image.new("RGBA", image.size, outside)
    forward = np.linalg.inv(np.append(map_back, 1).reshape(3, 3))
    moved = np.c_[centers, np.ones(len(centers))] @ forward.T
    return np.asarray(Image.alpha_composite(desk, image).convert("RGB")), moved[:, :2] / moved[
        :, 2:
    ]


def _move_to_touch(ink, digit, top, left):
    """Return the column at which the digit, moved left from `left`, touches what is written."""
    row = ink[top : top + digit.shape[0]] > 0.5
    solid = digit[: row.shape[0]] > 0.5
    for column in range(left, max(0, left - digit.shape[1]), -1):
        window = row[:, column : column + digit.shape[1]]
        if (window & solid[:, : window.shape[1]]).any():
            return column
    return left


def _cells(paper, rng, size, rows):
    """Print a form's cells around rows of digits: each row (top, bottom, edges of its columns)."""
    width, color = max(1, round(size * rng.uniform(0.02, 0.05))), rng.uniform(0.1, 0.6)
    for top, bottom, edges in rows:
        paper[top : top + width, edges[0] : edges[-1] + width] = color
        paper[bottom : bottom + width, edges[0] : edges[-1] + width] = color
        for x in edges:
            paper[top : bottom + width, x : x + width] = color


def page(
    seed,
    images,
    labels,
    part="development",
    size=None,
    limit=4_000_000,
    kinds=("plain", "ruled", "squared"),
    touching=0.0,
):
    """Return a Page: rows of MNIST digits written with a pen and photographed.

    images, labels: what `mnist_part` returns for the same part. size: height of a digit in pixels
    (default: 30 to 400, by chance). limit: the number of pixels of the page, at most. kinds: of
    paper, one is chosen by chance; "cells" is a form with a printed cell for each digit.
    touching: the share of digits that touch the one before (in a form, cells are apart).
    """
    rng = np.random.default_rng([PARTS[part], 2, seed])
    size = size or float(np.exp(rng.uniform(np.log(30), np.log(400))))
    kind = str(rng.choice(list(kinds)))
    widest = max(3, int(np.sqrt(limit) / (1.4 * size)))
    n_rows, n_columns = rng.integers(1, min(9, widest)), rng.integers(1, min(13, widest + 1))
    weight, gap = rng.uniform(-1.2, 1.2), rng.uniform(0.12, 0.9)
    lead, edge = rng.uniform(1.35, 2.2), rng.uniform(0.6, 1.5) * size
    h = int(2 * edge + size * (1.3 + lead * (n_rows - 1)))
    w = int(2 * edge + size * 1.35 * n_columns * (0.75 + gap))
    ink, centers, truth, cells = np.zeros((h, w), np.float32), [], [], []
    chance = np.random.default_rng([PARTS[part], 3, seed])  # so that other pages stay as they are
    for r in range(n_rows):
        left, row, edges = edge + rng.uniform(0, 0.8) * size, [], []
        for _ in range(rng.integers(max(1, n_columns // 2), n_columns + 1)):
            k = rng.integers(len(images))
            high = size * rng.uniform(0.8, 1.15) * np.flatnonzero(images[k].any(1)).size / 20
            digit = pen_stroke(images[k], high, weight)
            top = int(
                edge + r * lead * size + (size - digit.shape[0]) / 2 + rng.uniform(-0.1, 0.1) * size
            )
            if left + digit.shape[1] > w - 0.3 * size:
                break
            if row and kind != "cells" and chance.random() < touching:
                left = _move_to_touch(ink, digit, max(top, 0), int(left))
            _stamp(ink, digit, max(top, 0), int(left))
            centers.append((int(left) + digit.shape[1] / 2, max(top, 0) + digit.shape[0] / 2))
            row.append((int(labels[k]), max(digit.shape)))
            near = rng.uniform(0.04, 0.12) if rng.random() < 0.1 else gap * rng.uniform(0.6, 1.6)
            near = max(near, 0.25) if kind == "cells" else near
            edges += [] if edges else [int(left - 0.2 * size)]
            edges.append(int(left + digit.shape[1] + max(2, near * size) / 2))
            left += digit.shape[1] + max(2, near * size)
        truth.append(row)
        middle = edge + r * lead * size + size / 2
        cells.append((int(middle - 0.72 * size), int(middle + 0.72 * size), edges))
    paper = _paper(rng, (h, w), size, "plain" if kind == "cells" else kind)
    if kind == "cells":
        _cells(paper, rng, size, cells)
    if rng.random() < 0.3:  # ghost writing: the back of the sheet shines through, at the margins
        ghost = np.zeros_like(ink)
        for _ in range(rng.integers(2, 8)):
            mark = pen_stroke(images[rng.integers(len(images))], size, 0)[:, ::-1]
            top = rng.choice([rng.uniform(0, 0.05) * h, h - size * 1.1])
            _stamp(ghost, mark, int(max(top, 0)), int(rng.uniform(0, max(w - size, 1))))
        paper *= 1 - rng.uniform(0.03, 0.1) * ndi.gaussian_filter(ghost, size / 40)[..., None]
    pen = rng.choice(
        [
            [0.08, 0.08, 0.1],
            [0.1, 0.15, 0.5],
            [0.65, 0.1, 0.12],
            [0.1, 0.35, 0.2],
            [0.35, 0.35, 0.37],
        ]
    )
    press = 1 - rng.uniform(0, 0.2) * np.abs(_noise(rng, (h, w), max(2, size / 10)))
    photo = paper + (ink * np.clip(press, 0.5, 1) * rng.uniform(0.8, 1))[..., None] * (
        np.float32(pen) - paper
    )
    photo *= _light(rng, (h, w))[..., None] * rng.uniform(0.75, 1)
    photo = ndi.gaussian_filter(photo, (b := rng.uniform(0.3, 0.5 + size / 60), b, 0))
    photo = (np.clip(photo, 0, 1) * 255).astype(np.uint8)
    desk = tuple(int(v) for v in rng.uniform(0.25, 0.8) * rng.uniform(140, 255, 3)) + (255,)
    photo, centers = _camera(rng, photo, np.array(centers), desk)
    noisy = photo + rng.normal(0, rng.uniform(0, 4), photo.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(
        file, "JPEG", quality=int(rng.integers(45, 96))
    )
    where = iter(centers)
    rows = [
        [(digit, y, x, high) for (digit, high), (x, y) in zip(row, where, strict=False)]
        for row in truth
    ]
    what = f"{kind}, digits {size:.0f} px, stroke {weight:+.1f}, {n_rows} rows"
    return Page(np.asarray(Image.open(file)), rows, what)


def compare(page, rows):
    """Compare what was read with the truth; return a dict of counts.

    rows: rows of (digit, (top, left, bottom, right)). right: in the right order, and read right;
    found: seen at all; false: boxes that are no digit.
    """
    truth = [digit for row in page.rows for digit in row]
    taken, order, false = {}, [], 0
    for digit, (top, left, bottom, right) in (one for row in rows for one in row):
        y, x = (top + bottom) / 2, (left + right) / 2
        near = [max(abs(y - t[1]), abs(x - t[2])) / t[3] for t in truth]
        k = int(np.argmin(near)) if near else -1
        if (
            k < 0
            or near[k] > 0.35
            or k in taken
            or not 0.6 < max(bottom - top, right - left) / truth[k][3] < 1.6
        ):
            false += 1
            continue
        taken[k] = digit
        order.append(k)
    longest = [1] * len(order)  # the longest part that is in the right order
    best, before = 0, [-1] * len(order)
    for i in range(len(order)):
        for j in range(i):
            if order[j] < order[i] and longest[j] + 1 > longest[i]:
                longest[i], before[i] = longest[j] + 1, j
        best = i if longest[i] > longest[best] else best
    chain, i = set(), best if order else -1
    while i >= 0:
        chain.add(order[i])
        i = before[i]
    right = sum(taken[k] == truth[k][0] for k in chain)
    return {"digits": len(truth), "found": len(taken), "right": right, "false": false,
            "rows_right": int([len(r) for r in rows] == [len(r) for r in page.rows])}  # fmt: skip
