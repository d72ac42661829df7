"""The checks of the exercises: they accept the solution and answer typical mistakes with a hint."""

import numpy as np
import pytest
from conftest import NOTEBOOKS, ROOT, definitions

# WRONG["03", "convolve_channels"] = [(a wrong answer, a part of the hint it should get), ...]
WRONG = {}

# --- 01 explore the data -----------------------------------------------------------


def all_distances(images, means):
    flat_images, flat_means = images.reshape(-1, 784), means.reshape(10, 784)
    return np.stack([np.sqrt(np.square(flat_images - m).sum(axis=1)) for m in flat_means], axis=1)


def farthest_mean(images, means):
    return all_distances(images, means).argmax(axis=1)


def nearest_image_of_each_mean(images, means):
    return all_distances(images, means).argmin(axis=0)


def smallest_distance(images, means):
    return all_distances(images, means).min(axis=1)


def absolute_differences(images, means):
    return np.abs(images[:, np.newaxis] - means).sum(axis=(2, 3)).argmin(axis=1)


def signed_differences(images, means):
    return (images[:, np.newaxis] - means).sum(axis=(2, 3)).argmin(axis=1)


def nearest_in_ink(images, means):
    ink, ink_of_means = images.mean(axis=(1, 2)), means.mean(axis=(1, 2))
    return np.abs(ink[:, np.newaxis] - ink_of_means).argmin(axis=1)


def largest_product(images, means):
    return (images.reshape(-1, 784) @ means.reshape(10, 784).T).argmax(axis=1)


def only_the_first_image(images, means):
    return all_distances(images, means)[0].argmin()


WRONG["01", "nearest_mean"] = [
    (all_distances, "number of the smallest one"),
    (farthest_mean, "not argmax"),
    (nearest_image_of_each_mean, "over the means"),
    (smallest_distance, "argmin"),
    (absolute_differences, "square them instead"),
    (signed_differences, "cancel"),
    (nearest_in_ink, "cancel"),
    (largest_product, "more ink wins"),
    (only_the_first_image, "should have shape (30,)"),
]


# --- 02 prepare the data -----------------------------------------------------------


def p_of_truth(probabilities, labels):
    return probabilities[np.arange(len(labels)), labels].clip(1e-7)


def sum_of_losses(probabilities, labels):
    return -np.log(p_of_truth(probabilities, labels)).sum()


def wrong_sign(probabilities, labels):
    return np.log(p_of_truth(probabilities, labels)).mean()


def base_two(probabilities, labels):
    return -np.log2(p_of_truth(probabilities, labels)).mean()


def largest_probability(probabilities, labels):
    return -np.log(probabilities.max(axis=1)).mean()


def one_loss_each(probabilities, labels):
    return -np.log(p_of_truth(probabilities, labels))


def without_clip(probabilities, labels):
    with np.errstate(divide="ignore"):
        return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


def columns_of_every_row(probabilities, labels):
    return -np.log(probabilities[:, labels]).mean()


def labels_as_one_hot(probabilities, labels):
    return -np.sum(labels * np.log(probabilities.clip(1e-7)), axis=1).mean()


def nothing_for_zero(probabilities, labels):
    return np.nan_to_num(one_loss_each(probabilities, labels) * (probabilities[:, 0] > 0)).mean()


WRONG["02", "cross_entropy"] = [
    (sum_of_losses, "the loss is their mean"),
    (wrong_sign, "put a minus"),
    (base_two, "natural logarithm"),
    (largest_probability, "not the largest one"),
    (one_loss_each, "take the mean"),
    (columns_of_every_row, "from every row"),
    (labels_as_one_hot, "not one-hot vectors"),
    (without_clip, "clip the probabilities"),
    (nothing_for_zero, "should cost -ln 1e-7"),
]


# --- 03 build a CNN ----------------------------------------------------------------


def one_channel(image, kernel):
    rows, columns = image.shape[0] - len(kernel) + 1, image.shape[1] - len(kernel) + 1
    k, result = len(kernel), np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            covered = image[row : row + k, column : column + k, 0]
            result[row, column] = np.sum(covered * kernel[:, :, 0])
    return result


def channels_not_added(image, kernel):
    maps = [one_channel(image[..., c:], kernel[..., c:]) for c in range(image.shape[2])]
    return np.stack(maps, axis=-1)


def mean_of_channels(image, kernel):
    return channels_not_added(image, kernel).mean(axis=-1)


def channels_added_first(image, kernel):
    return one_channel(image.sum(axis=2, keepdims=True), kernel.sum(axis=2, keepdims=True))


def one_place_too_few(image, kernel):
    return channels_not_added(image, kernel).sum(axis=-1)[:-1, :-1]


def kernel_flipped(image, kernel):
    return channels_not_added(image, kernel[::-1, ::-1]).sum(axis=-1)


def as_large_as_the_image(image, kernel):
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    return channels_not_added(padded, kernel).sum(axis=-1)


def rows_and_columns_swapped(image, kernel):
    return channels_not_added(image, kernel).sum(axis=-1).T


WRONG["03", "convolve_channels"] = [
    (one_channel, "Only one channel is used"),
    (channels_not_added, "There is still a channel axis"),
    (mean_of_channels, "This is the mean over the channels"),
    (channels_added_first, "Each channel has its own slice"),
    (one_place_too_few, "h - k + 1 places, not h - k"),
    (kernel_flipped, "The kernel is flipped"),
    (as_large_as_the_image, "as large as the image"),
    (rows_and_columns_swapped, "Rows and columns are swapped"),
]


# --- 04 train with augmentation ----------------------------------------------------


def rotate_by(angle, center=13.5, radians=np.radians, before=-1, sign=1):
    """A rotation in pixel coordinates, right or wrong depending on the options."""
    cos, sin = np.cos(radians(angle)), sign * np.sin(radians(angle))
    rotate = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    first = np.array([[1, 0, before * center], [0, 1, before * center], [0, 0, 1]])
    return np.linalg.inv(first) @ rotate @ first


WRONG["04", "rotation_about_center"] = [
    (lambda angle: rotate_by(angle, center=0), "rotates about the top left pixel"),
    (lambda angle: rotate_by(angle, center=14), "rotates about (14, 14)"),
    (lambda angle: rotate_by(angle, radians=float), "convert the angle with np.radians"),
    (lambda angle: rotate_by(angle, before=1), "rightmost matrix of a product comes first"),
    (lambda angle: rotate_by(angle, sign=-1), "rotates clockwise"),
    (lambda angle: rotate_by(angle)[:2], "shape (3, 3), but it has the shape (2, 3)"),
    (lambda angle: rotate_by(-2 * angle), "should move to (13.5, 3.5)"),
    (lambda angle: rotate_by(angle) * 2, "last row should be 0, 0, 1"),
    (lambda angle: rotate_by(90), "By 30°"),
]


# --- 05 evaluate the model ---------------------------------------------------------


def count_outcomes(n, k):
    return float(np.prod([(n - j) / (j + 1) for j in range(k)]))


def one_side(n, up_to):
    return sum(count_outcomes(n, k) for k in range(up_to + 1)) / 2**n


def one_sided(only_a, only_b):
    return one_side(only_a + only_b, min(only_a, only_b))


def exactly_this(only_a, only_b):
    n = only_a + only_b
    return min(1.0, 2 * count_outcomes(n, only_a) / 2**n)


def the_order_matters(only_a, only_b):
    return min(1.0, 2 * one_side(only_a + only_b, only_a))


def more_than_one(only_a, only_b):
    return 2 * one_sided(only_a, only_b)


def not_for_zero(only_a, only_b):
    n_tosses = only_a + only_b
    return min(1.0, 2 * one_sided(only_a, only_b) * n_tosses / n_tosses)


def rounded(only_a, only_b):
    return round(min(1.0, more_than_one(only_a, only_b)), 3)


def half_at_most(only_a, only_b):
    return min(0.5, more_than_one(only_a, only_b))


WRONG["05", "mcnemar_p"] = [
    (one_sided, "one side only"),
    (exactly_this, "more one-sided"),
    (the_order_matters, "order should not matter"),
    (more_than_one, "never larger than 1"),
    (not_for_zero, "p is 1"),
    (half_at_most, "mcnemar_p(0, 0) should be 1"),
    (rounded, "but should be"),
]


# --- 06 predict and save -----------------------------------------------------------


def top_k_matches(probabilities, labels, k):
    """Return bool (n, k): whether each of the k top predictions is the label."""
    return np.argsort(-probabilities, axis=1)[:, :k] == labels[:, np.newaxis]


def lowest_k(probabilities, labels, k):
    return top_k_matches(-probabilities, labels, k).any(axis=1).mean()


def only_the_kth(probabilities, labels, k):
    return top_k_matches(probabilities, labels, k)[:, -1].mean()


def without_k(probabilities, labels, k):
    return top_k_matches(probabilities, labels, 1).mean()


def mean_of_comparisons(probabilities, labels, k):
    return top_k_matches(probabilities, labels, k).mean()


def any_image(probabilities, labels, k):
    return float(top_k_matches(probabilities, labels, k).any())


def for_each_image(probabilities, labels, k):
    return top_k_matches(probabilities, labels, k).any(axis=1)


def count(probabilities, labels, k):
    return top_k_matches(probabilities, labels, k).any(axis=1).sum()


def percent(probabilities, labels, k):
    return 100 * top_k_matches(probabilities, labels, k).any(axis=1).mean()


def errors(probabilities, labels, k):
    return 1 - top_k_matches(probabilities, labels, k).any(axis=1).mean()


def one_too_many(probabilities, labels, k):
    return top_k_matches(probabilities, labels, k + 1).any(axis=1).mean()


def without_second_axis(probabilities, labels, k):
    return (np.argsort(-probabilities, axis=1)[:, :k] == labels + np.zeros(7)).any(axis=1).mean()


WRONG["06", "top_k_accuracy"] = [
    (lowest_k, "k lowest probabilities"),
    (only_the_kth, "comes second"),
    (without_k, "only the highest probability"),
    (mean_of_comparisons, "all n × k comparisons"),
    (any_image, "any(axis=1)"),
    (for_each_image, "one number for all images"),
    (count, "divide it by len(labels)"),
    (percent, "should be a fraction, from 0 to 1"),
    (errors, "misclassified images"),
    (one_too_many, "looks at three digits"),
    (without_second_axis, "second axis"),
    (lambda probabilities, labels, k: 0.5, "should be 0.650"),
    (lambda probabilities, labels, k: True, "should be a number"),
]


# --- 07 read your own handwriting --------------------------------------------------


def swapped(image):
    row, column = np.indices(image.shape)
    return (column * image).sum() / image.sum(), (row * image).sum() / image.sum()


def unweighted(image):
    return np.argwhere(image).mean(axis=0)


def divided_by_pixels(image):
    row, column = np.indices(image.shape)
    return (row * image).mean(), (column * image).mean()


def not_divided(image):
    row, column = np.indices(image.shape)
    return (row * image).sum(), (column * image).sum()


def counted_from_one(image):
    row, column = np.indices(image.shape) + 1
    return (row * image).sum() / image.sum(), (column * image).sum() / image.sum()


def middle_of_extent(image):
    inked = np.argwhere(image)
    return (inked.min(axis=0) + inked.max(axis=0)) / 2


def darkest_pixel(image):
    return np.unravel_index(image.argmax(), image.shape)


def one_number(image):
    return [np.average(np.indices(image.shape)[0], weights=image)]


WRONG["07", "center_of_mass"] = [
    (swapped, "wrong order"),
    (unweighted, "weight each pixel"),
    (divided_by_pixels, "number of pixels"),
    (not_divided, "sum of ink"),
    (counted_from_one, "count from 1"),
    (middle_of_extent, "extent"),
    (darkest_pixel, "Not right yet"),
    (one_number, "Two numbers are expected"),
]


# --- 08 push the accuracy ----------------------------------------------------------


def schedule_with(
    warmup_value=lambda step, peak, warmup: peak * step / max(warmup, 1),
    fraction=lambda step, steps, warmup: (step - warmup) / (steps - warmup),
    shape=lambda f: (1 + np.cos(np.pi * f)) / 2,
):
    """A learning rate schedule, correct or not depending on its parts."""

    def cosine_schedule(step, steps, peak, warmup):
        if step < warmup:
            return warmup_value(step, peak, warmup)
        return peak * shape(fraction(step, steps, warmup))

    return cosine_schedule


WRONG["08", "cosine_schedule"] = [
    (schedule_with(shape=lambda f: 1 + np.cos(np.pi * f)), "halve 1 + cos"),
    (schedule_with(warmup_value=lambda step, peak, warmup: peak), "The warm-up is missing"),
    (schedule_with(fraction=lambda step, steps, warmup: step / steps), "count from step - warmup"),
    (
        schedule_with(fraction=lambda step, steps, warmup: (step - warmup) / steps),
        "takes steps - warmup steps",
    ),
    (schedule_with(shape=lambda f: (1 + np.cos(f)) / 2), "the angle should be np.pi"),
    (schedule_with(shape=lambda f: (1 + np.cos(180 * f)) / 2), "expects radians"),
    (schedule_with(shape=lambda f: 1 - f), "a straight line: use"),
    (schedule_with(shape=lambda f: np.cos(np.pi * f)), "becomes negative"),
    (
        schedule_with(warmup_value=lambda step, peak, warmup: peak * (step + 1) / max(warmup, 1)),
        "should give 0, 0.1, and 0.2",
    ),
    (schedule_with(shape=lambda f: 1 - f**2), "the steps 35, 60, and 110 should give"),
    (lambda step, steps, peak, warmup: str(peak), "one number"),
    (
        lambda step, steps, peak, warmup: min(
            peak * step / warmup,
            peak * (1 + np.cos(np.pi * max(0, step - warmup) / (steps - warmup))) / 2,
        ),
        "divides by 0",
    ),
]


# --- 09 read a page ----------------------------------------------------------------


def one_long_row(boxes):
    return [sorted(range(len(boxes)), key=lambda k: boxes[k, 1])]


def boxes_instead(boxes):
    return [[boxes[k] for k in (1, 5, 3)], [boxes[k] for k in (2, 4, 0, 6)]]


def one_flat_list(boxes):
    return sorted(range(len(boxes)), key=lambda k: (boxes[k, 0], boxes[k, 1]))


def group_by(height_of, boxes, step, key):
    rows, previous = [], -np.inf
    for k in sorted(range(len(boxes)), key=lambda k: height_of(boxes[k])):
        if height_of(boxes[k]) - previous >= step:
            rows.append([])
        rows[-1].append(k)
        previous = height_of(boxes[k])
    return [sorted(row, key=key) if key else row for row in rows]


def middle_of(box):
    return (box[0] + box[2]) / 2


def median_height(boxes):
    return np.median(boxes[:, 2] - boxes[:, 0])


def by_tops(boxes):
    step = median_height(boxes) / 2
    return group_by(lambda box: box[0], boxes, step, lambda k: boxes[k, 1])


def unsorted_rows(boxes):
    return group_by(middle_of, boxes, median_height(boxes) / 2, None)


def right_to_left(boxes):
    return group_by(middle_of, boxes, median_height(boxes) / 2, lambda k: -boxes[k, 1])


def bottom_to_top(boxes):
    return group_by(middle_of, boxes, median_height(boxes) / 2, lambda k: boxes[k, 1])[::-1]


def fixed_distance(boxes):
    return group_by(middle_of, boxes, 20, lambda k: boxes[k, 1])


def a_row_for_each(boxes):
    return [[k] for k in np.argsort(boxes[:, 0])]


def one_forgotten(boxes):
    return [[1, 5, 3], [4, 0, 6]]


def always_the_same(boxes):
    return [[1, 5, 3], [2, 4, 0, 6]]


WRONG["09", "sort_into_rows"] = [
    (one_long_row, "All boxes are in one row"),
    (boxes_instead, "Return positions"),
    (one_flat_list, "each row is a list of positions"),
    (by_tops, "not their tops"),
    (unsorted_rows, "from left to right"),
    (right_to_left, "from right to left"),
    (bottom_to_top, "wrong order"),
    (a_row_for_each, "Too many rows"),
    (one_forgotten, "exactly once"),
    (fixed_distance, "a larger one"),
    (always_the_same, "a larger one"),
]


# --- 10 scale out --------------------------------------------------------------------


def count_votes(votes):
    return np.stack([(votes == digit).sum(axis=0) for digit in range(10)], axis=1)


def largest_of_equals(votes):
    return 9 - count_votes(votes)[:, ::-1].argmax(axis=1)


def number_of_votes(votes):
    return count_votes(votes).max(axis=1)


def one_per_member(votes):
    return np.array([np.bincount(row).argmax() for row in votes])


def most_frequent_of_all(votes):
    return np.bincount(votes.ravel()).argmax()


def median_of_digits(votes):
    return np.median(votes, axis=0).astype(int)


WRONG["10", "majority_vote"] = [
    (count_votes, "counts for all ten digits"),
    (one_per_member, "count the members' votes for each image"),
    (most_frequent_of_all, "should have shape (5,)"),
    (number_of_votes, "numbers of votes"),
    (lambda votes: votes.mean(axis=0), "mean of the digits"),
    (lambda votes: votes[0], "the first member"),
    (lambda votes: votes.max(axis=0), "should give 2, and all five"),
    (largest_of_equals, "takes the largest one"),
    (median_of_digits, "the smallest digit should win"),
]


# --- 11 take it with you -----------------------------------------------------------


def float16_with(
    bias=15,
    one=1,
    divide=1024,
    mask=1023,
    tiny=2.0**-14,
    signed=True,
    shift=10,
    power=lambda e: 2.0**e,
):
    """A function that decodes float16, correct or not depending on its parts."""

    def decode_float16(bits):
        sign = -1 if signed and bits >> 15 else 1
        exponent, fraction = (bits >> shift) & 31, (bits & mask) / divide
        if exponent == 0 and tiny is not None:
            return sign * fraction * tiny
        return sign * (one + fraction) * power(exponent - bias)

    return decode_float16


WRONG["11", "decode_float16"] = [
    (float16_with(signed=False), "The sign is missing"),
    (float16_with(tiny=None), "e = 0 is a case of its own"),
    (float16_with(tiny=2.0**-15), "e = 0 is a case of its own"),
    (float16_with(one=0), "The 1 in front of the fraction"),
    (float16_with(bias=0), "32768 times too large"),
    (float16_with(bias=14), "2 times too large"),
    (float16_with(divide=1), "divide the fraction by 1024"),
    (float16_with(mask=65535), "Not right yet"),
    (float16_with(power=lambda e: 1.0 + e), "belongs to a power of two"),
    (float16_with(shift=9), "Not right yet"),
    (lambda bits: np.zeros(2), "should be one number"),
]


# --- the tests -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [path.name[:2] for path in NOTEBOOKS[1:]])
def test_checks_tell_right_from_wrong(number, capsys):
    space = definitions(number, DATA=ROOT / "data", data_name="MNIST")
    names = [name.removeprefix("check_") for name in space if name.startswith("check_")]
    assert names

    def verdict(name, answer):
        space[f"check_{name}"](answer)
        return capsys.readouterr().out

    for name in names:
        assert "Not done yet" in verdict(name, space[name])
        assert verdict(name, space[f"{name}_solution"]).startswith("Correct")
        wrong = WRONG[number, name]
        assert len(wrong) >= 3
        for answer, hint in wrong:
            said = verdict(name, answer)
            assert hint in said and "Correct" not in said, f"{answer.__name__}: {said}"
        assert len({verdict(name, answer) for answer, _ in wrong}) >= 3, "a hint for each mistake"


@pytest.mark.parametrize("number", [path.name[:2] for path in NOTEBOOKS[1:]])
def test_checks_survive_any_answer(number, capsys):
    """An exception, a text, a wrong shape: a sentence, and never an error."""
    space = definitions(number, DATA=ROOT / "data", data_name="MNIST")

    def fails(*arguments, **options):
        raise ZeroDivisionError("not what you expect")

    answers = (fails, lambda *a, **o: "text", lambda *a, **o: np.zeros((3, 1, 2)), lambda: 1)
    for name in [name for name in space if name.startswith("check_")]:
        for answer in answers:
            space[name](answer)
            said = capsys.readouterr().out
            assert said.strip() and "Correct" not in said, said
