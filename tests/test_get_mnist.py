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
        (lambda body, arrays: npz([array.astype(int) for array in arrays]), "int64"),
    ],
    ids=["truncated", "empty", "text", "other pixels", "too few", "flat", "other type"],
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
