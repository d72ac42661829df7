"""data/get_mnist.py: every state that data/mnist.npz and the network can be in."""

import functools
import gzip
import http.server
import io
import threading

import get_mnist
import numpy as np
import pytest
from conftest import HAS_MNIST, ROOT


@pytest.fixture
def arrays():
    """Four small arrays of MNIST's kind."""
    random = np.random.default_rng(0)
    images = random.integers(256, size=(30, 28, 28), dtype=np.uint8)
    labels = random.integers(10, size=30, dtype=np.uint8)
    return images[:20], labels[:20], images[20:], labels[20:]


@pytest.fixture
def folder(tmp_path, arrays, monkeypatch):
    """An empty data folder, in a world where the small arrays are MNIST and nothing is online."""
    monkeypatch.setattr(get_mnist, "DATA", tmp_path)
    monkeypatch.setattr(get_mnist, "MNIST_SHA256", get_mnist.digest(arrays))
    monkeypatch.setattr(get_mnist, "KERAS_URL", "http://127.0.0.1:9/mnist.npz")
    monkeypatch.setattr(get_mnist, "IDX_URLS", ["http://127.0.0.1:9/idx.gz"] * 4)
    return tmp_path


def npz(arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **dict(zip(get_mnist.KEYS, arrays, strict=True)))
    return file.getvalue()


def idx(array):
    head = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(head + array.tobytes())


@pytest.fixture
def serve(tmp_path_factory, monkeypatch):
    """Serve files {name: bytes} on the loopback; `cut` of them break off in the middle."""
    servers = []

    def start(files, cut=()):
        root = tmp_path_factory.mktemp("served")
        for name, body in files.items():
            (root / name).write_bytes(body)

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def copyfile(self, source, target):
                body = source.read()
                short = self.path.strip("/") in cut
                target.write(body[: len(body) // 2] if short else body)

        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=root)
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(get_mnist, "KERAS_URL", f"{address}/mnist.npz")
        monkeypatch.setattr(
            get_mnist, "IDX_URLS", [f"{address}/{key}.gz" for key in get_mnist.KEYS]
        )

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def only(folder):
    return [path.name for path in folder.iterdir()]


def test_downloads_verifies_and_then_does_nothing(folder, arrays, serve, capsys):
    serve({"mnist.npz": npz(arrays)})
    assert get_mnist.main([]) == 0
    assert only(folder) == ["mnist.npz"]
    assert all(map(np.array_equal, get_mnist.read(folder / "mnist.npz"), arrays))
    written = (folder / "mnist.npz").stat()
    capsys.readouterr()
    assert get_mnist.main([]) == 0
    assert (folder / "mnist.npz").stat() == written
    assert "Downloading" not in capsys.readouterr().out


@pytest.mark.parametrize("first", ["missing", "cut", "wrong"])
def test_falls_back_to_the_mirror(folder, arrays, serve, first, capsys):
    files = {f"{key}.gz": idx(array) for key, array in zip(get_mnist.KEYS, arrays, strict=True)}
    if first == "cut":
        files["mnist.npz"] = npz(arrays)
    if first == "wrong":
        files["mnist.npz"] = npz([255 - array for array in arrays])
    serve(files, cut=("mnist.npz",) if first == "cut" else ())
    assert get_mnist.main([]) == 0
    assert all(map(np.array_equal, get_mnist.read(folder / "mnist.npz"), arrays))
    assert "failed" in capsys.readouterr().out


def test_a_download_that_breaks_off_leaves_nothing(folder, arrays, serve, capsys):
    files = {f"{key}.gz": idx(array) for key, array in zip(get_mnist.KEYS, arrays, strict=True)}
    serve(files | {"mnist.npz": npz(arrays)}, cut=("mnist.npz", "y_test.gz"))
    assert get_mnist.main([]) == 1
    assert only(folder) == []
    shown = capsys.readouterr()
    assert "the download stopped after" in shown.out and "Check the network" in shown.err


def test_no_network(folder, capsys):
    assert get_mnist.main([]) == 1
    assert only(folder) == []
    error = capsys.readouterr().err
    assert "could not be downloaded" in error and "copy an mnist.npz" in error


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda body, arrays: body[: len(body) // 2], "cannot be read"),
        (lambda body, arrays: b"", "not an .npz archive"),
        (lambda body, arrays: b"<html>please log in</html>", "not an .npz archive"),
        (lambda body, arrays: npz([255 - array for array in arrays]), "not MNIST's"),
        (lambda body, arrays: npz([array[:5] for array in arrays]), "5 × 28 × 28"),
        (lambda body, arrays: npz([array.reshape(len(array), -1) for array in arrays]), "20 × 784"),
        (lambda body, arrays: npz([*arrays[:2], arrays[2].reshape(-1, 784), arrays[3]]), "not MN"),
        (lambda body, arrays: npz([arrays[0].reshape(-1, 14, 56), *arrays[1:]]), "× 14 × 56"),
        (lambda body, arrays: npz([array.astype(int) for array in arrays]), "int64"),
    ],
    ids=["truncated", "empty", "text", "other pixels", "too few", "flat", "flat test images"]
    + ["other frame", "other type"],
)
def test_a_wrong_file_is_neither_used_nor_replaced(folder, arrays, serve, spoil, reason, capsys):
    serve({"mnist.npz": npz(arrays)})
    path = folder / "mnist.npz"
    path.write_bytes(bad := spoil(npz(arrays), arrays))
    assert get_mnist.main([]) == 2
    assert path.read_bytes() == bad
    error = capsys.readouterr().err
    assert reason in error and "Move it away or delete it" in error
    assert "pickle" not in error and "unsafe" not in error, "NumPy's advice is not passed on"


def test_the_message_describes_the_training_images(folder, arrays, capsys):
    x_train = arrays[0][:, :20].astype("float32")
    others = dict(zip(get_mnist.KEYS[1:], arrays[1:], strict=True))
    np.savez(folder / "mnist.npz", x_train=x_train, **others)
    assert get_mnist.main([]) == 2
    assert "(x_train: 20 × 20 × 28, float32)" in capsys.readouterr().err


def test_a_file_without_an_array(folder, arrays, capsys):
    np.savez(folder / "mnist.npz", x_train=arrays[0])
    assert get_mnist.main([]) == 2
    assert "no array y_train" in capsys.readouterr().err


def test_a_folder_in_place_of_the_file(folder, capsys):
    (folder / "mnist.npz").mkdir()
    assert get_mnist.main([]) == 2
    assert (folder / "mnist.npz").is_dir()
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    "fault", [PermissionError(13, "Permission denied"), OSError(28, "No space")]
)
def test_a_full_disk_or_closed_folder(folder, arrays, serve, monkeypatch, fault, capsys):
    serve({"mnist.npz": npz(arrays)})

    def half_way(file, **arrays):
        file.write(b"half")
        raise fault

    monkeypatch.setattr(get_mnist.np, "savez_compressed", half_way)
    assert get_mnist.main([]) == 1
    assert only(folder) == []
    assert fault.strerror in capsys.readouterr().err


def test_the_stand_in_is_made_as_mnist_was(stand_in):
    from scipy.ndimage import center_of_mass

    with np.load(stand_in) as file:
        parts = {key: file[key] for key in get_mnist.KEYS}
    assert len(parts["x_train"]) + len(parts["x_test"]) == 1797
    images = np.concatenate([parts["x_train"], parts["x_test"]])
    assert images.dtype == np.uint8 and images.shape[1:] == (28, 28)
    for image in images[::50]:
        rows, columns = np.nonzero(image)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert max(height, width) <= 20 and max(height, width) >= 18
        assert np.allclose(center_of_mass(image), 13.5, atol=1)
    for labels in (parts["y_train"], parts["y_test"]):
        assert np.bincount(labels, minlength=10).min() > 0.08 * len(labels)


def test_the_stand_in_is_cropped_scaled_and_centered(monkeypatch):
    """Digits of 8×8 pixels that are blocks and corners of full ink: what becomes of them?"""
    from types import SimpleNamespace

    import sklearn.datasets

    small = np.zeros((4, 8, 8))
    small[0, 1:7, 3:5] = 16  # tall: 6 × 2
    small[1, 3:4, 0:5] = 16  # wide: 1 × 5
    small[2, 0:8, 0:8] = 16  # fills everything
    small[3, 2:6, 2:3] = small[3, 5:6, 2:6] = 16  # an L, whose center of mass is low and left
    digits = SimpleNamespace(images=np.tile(small, (200, 1, 1)), target=np.tile(range(4), 200))
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: digits)
    parts = get_mnist.stand_in()
    assert list(parts) == list(get_mnist.KEYS)
    assert [len(parts[key]) for key in get_mnist.KEYS] == [400] * 4
    assert all(array.dtype == np.uint8 for array in parts.values())
    for kind, top, bottom, left, right in [
        (0, 4, 24, 10, 17),  # 20 × 7
        (1, 12, 16, 4, 24),  # 4 × 20
        (2, 4, 24, 4, 24),
        (3, 1, 21, 7, 27),
    ]:
        for part in ("train", "test"):
            images = parts[f"x_{part}"][parts[f"y_{part}"] == kind]
            assert len(images) == 100, "as many of each digit in both parts"
            assert (images == images[0]).all()
            assert images.max() == 255 and images[:, top:bottom, left:right].any(axis=0).sum() > 50
            rows, columns = np.nonzero(images[0])
            box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
            assert box == (top, bottom, left, right), kind
    assert (parts["x_train"][parts["y_train"] == 2][0, 6:22, 6:22] > 250).all()
    again = get_mnist.stand_in()
    assert all(np.array_equal(parts[key], again[key]) for key in parts), "always the same split"


def test_the_stand_in_has_a_file_of_its_own(folder, monkeypatch, arrays, capsys):
    made = dict(zip(get_mnist.KEYS, arrays, strict=True))
    monkeypatch.setattr(get_mnist, "stand_in", lambda: made)
    assert get_mnist.main(["--stand-in"]) == 0
    assert only(folder) == ["stand-in.npz"]
    with np.load(folder / "stand-in.npz") as file:
        assert all(np.array_equal(file[key], made[key]) for key in get_mnist.KEYS)
    assert f"A small stand-in for MNIST is in {folder / 'stand-in.npz'}." in capsys.readouterr().out


@pytest.mark.parametrize("head", [b"\0\0\x09", b"\0\0\x07", b"\x01\0\x08", b"\0\x01\x08"])
def test_what_is_no_file_of_bytes_is_refused(head):
    good = gzip.decompress(idx(np.zeros((2, 3), np.uint8)))
    assert get_mnist.parse_idx(gzip.compress(good)).shape == (2, 3)
    with pytest.raises(OSError, match="not an IDX file of bytes"):
        get_mnist.parse_idx(gzip.compress(head + good[3:]))


@pytest.mark.parametrize("fingerprint", ["0" * 64, "f" * 64])
def test_other_files_from_the_mirror_are_refused(arrays, monkeypatch, fingerprint):
    """Whether their fingerprint is larger or smaller than MNIST's."""
    bodies = iter([idx(array) for array in arrays])
    monkeypatch.setattr(get_mnist, "download", lambda url: next(bodies))
    monkeypatch.setattr(get_mnist, "MNIST_SHA256", fingerprint)
    with pytest.raises(get_mnist.WrongFileError, match="the downloaded files are not MNIST"):
        get_mnist.from_idx()


def test_the_data_card_names_the_fingerprint():
    card = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert get_mnist.MNIST_SHA256 in card


@pytest.mark.skipif(not HAS_MNIST, reason="data/mnist.npz is not here: make run fetches it")
def test_the_data_card_is_true_of_the_real_file():
    import hashlib

    card = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    arrays = get_mnist.read(ROOT / "data" / "mnist.npz")
    for key, array in zip(get_mnist.KEYS, arrays, strict=True):
        assert f"| `{key}` | {' × '.join(map(str, array.shape))} |" in card
        head = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes()
        assert hashlib.sha256(head + array.tobytes()).hexdigest() in card
