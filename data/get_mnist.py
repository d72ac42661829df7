"""Download MNIST to data/mnist.npz, complete and verified, or make a stand-in for it.

    python data/get_mnist.py              keep a valid file, otherwise download one
    python data/get_mnist.py --stand-in   make data/stand-in.npz from scikit-learn's digits

Exit status: 0 if there is a valid file; 1 if nothing could be downloaded or written; 2 if the
existing file is not MNIST (it is left as it is).
"""

import argparse
import gzip
import hashlib
import io
import os
import sys
import urllib.request
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parent
KEYS = ("x_train", "y_train", "x_test", "y_test")
# SHA-256 of the bytes of the four arrays, one after the other, in the order of KEYS. It is computed
# from the arrays and not from the file, because archives of the same arrays can differ.
MNIST_SHA256 = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"

KERAS_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
IDX_URLS = [
    f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz"
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
]


class WrongFileError(Exception):
    """A file exists, but it is not MNIST."""


def digest(arrays):
    """Return the SHA-256 of the arrays' bytes, in order, as 64 hexadecimal digits."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array, dtype=np.uint8))
    return sha.hexdigest()


def read(file):
    """Read the four uint8 arrays of MNIST from an .npz file or file object, and verify them.

    Raises WrongFileError with the reason if the file cannot be read or contains something else.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = [archive[key] for key in KEYS]
    except KeyError as error:
        raise WrongFileError(f"it has no array {error.args[0].split()[0]}") from None
    except (ValueError, EOFError):  # NumPy's own message advises loading it unsafely
        raise WrongFileError("it is not an .npz archive of numbers") from None
    except Exception as error:  # a damaged archive can fail in many ways
        raise WrongFileError(f"it cannot be read ({type(error).__name__}: {error})") from None
    shapes = [array.shape[1:] for array in arrays]
    as_in_mnist = all(array.dtype == np.uint8 for array in arrays)
    if not as_in_mnist or shapes != [(28, 28), (), (28, 28), ()] or digest(arrays) != MNIST_SHA256:
        shape = " × ".join(map(str, arrays[0].shape))
        raise WrongFileError(f"its arrays are not MNIST's (x_train: {shape}, {arrays[0].dtype})")
    return arrays


def download(url):
    """Return the bytes at `url`, and print the progress of the download."""
    print(f"Downloading {url}")
    request = urllib.request.Request(url, headers={"User-Agent": "get_mnist.py"})
    with urllib.request.urlopen(request, timeout=30) as response:
        total = int(response.headers.get("Content-Length") or 0)
        body = bytearray()
        while block := response.read(1 << 20):
            body += block
            print(f"  {len(body) / 1e6:.1f} MB", end="\r", flush=True)
    print()
    if total and len(body) < total:
        raise OSError(f"the download stopped after {len(body):,} of {total:,} bytes")
    return bytes(body)


def parse_idx(body):
    """Turn a gzipped IDX file (the format MNIST was published in) into a uint8 array.

    The file has two zero bytes, the type (8 for uint8), the number of axes, the length of each axis
    as a big-endian int32, and then the values.
    """
    raw = gzip.decompress(body)
    if raw[:3] != b"\0\0\x08":
        raise OSError("this is not an IDX file of bytes")
    axes = raw[3]
    shape = np.frombuffer(raw, ">i4", count=axes, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def from_keras():
    """Download MNIST as one .npz file and return its four arrays, verified.

    Raises OSError if the download fails, WrongFileError as `read` does.
    """
    return read(io.BytesIO(download(KERAS_URL)))


def from_idx():
    """Download MNIST as its four original files and return their arrays, verified.

    Raises OSError if a download fails, WrongFileError if the arrays are not MNIST's.
    """
    arrays = [parse_idx(download(url)) for url in IDX_URLS]
    if digest(arrays) != MNIST_SHA256:
        raise WrongFileError("the downloaded files are not MNIST")
    return arrays


def write(path, **arrays):
    """Write an .npz file to a temporary name, then rename it: `path` is complete or unchanged."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # no other process has this name
    try:
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
        part.replace(path)
    finally:
        if part.exists():
            part.unlink()


def stand_in():
    """Make a small stand-in for MNIST from scikit-learn's 1,797 digits of 8×8 pixels.

    Each digit is brought into the form of MNIST: it is cropped, scaled to fit a box of 20×20, and
    placed in 28×28 pixels so that its center of mass is at the center. Returns a dict with the keys
    of mnist.npz and uint8 arrays.
    """
    from scipy.ndimage import center_of_mass
    from skimage.transform import resize
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.zeros((len(digits.images), 28, 28), np.uint8)
    for small, image in zip(digits.images / 16, images, strict=True):
        rows, columns = np.nonzero(small)
        box = small[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        scale = 20 / max(box.shape)
        shape = [max(1, round(scale * side)) for side in box.shape]
        box = resize(box, shape, order=3, mode="constant").clip(0, 1)
        # The top left corner that puts the center of mass at the center, kept inside the image.
        corner = [
            int(np.clip(round(13.5 - center), 0, 28 - side))
            for center, side in zip(center_of_mass(box), shape, strict=True)
        ]
        image[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]] = 255 * box
    x_train, x_test, y_train, y_test = train_test_split(
        images,
        digits.target.astype(np.uint8),
        test_size=400,
        stratify=digits.target,
        random_state=0,
    )
    return dict(zip(KEYS, (x_train, y_train, x_test, y_test), strict=True))


def get_mnist(path):
    """Make sure that MNIST is at `path`.

    Raises WrongFileError if `path` is something else, OSError if nothing could be downloaded or
    written. In both cases `path` is left as it was.
    """
    if path.exists():
        read(path)
        print(f"MNIST is in {path}, complete and verified.")
        return
    failures = []
    for source in (from_keras, from_idx):
        try:
            arrays = source()
            break
        except Exception as error:  # a broken download can fail in many ways
            print(f"  failed: {error}")
            failures.append(str(error))
    else:
        raise OSError("MNIST could not be downloaded (" + "; ".join(failures) + ")")
    write(path, **dict(zip(KEYS, arrays, strict=True)))
    print(f"MNIST is now in {path}, complete and verified.")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Download MNIST to data/mnist.npz.")
    parser.add_argument("--stand-in", action="store_true", help="make data/stand-in.npz instead")
    path = DATA / "mnist.npz"
    try:
        if parser.parse_args(arguments).stand_in:
            path = DATA / "stand-in.npz"
            write(path, **stand_in())
            print(f"A small stand-in for MNIST is in {path}.")
        else:
            get_mnist(path)
    except WrongFileError as error:
        print(f"{path} is not MNIST: {error}.", file=sys.stderr)
        print("Move it away or delete it, then run this again.", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{path} was not written: {error}.", file=sys.stderr)
        print(
            "Check the network, the free disk space, and the folder's permissions, or copy an"
            f" mnist.npz from another machine to {path}.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
