"""Faults that happen: kills, full disks, closed folders, damaged files, odd clocks and paths."""

import ast
import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import get_mnist
import numpy as np
import pandas as pd
import pytest
from conftest import HAS_MNIST, NOTEBOOKS, ROOT, code_cells, copy_tree, definitions, read
from nbclient import NotebookClient

LONG_AGO, FAR_AHEAD = 400_000_000, 4_000_000_000  # seconds since 1970: in 1982, in 2096


def script(number, **changes):
    """Return the code of a notebook as one script; `changes` are for the sake of speed."""
    path = next(path for path in NOTEBOOKS if path.name.startswith(number))
    source = "\n\n".join(cell.source for cell in code_cells(read(path)))
    for old, new in changes.values():
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    return source


def source_of(number, name):
    """Return the text of a function of a notebook, for a process that needs nothing else of it."""
    path = next(path for path in NOTEBOOKS if path.name.startswith(number))
    for cell in code_cells(read(path)):
        if f"def {name}(" in cell.source:
            for node in ast.parse(cell.source).body:
                if getattr(node, "name", "") == name:
                    return ast.get_source_segment(cell.source, node)
    raise LookupError(name)


def environment(**given):
    """Return this process's environment, without display, network, or folders chosen in it."""
    nowhere = "http://127.0.0.1:9"
    chosen = {"DIGITS_DATA", "KERAS_HOME", "MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"}
    rest = {key: value for key, value in os.environ.items() if key not in chosen}
    return rest | {"MPLBACKEND": "agg", "https_proxy": nowhere, "http_proxy": nowhere} | given


def run_python(code, folder, user=None, **variables):
    """Run Python code in a folder; return its exit status and what it said, errors included."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=600,
        **(user or {}),
    )
    return done.returncode, done.stdout


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def writing():
    """write_atomically and build_cnn of notebook 03, and what they need."""
    return definitions("03", "write_atomically", "build_cnn")


# --- 1. A kill at any moment of the training ---------------------------------------------------

# Of notebook 04 only the range test is shortened: it leaves nothing behind.
SHORT_RANGE = {"range": ("1e-1, 150)", "1e-1, 3)")}
FEW_EPOCHS = {"epochs": ('"epochs": 14', '"epochs": 2')}


@pytest.fixture
def training_folder(tmp_path, stand_in):
    """Return a function that makes a folder in which notebook 04 can run."""

    def make(name, **changes):
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True)
        (folder / "training.py").write_text(script("04", **changes), encoding="utf-8")
        return folder

    return make


def start(folder, stand_in, log):
    """Start the training; what it says goes into the file `log`."""
    return subprocess.Popen(
        [sys.executable, "-u", "training.py"],
        cwd=folder,
        env=environment(DIGITS_DATA=str(stand_in)),
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
    )


def wait_until(condition, process, log):
    """Wait until the condition holds. Returns whether it did before the process ended."""
    deadline = time.monotonic() + 900
    while not condition():
        if process.poll() is not None:
            return condition()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
    return True


def finish(folder, stand_in, log):
    """Run the training to its end; return what it said."""
    assert start(folder, stand_in, log).wait(timeout=600) == 0, log.read_text()
    return log.read_text()


def check_whole(folder, epochs):
    """Check what a finished training has left; return its model."""
    import keras

    data = folder / "data"
    assert names(data) == ["history.csv", "model.keras"]
    history = pd.read_csv(data / "history.csv")
    assert list(history["epoch"]) == list(range(1, epochs + 1)), "each epoch exactly once"
    assert history.notna().all(axis=None)
    return keras.models.load_model(data / "model.keras")


@pytest.mark.slow
def test_twenty_kills_at_random_moments(tmp_path, stand_in, training_folder):
    """Ten before the training begins, and ten in it, at moments that chance has chosen."""
    log = tmp_path / "log.txt"
    undisturbed = training_folder("undisturbed", **SHORT_RANGE)
    process, began = start(undisturbed, stand_in, log), time.monotonic()
    assert wait_until(lambda: "Epoch 1/" in log.read_text(), process, log), log.read_text()
    until_training = time.monotonic() - began
    assert wait_until(lambda: "Epoch 3/" in log.read_text(), process, log), log.read_text()
    two_epochs = time.monotonic() - began - until_training
    assert process.wait(timeout=600) == 0, log.read_text()

    killed = training_folder("killed", **SHORT_RANGE)
    chance = random.Random(4)
    early = [True] * 10 + [False] * 10
    chance.shuffle(early)
    said = []
    for before_training in early:
        process = start(killed, stand_in, log)
        if before_training:
            time.sleep(chance.uniform(0, until_training))
        else:
            wait_until(lambda: re.search(r"^Epoch \d", log.read_text(), re.M), process, log)
            time.sleep(chance.uniform(0, two_epochs))
        process.kill()
        process.wait()
        said.append(log.read_text())
        for path in killed.glob("data/*"):  # nothing half-written has a final name
            assert path.is_dir() or "unfinished" in path.name
    assert sum("Epoch " in text for text in said) >= 5, "most of the late kills hit the training"
    assert any("continuing after epoch" in text for text in said)
    last = finish(killed, stand_in, log)
    assert "continuing after epoch" in last

    with np.load(stand_in) as file:
        images, labels = file["x_test"][..., np.newaxis].astype("float32") / 255, file["y_test"]
    right = [
        np.mean(check_whole(folder, 14).predict(images, verbose=0).argmax(axis=1) == labels)
        for folder in (undisturbed, killed)
    ]
    print(f"test accuracy: {right[0]:.4f} undisturbed, {right[1]:.4f} after twenty kills")
    assert min(right) > 0.9
    assert right[1] > right[0] - 0.03, "as good as undisturbed"


# Kills the process before it calls a function for the nth time, counted from 0.
TRAP = """
import itertools, os, pathlib, signal
def kill_before(place, name, n, real):
    calls = itertools.count()
    def counting(*arguments, **options):
        if next(calls) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(place, name, counting)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name", "n", "finished"),
    [
        ("pathlib.Path", "replace", 0, []),
        ("pathlib.Path", "replace", 1, ["model.keras"]),
        ("os", "unlink", 0, ["history.csv", "model.keras"]),
        ("os", "unlink", 3, ["history.csv", "model.keras"]),
    ],
    ids=["no file named", "one named", "both named", "folder half deleted"],
)
def test_a_kill_when_all_epochs_are_done(
    tmp_path, stand_in, training_folder, place, name, n, finished
):
    log = tmp_path / "log.txt"
    folder = training_folder("killed", **SHORT_RANGE, **FEW_EPOCHS)
    source = (folder / "training.py").read_text(encoding="utf-8")
    last = source.index('write_atomically(DATA / "model.keras"')
    trap = f'{TRAP}\nkill_before({place}, "{name}", {n}, {place}.{name})\n'
    (folder / "training.py").write_text(source[:last] + trap + source[last:], encoding="utf-8")
    assert start(folder, stand_in, log).wait(timeout=600) == -signal.SIGKILL, log.read_text()
    assert list(folder.glob("data/training-*")), "the kill came too late"
    left = [path.name for path in folder.glob("data/[hm]*") if "plain" not in path.name]
    assert sorted(left) == finished
    (folder / "training.py").write_text(source, encoding="utf-8")
    finish(folder, stand_in, log)
    for rest in folder.glob("data/unfinished-*"):  # the killed process had no time to delete it
        rest.unlink()
    check_whole(folder, 2)


# --- 2. A full disk ----------------------------------------------------------------------------


@pytest.fixture
def full_disk(writing):
    """Return a function that lets no file grow beyond a size, as a full disk would."""
    resource = pytest.importorskip("resource", reason="needs a system with limits for processes")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error instead of a death
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 1, 1000, 300_000])
@pytest.mark.parametrize("name", ["model.keras", "result.csv"])
def test_a_full_disk_leaves_the_old_file(tmp_path, writing, full_disk, name, size):
    path = tmp_path / name
    path.write_bytes(b"the old file")
    result = pd.DataFrame({"ImageId": np.arange(1, 60_001), "Label": 7})
    write = {
        "model.keras": writing["build_cnn"]().save,
        "result.csv": lambda path: result.to_csv(path, index=False),
    }[name]
    full_disk(size)
    with pytest.raises(OSError) as failure:
        writing["write_atomically"](path, write)
    full_disk(100_000_000)
    assert str(failure.value).startswith(f"{path} could not be written: ")
    assert "Free some disk space" in str(failure.value)
    assert path.read_bytes() == b"the old file"
    assert names(tmp_path) == [name]
    writing["write_atomically"](path, write)  # and when there is room again
    assert path.stat().st_size > 300_000


@pytest.mark.parametrize("size", [0, 1000])
def test_a_full_disk_when_the_data_are_written(tmp_path, monkeypatch, full_disk, capsys, size):
    monkeypatch.setattr(get_mnist, "DATA", tmp_path)
    (tmp_path / "stand-in.npz").write_bytes(b"the old file")
    full_disk(size)
    status = get_mnist.main(["--stand-in"])
    full_disk(100_000_000)
    assert status == 1
    assert (tmp_path / "stand-in.npz").read_bytes() == b"the old file"
    assert names(tmp_path) == ["stand-in.npz"]
    message = capsys.readouterr().err
    assert "stand-in.npz was not written" in message and "free disk space" in message


@pytest.mark.parametrize("size", [0, 500])
def test_a_full_disk_leaves_the_old_page(tmp_path, monkeypatch, full_disk, size):
    import run

    monkeypatch.setattr(run, "PAGES", tmp_path)
    (tmp_path / "index.html").write_text("the old page")
    full_disk(size)
    with pytest.raises(OSError):
        run.write_index({}, {}, "what was found")
    full_disk(100_000_000)
    assert (tmp_path / "index.html").read_text() == "the old page"
    assert names(tmp_path) == ["index.html"]
    run.write_index({}, {}, "what was found")
    assert "what was found" in (tmp_path / "index.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("size", ["100k", "4m"])
def test_a_training_on_a_disk_that_is_full(tmp_path, stand_in, training_folder, size):
    """A disk of its own, of that size: the message comes before the training, not after it."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"]).returncode:
        pytest.skip("this system lends no disk without the superuser: unshare -rm fails")
    code = training_folder("full", **SHORT_RANGE, **FEW_EPOCHS) / "training.py"
    run = f"cd {tmp_path}/disk && {sys.executable} {code}"
    steps = f"""
        mkdir {tmp_path}/disk && mount -t tmpfs -o size={size} tmpfs {tmp_path}/disk
        mkdir {tmp_path}/disk/data
        ({run}); echo "first: $?"; find {tmp_path}/disk/data -type f
        mount -o remount,size=100m {tmp_path}/disk
        ({run}); echo "second: $?"; ls {tmp_path}/disk/data
    """
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", steps],
        env=environment(DIGITS_DATA=str(stand_in)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    first, _, second = done.stdout.partition("first: 1\n")
    assert "No space left on device. Free some disk space" in first.splitlines()[-1], done.stdout
    assert "Epoch 1/" not in first
    assert not second.startswith(str(tmp_path)), "nothing half-written is left"
    assert second.endswith("second: 0\nhistory.csv\nmodel.keras\n"), done.stdout


def test_stopping_while_a_file_is_written_leaves_nothing(tmp_path, writing):
    def stopped(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writing["write_atomically"](tmp_path / "result.csv", stopped)
    assert names(tmp_path) == []


# --- 3. Two at once ----------------------------------------------------------------------------

WRITE_TEXT = """
for count in range(300):
    write_atomically(Path("shared"), lambda part: part.write_text({digit!r} * 500_000))
"""
WRITE_ARRAYS = """
import numpy as np, get_mnist
images = np.full((200, 28, 28), {digit}, np.uint8)
for count in range(300):
    get_mnist.write(Path("shared"), images=images, labels=images[:, 0, 0])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows does not replace open files")
@pytest.mark.parametrize(
    "code", [WRITE_TEXT, WRITE_ARRAYS], ids=["write_atomically", "get_mnist.write"]
)
def test_two_processes_write_the_same_file(tmp_path, code):
    path = tmp_path / "shared"
    head = f"import os\nfrom pathlib import Path\n{source_of('03', 'write_atomically')}\n"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", head + code.format(digit=digit)],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(ROOT / "data")),
            stderr=subprocess.PIPE,
            text=True,
        )
        for digit in "37"
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if not path.exists():
            continue
        if code is WRITE_TEXT:
            text = path.read_text()
            assert len(text) == 500_000 and len(set(text)) == 1, "a mixture, or a part"
            seen.add(text[0])
        else:
            with np.load(path) as file:
                assert file["images"].shape == (200, 28, 28)
                assert set(file["images"].flat) == set(file["labels"])
                seen.add(str(file["labels"][0]))
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], "".join(errors)
    assert seen == {"3", "7"}, "the reader should have met both writers' files"
    assert names(tmp_path) == ["shared"]


HOLD_LOCK = """
import errno, os, time
from pathlib import Path
{hold_lock}
lock = hold_lock(Path("unfinished.lock"))
print("held", flush=True)
time.sleep(600)
"""


def test_one_training_run_at_a_time(tmp_path):
    """A lock that another process holds is an error; when that process is killed, it is free."""
    hold_lock = definitions("04", "hold_lock", os=os)["hold_lock"]
    code = HOLD_LOCK.format(hold_lock=source_of("04", "hold_lock"))
    other = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(RuntimeError, match="Another run of this notebook"):
            hold_lock(tmp_path / "unfinished.lock")
    finally:
        other.kill()
        other.communicate()
    hold_lock(tmp_path / "unfinished.lock").close()
    hold_lock(tmp_path / "unfinished.lock").close()


# --- 4. A folder that cannot be written --------------------------------------------------------


def obey_permissions():
    """Make the superuser's next program obey the permissions of files, as other users' do."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        LIBC.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@pytest.fixture
def closed():
    """A new folder; a function that closes it; and how to start a process that respects that."""
    folder = Path(tempfile.mkdtemp(prefix="closed-"))
    superuser = hasattr(os, "geteuid") and os.geteuid() == 0
    user = {"preexec_fn": obey_permissions} if superuser and LIBC else {}

    def close():
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        status, said = run_python("open('x', 'w')", folder, user)
        if status == 0:
            pytest.skip("this user can write into any folder")
        assert "PermissionError" in said

    yield folder, close, user
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_nothing_can_be_written_into_a_closed_folder(closed, stand_in):
    """Notebook 06 as a script, and 04's check before the training."""
    folder, close, user = closed
    shutil.copy(stand_in, folder / "stand-in.npz")
    (folder / "data").mkdir()
    (folder / "data" / "result.csv").write_text("the old file")
    close()
    data = str(folder / "stand-in.npz")
    status, said = run_python(script("06"), folder, user, DIGITS_DATA=data)
    assert status == 1
    assert "This is stand-in" in said, "reading is allowed"
    assert re.search(r"OSError: data/result\.csv could not be written: .*Permission denied", said)
    assert said.strip().endswith("make the folder writable, and run this cell again.")
    assert (folder / "data" / "result.csv").read_text() == "the old file"
    assert names(folder / "data") == ["result.csv"]

    check = script("04")
    check = check[check.index("def make_room") : check.index("if not finished:")]
    head = 'import json, os, shutil\nfrom pathlib import Path\nfolder = Path("data/training-1")\n'
    functions = [source_of("04", "write_atomically"), source_of("04", "finished_epochs")]
    status, said = run_python(head + "\n".join([*functions, check]), folder, user)
    assert status == 1
    assert "OSError: data/training-1/room could not be written" in said
    assert "make the folder writable" in said


@pytest.mark.parametrize("number", ["07", "09"])
def test_no_folder_for_my_digits_can_be_made(number, tmp_path):
    """A file is where the data folder should be: that stops the superuser, too."""
    (tmp_path / "data").touch()
    path = next(path for path in NOTEBOOKS if path.name.startswith(number))
    (code,) = (c.source for c in code_cells(read(path)) if "# @title Read the files" in c.source)
    with pytest.raises(OSError, match="my-digits'. Make .*data writable, and run this cell again"):
        exec(code, {"DATA": tmp_path / "data"})


@pytest.mark.slow
def test_the_runner_in_a_closed_folder(closed, stand_in):
    folder, close, user = closed
    tree = copy_tree(folder / "tree")
    (tree / "data" / "mnist.npz").unlink(missing_ok=True)
    shutil.copy(stand_in, folder / "mine.npz")
    for path in (tree / "notebooks").iterdir():
        if path.name[:2] != "06":
            path.unlink()
    before = names(tree / "data")
    (folder / "home").mkdir()
    close()
    home = {"HOME": str(folder / "home")}  # closed, too
    run = [f"import runpy; runpy.run_path({str(tree / 'run.py')!r}, run_name='__main__')", tree]
    # No data and no network: not even the stand-in can be written.
    status, said = run_python(*run, user, **home)
    assert status == 1, said
    assert "mnist.npz was not written" in said and "the folder's permissions" in said
    # With data, but no place for the pages.
    given = home | {"DIGITS_DATA": str(folder / "mine.npz")}
    status, said = run_python(*run, user, **given)
    assert status == 1, said
    assert "Permission denied" in said and "pages" in said
    assert "make the folder writable, and run this again" in said and "Traceback" not in said
    # With a place for the pages, but none for result.csv.
    tree.chmod(0o777)
    status, said = run_python(*run, user, **given)
    assert status == 1, said
    assert "06-predict-and-save.ipynb failed in code cell" in said, said
    assert "result.csv could not be written" in said and "make the folder writable" in said
    assert "not a writable location" not in said and "temporary cache directory" not in said
    assert names(tree / "data") == before and names(folder / "home") == []


# --- 5. A byte of the data changed -------------------------------------------------------------


@pytest.mark.skipif(not HAS_MNIST, reason="data/mnist.npz is not here: make run fetches it")
def test_one_changed_byte_never_gives_other_digits(tmp_path, monkeypatch):
    monkeypatch.delenv("DIGITS_DATA", raising=False)
    load_digits = definitions("01", "load_digits", "MNIST_SHA256", DATA=tmp_path)["load_digits"]
    good = (ROOT / "data" / "mnist.npz").read_bytes()
    arrays = get_mnist.read(ROOT / "data" / "mnist.npz")
    path, size = tmp_path / "mnist.npz", len(good)
    directory = good.rindex(b"PK\x01\x02", 0, good.rindex(b"PK\x05\x06"))
    chance = random.Random(5)
    places = [*range(0, 60, 10), size - 1, *range(size - 22, size, 7)]
    places += chance.sample(range(directory, size), 6) + chance.sample(range(size), 8)
    refused = 0
    for place in places:
        bad = bytearray(good)
        bad[place] ^= chance.randrange(1, 256)
        path.write_bytes(bad)
        try:
            if place % 2:
                loaded = get_mnist.read(path)
            else:
                (x_train, y_train), (x_test, y_test), name = load_digits()
                loaded = x_train, y_train, x_test, y_test
                assert name == "MNIST"
        except (get_mnist.WrongFileError, RuntimeError) as error:
            refused += 1
            if isinstance(error, RuntimeError):
                assert str(path) in str(error) and "move it away" in str(error)
            else:
                assert str(error).startswith("it"), "a reason that completes main's sentence"
        else:
            assert all(map(np.array_equal, loaded, arrays)), f"byte {place}"
        assert path.read_bytes() == bad, "the file is left as it is"
    assert refused > len(places) / 2


# --- 6. A model file cut short -----------------------------------------------------------------


def test_a_model_cut_at_any_length(tmp_path, writing, monkeypatch, capsys):
    writing["build_cnn"]("cnn_some").save(tmp_path / "whole.keras")
    whole = (tmp_path / "whole.keras").read_bytes()
    labels, path = np.arange(10), tmp_path / "model.keras"
    given = {"DATA": tmp_path, "data_name": "some", "x_train": labels, "y_train": labels}
    load_or_train = definitions("05", "load_or_train", "build_cnn", **given)["load_or_train"]
    trained = []
    keras = writing["keras"]
    monkeypatch.setattr(keras.Sequential, "fit", lambda self, *rest, **more: trained.append(self))
    chance = random.Random(6)
    lengths = [0, 1, 4, 22, 100, *chance.sample(range(len(whole)), 10), len(whole) - 1]
    for length in lengths:
        path.write_bytes(whole[:length])
        assert load_or_train("model.keras").name == "cnn_some"
        said = capsys.readouterr().out
        assert f"{path} cannot be read" in said and "Using a quick" in said, length
        assert "notebook 03 or 04 makes the file" in said
        assert path.read_bytes() == whole[:length]
    assert len(trained) == len(lengths)
    path.write_bytes(whole)
    load_or_train("model.keras")
    assert len(trained) == len(lengths) and capsys.readouterr().out == ""


# --- 7. A clock that goes backwards ------------------------------------------------------------


def test_writing_while_the_clock_goes_backwards(tmp_path, writing, monkeypatch):
    model = writing["build_cnn"]("first")
    now = iter(range(FAR_AHEAD, LONG_AGO, -86_400))  # each look at it is a day earlier
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    for name in ("first", "second"):
        model.name = name
        writing["write_atomically"](tmp_path / "model.keras", model.save)
        os.utime(tmp_path / "model.keras", (FAR_AHEAD, FAR_AHEAD))
        assert writing["keras"].models.load_model(tmp_path / "model.keras").name == name
        get_mnist.write(tmp_path / "some.npz", letters=np.array(list(name)))
        os.utime(tmp_path / "some.npz", (FAR_AHEAD, FAR_AHEAD))
        with np.load(tmp_path / "some.npz") as file:
            assert "".join(file["letters"]) == name
    assert next(now) < FAR_AHEAD - 86_400, "the clock was looked at"
    assert names(tmp_path) == ["model.keras", "some.npz"]


@pytest.mark.parametrize("newest", ["training_metadata.json", "training_metadata.json.bkp"])
def test_resuming_does_not_look_at_the_clock(tmp_path, newest):
    finished_epochs = definitions("04", "finished_epochs")["finished_epochs"]
    for name, epoch in [("training_metadata.json", 5), ("training_metadata.json.bkp", 4)]:
        (tmp_path / name).write_text(json.dumps({"epoch": epoch}))
        moment = FAR_AHEAD if name == newest else LONG_AGO
        os.utime(tmp_path / name, (moment, moment))
    assert finished_epochs(tmp_path) == 5


BACKWARDS = f"""
import time
now = iter(range({FAR_AHEAD}, {LONG_AGO}, -86_400))
time.time = lambda: float(next(now))  # each look at it is a day earlier
"""


@pytest.mark.slow
def test_a_training_while_the_clock_goes_backwards(tmp_path, stand_in, training_folder):
    folder, log = training_folder("backwards", **SHORT_RANGE, **FEW_EPOCHS), tmp_path / "log.txt"
    code = folder / "training.py"
    looks = f"\nassert next(now) < {FAR_AHEAD} - 10 * 86_400, 'the clock was looked at'\n"
    code.write_text(BACKWARDS + code.read_text(encoding="utf-8") + looks, encoding="utf-8")
    process = start(folder, stand_in, log)
    wait_until(lambda: "Epoch 2/" in log.read_text(), process, log)
    process.kill()
    process.wait()
    assert "continuing after epoch 1" in finish(folder, stand_in, log)
    check_whole(folder, 2)


# --- 8. A home folder that cannot be written ---------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("home", ["missing", "closed"])
def test_without_a_home_folder(closed, stand_in, home):
    folder, close, user = closed
    shutil.copy(stand_in, folder / "stand-in.npz")
    (folder / "home").mkdir()
    close()
    (folder / "work").mkdir()
    (folder / "work").chmod(0o777)
    given = {"HOME": str(folder / "home") if home == "closed" else "/dev/null/missing"}
    if home == "missing":  # and MNIST would have to be downloaded
        code = script("01")
        code = code[: code.index('print("This is"')]
        status, said = run_python(code, folder / "work", user, **given)
        assert status == 1
        last = said.strip().splitlines()[-1]
        assert (
            last.startswith("RuntimeError: No MNIST: connect to the internet") and "again" in last
        )
    given["DIGITS_DATA"] = str(folder / "stand-in.npz")
    status, said = run_python(script("06"), folder / "work", user, **given)
    assert status == 0, said
    assert "result.csv is complete: 400 predictions" in said
    assert names(folder / "home") == []


# --- 9. A path with spaces and letters beyond ASCII --------------------------------------------


@pytest.mark.slow
def test_a_folder_with_spaces_and_accents(tmp_path, stand_in, writing):
    tree = copy_tree(tmp_path / "Ünï cödé" / "My Notebooks")
    for path in (tree / "notebooks").iterdir():
        if path.name[:2] != "00":
            path.unlink()
    data = shutil.copy(stand_in, tree / "data" / "meine Ziffern é.npz")
    done = subprocess.run(
        [sys.executable, "run.py"],
        cwd=tree,
        env=environment(DIGITS_DATA=str(data)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    assert "meine Ziffern é.npz" in done.stdout
    page = (tree / "pages" / "00-start-here.html").read_text(encoding="utf-8")
    assert "This is meine_Ziffern__" in page
    assert "00-start-here.html" in (tree / "pages" / "index.html").read_text(encoding="utf-8")

    model = writing["build_cnn"]("cnn_meine_Ziffern__")
    images = np.random.default_rng(0).random((5, 28, 28, 1)).astype("float32")
    path = tree / "data" / "model é.keras"
    writing["write_atomically"](path, model.save)
    again = writing["keras"].models.load_model(path)
    assert np.array_equal(again.predict(images, verbose=0), model.predict(images, verbose=0))
    model.save_weights(tree / "data" / "é.weights.h5")
    again.load_weights(tree / "data" / "é.weights.h5")


@pytest.mark.slow
@pytest.mark.parametrize("number", ["04", "09", "10", "11"])
def test_notebooks_in_a_folder_with_spaces_and_accents(tmp_path, monkeypatch, stand_in, number):
    folder = tmp_path / "Ünï cödé" / "My Notebooks"
    folder.mkdir(parents=True)
    monkeypatch.setenv("DIGITS_DATA", str(shutil.copy(stand_in, folder / "meine Ziffern é.npz")))
    notebook = read(next(path for path in NOTEBOOKS if path.name.startswith(number)))
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=None, startup_timeout=600, resources=resources).execute()
    assert len(names(folder)) > 1, "what it leaves lies there"
