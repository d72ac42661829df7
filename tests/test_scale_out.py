"""Notebook 10 on a real scheduler and real workers: each a process of its own, on loopback.

What can go wrong does: workers and schedulers are killed, members fail, files are cut short. The
networks are tiny; what the ensemble is worth is not the question here.
"""

import importlib.util
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import keras
import numpy as np
import psutil
import pytest
from conftest import ROOT, definitions, read

distributed = pytest.importorskip("distributed")

import cloudpickle  # noqa: E402  comes with Dask

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
QUICK = definitions("10", "QUICK", "RandomAffine", "affine_transforms")["QUICK"]
PATIENCE = 600  # seconds; the machine may be busy with other tests


# --- what the notebook needs ---------------------------------------------------------------------


def cell_with(text):
    """Return the source of notebook 10's cell with this text, without Jupyter's own lines."""
    path = next((ROOT / "notebooks").glob("10-*.ipynb"))
    cells = [cell.source for cell in read(path).cells if text in cell.source]
    assert len(cells) == 1
    return re.sub(r"^(\s*)%.*", r"\1pass", cells[0], flags=re.M)


def test_missing_packages_and_other_backends_are_named(monkeypatch):
    source = cell_with("# @title Install Dask and pyarrow")
    exec(source, {"keras": keras})
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="KERAS_BACKEND to tensorflow"):
        exec(source, {"keras": keras})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "distributed" or None)
    with pytest.raises(ModuleNotFoundError, match="connect to the internet"):
        exec(source, {"keras": keras})


def test_two_notebooks_do_not_try_in_the_same_folder(tmp_path, monkeypatch):
    """Each removes its own when it ends, and may not remove the other's."""
    leave = []
    monkeypatch.setattr("atexit.register", lambda *call, **options: leave.append((call, options)))
    one, two = ({"DATA": tmp_path, "time": time} for _ in range(2))
    for names in (one, two):
        exec(cell_with("TRIAL = DATA"), names)
        names["TRIAL"].mkdir(parents=True)
        (names["TRIAL"] / "member-1.npz").touch()
    (remove, *arguments), options = leave[0]
    remove(*arguments, **options)
    assert not one["TRIAL"].exists() and (two["TRIAL"] / "member-1.npz").exists()


# --- what is trained -----------------------------------------------------------------------------


def tiny_model():
    """Return the smallest of networks, compiled."""
    layers = [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential(layers)
    model.compile("adam", "categorical_crossentropy")
    return model


def train_tiny(images, targets, seed):
    """Train the smallest of networks for one epoch."""
    keras.utils.set_random_seed(seed)
    model = tiny_model()
    model.fit(images, targets, batch_size=64, verbose=0)
    return model


def prepare_watching(recipe, n_images, seed):
    """Fail if another thread of the process draws from the random numbers that the seed decides."""
    random.seed(seed)
    before = random.getstate()
    time.sleep(2)  # a worker reports to its scheduler twice a second
    assert random.getstate() == before, "somebody else has drawn"
    model = tiny_model()
    return model, model


def waiting_at(folder, wait_for=lambda seed: True):
    """Return a training function that says when it begins, and waits for a file `go` if told."""

    def train_waiting(images, targets, seed):
        (folder / f"began-{seed}-{os.getpid()}-{time.time_ns()}").touch()
        deadline = time.monotonic() + PATIENCE
        while wait_for(seed) and not (folder / "go").exists():
            assert time.monotonic() < deadline, "nobody said go"
            time.sleep(0.05)
        return train_tiny(images, targets, seed)

    return train_waiting


def began(folder):
    """Return [(seed, process), ...] of all attempts, in no order."""
    return [tuple(map(int, path.name.split("-")[1:3])) for path in folder.glob("began-*")]


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_folder_that_cannot_be_made_says_what_to_do(notebook, tmp_path):
    (tmp_path / "ensemble").touch()  # a file in its place stops the superuser, too
    with pytest.raises(OSError, match="could not be written.*make the folder writable"):
        notebook["train_member"](1, tmp_path / "ensemble", "stand-in", train_tiny)


# --- where it is trained -------------------------------------------------------------------------


@contextmanager
def running(command, log, **variables):
    """Start a program of Dask's; kill it and all that it started at the end."""
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *command],
            env=environment | variables,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        try:
            family = [*psutil.Process(process.pid).children(recursive=True), process]
        except psutil.NoSuchProcess:
            family = [process]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


@contextmanager
def cluster(folder, data, n_workers=2, memory_limit="2GiB", **variables):
    """A scheduler and workers of one thread each. Yields (scheduler process, address)."""
    folder.mkdir(exist_ok=True)
    found, variables = folder / "scheduler.json", {"DIGITS_DATA": str(data)} | variables
    here = ["--host", "127.0.0.1", "--scheduler-file", str(found), "--no-dashboard"]
    each = ["--nworkers", str(n_workers), "--nthreads", "1", "--memory-limit", memory_limit]
    each += ["--local-directory", str(folder)]
    with running(["scheduler", "--port", "0", *here], folder / "log.txt", **variables) as scheduler:
        wait_until(found.exists, "no scheduler")
        with running(["worker", *here, *each], folder / "workers.txt", **variables):
            yield scheduler, json.loads(found.read_text())["address"]


def test_the_first_line_for_real_clusters_works_and_listens_here_only(tmp_path):
    path = next((ROOT / "notebooks").glob("10-*.ipynb"))
    line = re.search(r"\| this computer, by hand .*", "\n".join(c.source for c in read(path).cells))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    text = line[0].replace("8786", port).replace("8787", "0")
    scheduler, worker = (words.split() for words in re.findall(r"dask ([^`]+)`", text))
    log, at = tmp_path / "scheduler.txt", ["--port", port]
    with running([*scheduler, *at], log) as one, running(worker, tmp_path / "worker.txt") as two:
        with distributed.Client(f"tcp://127.0.0.1:{port}", timeout=PATIENCE) as client:
            client.wait_for_workers(1, timeout=PATIENCE)
        started = [one.pid, two.pid, *(c.pid for c in psutil.Process(two.pid).children(True))]
        listening = [
            connection.laddr.ip
            for pid in started
            for connection in psutil.Process(pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        ]
    assert len(listening) >= 4 and set(listening) == {"127.0.0.1"}, "pages of the dashboard, too"


@pytest.fixture(scope="module")
def two_workers(stand_in, tmp_path_factory):
    """The address of a scheduler with two workers, for tests that leave it as it was."""
    with cluster(tmp_path_factory.mktemp("dask"), stand_in) as (_, address):
        yield address


@pytest.fixture
def notebook(tmp_path, stand_in, monkeypatch):
    """The definitions of notebook 10, with a data folder of their own and the stand-in as data."""
    monkeypatch.setenv("DIGITS_DATA", str(stand_in))
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    given = {"ENSEMBLE": tmp_path / "ensemble", "data_name": "stand-in", "QUICK": QUICK}
    return definitions("10", DATA=tmp_path, **given)


def check_members(notebook, folder, seeds, made_from):
    """Check that exactly these members are there and whole; return them."""
    assert sorted(path.name for path in folder.glob("*.npz")) == sorted(
        f"member-{seed}.npz" for seed in seeds
    ), "nothing half-written, nothing else"
    members = [notebook["read_member"](folder / f"member-{k}.npz", made_from) for k in seeds]
    for member in members:
        assert member["test"].shape == (400, 10)
        assert np.allclose(member["test"].sum(axis=1), 1, atol=1e-4)
    return members


# --- 1. The same members everywhere --------------------------------------------------------------


IN_PROCESS = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import definitions
from test_scale_out import QUICK
notebook = definitions("10", DATA=Path("."), data_name="stand-in", QUICK=QUICK)
for seed in (1, 2):
    notebook["train_member"](seed, Path("alone"), "stand-in", notebook["train_quick"])
"""


def test_workers_train_the_same_members_as_one_process(tmp_path, two_workers, notebook):
    with distributed.Client(two_workers) as client:
        failed = notebook["train_ensemble"](client, [1, 2], tmp_path / "workers")
    assert failed == {}
    subprocess.run(
        [sys.executable, "-c", IN_PROCESS.format(tests=str(ROOT / "tests"))],
        cwd=tmp_path,
        env=os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"},
        check=True,
    )
    by_workers = check_members(notebook, tmp_path / "workers", [1, 2], "train_quick on stand-in")
    alone = check_members(notebook, tmp_path / "alone", [1, 2], "train_quick on stand-in")
    for one, other in zip(by_workers, alone, strict=True):
        assert one["process"] != other["process"]
        for name in (key for key in one if key.startswith("weight") or key in ("val", "test")):
            assert np.array_equal(one[name], other[name]), name
    assert not np.array_equal(alone[0]["test"], alone[1]["test"]), "seeds make a difference"


def test_on_a_worker_only_the_seed_decides(stand_in, notebook):
    """In a new worker and without train_member, as in exercise 3: Dask, too, draws numbers."""
    notebook["prepare_training"] = prepare_watching
    with distributed.Client(notebook["start_cluster"](1)) as client:
        probabilities = client.submit(notebook["train_epochs"], 1, 1).result(PATIENCE)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-4)


# --- 2. to 4. Processes that die -----------------------------------------------------------------


def test_a_worker_killed_in_the_middle_of_training(tmp_path, two_workers, notebook, capsys):
    train, folder, failed = waiting_at(tmp_path), tmp_path / "ensemble", []
    with distributed.Client(two_workers) as client:
        arguments = client, [1, 2, 3, 4], folder, train
        thread = threading.Thread(
            target=lambda: failed.append(notebook["train_ensemble"](*arguments))
        )
        thread.start()
        wait_until(lambda: len(began(tmp_path)) == 2, "two workers, two tasks")
        (lost, process), (other, _) = began(tmp_path)
        psutil.Process(process).kill()
        wait_until(lambda: len(began(tmp_path)) >= 3, "a new worker goes on")
        (tmp_path / "go").touch()
        thread.join(PATIENCE)
        assert failed == [{}]
        client.wait_for_workers(2, timeout=PATIENCE)
    members = check_members(notebook, folder, [1, 2, 3, 4], "train_waiting on stand-in")
    attempts = [seed for seed, _ in began(tmp_path)]
    assert attempts.count(lost) == 2, "what was lost is trained again"
    assert sorted(set(attempts)) == [1, 2, 3, 4] and len(attempts) == 5, "and nothing else is"
    assert process not in [member["process"] for member in members]
    assert "4 of 4 members" in capsys.readouterr().out


def test_a_scheduler_killed(tmp_path, stand_in, two_workers, notebook):
    """Finished members are kept; the message says how to go on; going on trains the others only."""
    folder, caught = tmp_path / "ensemble", []
    train = waiting_at(tmp_path, wait_for=lambda seed: seed > 2)

    def attempt(client):
        try:
            notebook["train_ensemble"](client, [1, 2, 3, 4], folder, train)
        except RuntimeError as error:
            caught.append(error)

    with cluster(tmp_path / "dask", stand_in) as (scheduler, address):
        client = distributed.Client(address)
        thread = threading.Thread(target=attempt, args=(client,))
        thread.start()
        wait_until(lambda: len(began(tmp_path)) == 4, "two tasks done, two waiting")
        scheduler.kill()
        thread.join(PATIENCE)
        client.close(timeout=1)
    (error,) = caught
    assert "scheduler is lost" in str(error) and "connect again" in str(error)
    check_members(notebook, folder, [1, 2], "train_waiting on stand-in")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}

    (tmp_path / "go").touch()
    with distributed.Client(two_workers) as client:
        assert notebook["train_ensemble"](client, [1, 2, 3, 4], folder, train) == {}
    check_members(notebook, folder, [1, 2, 3, 4], "train_waiting on stand-in")
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert sorted(seed for seed, _ in began(tmp_path)) == [1, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://here"])
def test_a_scheduler_that_cannot_be_reached(notebook, monkeypatch, capsys, address):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
    client = notebook["connect"](n_workers=1, patience=2)
    with client.cluster, client:
        said = capsys.readouterr()
        assert address in said.out and "DASK_SCHEDULER_ADDRESS" in said.out
        assert "Continuing with workers here" in said.out
        assert client.submit(sum, [20, 22]).result() == 42


def test_a_scheduler_without_workers(tmp_path, notebook, monkeypatch, capsys):
    found = tmp_path / "scheduler.json"
    command = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with running([*command, "--scheduler-file", str(found)], tmp_path / "log.txt"):
        wait_until(found.exists, "no scheduler")
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", json.loads(found.read_text())["address"])
        client = notebook["connect"](n_workers=1, patience=2)
        with client.cluster, client:
            assert "has no scheduler with workers" in capsys.readouterr().out
            assert client.submit(sum, [20, 22]).result() == 42


def test_a_scheduler_elsewhere_is_used(two_workers, notebook, monkeypatch, capsys):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", two_workers)
    with notebook["connect"](patience=PATIENCE) as client:
        assert client.scheduler.address == two_workers and client.cluster is None
        assert capsys.readouterr().out == ""
        notebook["client"] = client
        with notebook["connect"](patience=PATIENCE):
            assert client.status == "closed", "that of an earlier run of the cell"


# --- 5. and 6. Members and files that are bad ----------------------------------------------------


def test_a_member_that_raises(tmp_path, two_workers, notebook):
    def train_or_fail(images, targets, seed):
        (tmp_path / f"began-{seed}-{os.getpid()}-{time.time_ns()}").touch()
        if seed == 2:
            raise ValueError("a loss that is not a number")
        return train_tiny(images, targets, seed)

    folder = tmp_path / "ensemble"
    with distributed.Client(two_workers) as client:
        failed = notebook["train_ensemble"](client, [1, 2, 3], folder, train_or_fail)
    assert list(failed) == [2] and "not a number" in str(failed[2])
    check_members(notebook, folder, [1, 3], "train_or_fail on stand-in")
    assert sorted(seed for seed, _ in began(tmp_path)) == [1, 2, 2, 2, 3], "two retries"


def test_a_worker_with_other_data(tmp_path, stand_in, notebook):
    other = shutil.copy(stand_in, tmp_path / "other.npz")
    folder = tmp_path / "ensemble"
    with (
        cluster(tmp_path / "dask", other, n_workers=1) as (_, address),
        distributed.Client(address) as client,
    ):
        failed = notebook["train_ensemble"](client, [5], folder, train_tiny, retries=0)
    assert str(failed[5]) == "Member 5 needs stand-in, but this machine has other."
    assert not folder.exists()


def test_a_member_never_sees_the_validation_images(tmp_path, stand_in, notebook):
    def train_remembering(images, targets, seed):
        seen.append((images, targets))
        return train_tiny(images, targets, seed)

    seen = []
    notebook["train_member"](1, tmp_path, "stand-in", train_remembering)
    with np.load(stand_in) as file:
        x_train, _, y_train, _ = notebook["split"](file["x_train"], file["y_train"])
    ((images, targets),) = seen
    assert np.array_equal(images, notebook["scale"](x_train))
    assert np.array_equal(targets.argmax(axis=1), y_train)


def test_a_student_learns_what_the_ensemble_predicts(tmp_path):
    """Not the labels, and with the same recipe as a member."""
    given = []
    notebook = definitions("10", ENSEMBLE=tmp_path)
    notebook["train_quick"] = lambda *arguments: given.append(arguments) or "a network"
    soft = np.full((3, 10), 0.1, "float32")
    np.save(tmp_path / "soft-targets.npy", soft)
    assert notebook["train_student"]("images", "labels", 7) == "a network"
    ((images, targets, seed, *recipe),) = given
    assert (images, seed, recipe) == ("images", 7, []) and np.array_equal(targets, soft)


def test_confidence_and_cost_by_hand(notebook):
    def image(digit, probability):
        rest = (1 - probability) / 9
        return [probability if k == digit else rest for k in range(10)]

    # Sorted by confidence: right, right, wrong, right
    probabilities = np.array([image(1, 0.7), image(2, 0.99), image(3, 0.8), image(4, 0.9)])
    labels = np.array([1, 2, 5, 4])
    errors, expected, _, coverage = notebook["confidence_summary"](probabilities, labels, 0.24)
    assert (errors, coverage) == (1, 50) and expected == pytest.approx(0.61)
    *_, coverage = notebook["confidence_summary"](probabilities, labels, 0.25)
    assert coverage == 100, "one error in four"
    *_, coverage = notebook["confidence_summary"](probabilities, np.array([1, 3, 3, 4]), 0.1)
    assert coverage == 0, "the most confident one is wrong"
    predicted = notebook["predicted_seconds"]
    assert [predicted(n, 2, 10, 1) for n in (1, 2, 3, 4)] == [11, 11, 21, 21]


def test_a_member_file_cut_short_is_trained_again(tmp_path, notebook):
    path, made_from = tmp_path / "member-1.npz", "train_tiny on stand-in"
    arguments = 1, tmp_path, "stand-in", train_tiny
    notebook["train_member"](*arguments)
    whole, trained = path.read_bytes(), notebook["read_member"](path, made_from)
    lengths = [0, 1, 30, len(whole) // 2, len(whole) - 1]
    damaged = [whole[:length] for length in lengths]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # one bit in the middle of the probabilities or weights
    for bad in [*damaged, bytes(flipped)]:
        path.write_bytes(bad)
        assert notebook["read_member"](path, made_from) is None, len(bad)
    assert notebook["train_member"](*arguments) == "member-1.npz"
    again = notebook["read_member"](path, made_from)
    assert np.allclose(again["test"], trained["test"], atol=1e-5)
    moment = path.stat().st_mtime_ns
    notebook["train_member"](*arguments)
    assert path.stat().st_mtime_ns == moment, "what is whole is not trained again"
    assert notebook["read_member"](path, "train_quick on stand-in") is None, "another recipe"
    assert notebook["read_member"](path, "train_tiny on MNIST") is None, "other data"


# --- 7. and 8. Too many at once ------------------------------------------------------------------


def test_two_notebooks_at_once_in_the_same_folder(tmp_path, stand_in, two_workers, notebook):
    """Both train the first member at the same time, and each would name its file."""
    folder, failed = tmp_path / "ensemble", []
    train = waiting_at(tmp_path, lambda seed: seed == 1)

    def run(address):
        with distributed.Client(address, set_as_default=False) as client:
            failed.append(notebook["train_ensemble"](client, range(1, 5), folder, train))

    with cluster(tmp_path / "other", stand_in, n_workers=1) as (_, other):
        threads = [threading.Thread(target=run, args=(one,)) for one in (two_workers, other)]
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(seed == 1 for seed, _ in began(tmp_path)) == 2, "both begin")
        (tmp_path / "go").touch()
        for thread in threads:
            thread.join(2 * PATIENCE)
    assert failed == [{}, {}]
    check_members(notebook, folder, [1, 2, 3, 4], "train_waiting on stand-in")


def test_a_worker_over_its_memory_limit(tmp_path, stand_in, notebook):
    """It is killed and replaced; the member that needs too much is named, the others are kept."""

    def train_hungry(images, targets, seed):
        (tmp_path / f"began-{seed}-{os.getpid()}-{time.time_ns()}").touch()
        hoard = []
        while seed == 2:
            hoard.append(np.ones(12_500_000))  # 100 MB more
            time.sleep(0.1)
        return train_tiny(images, targets, seed)

    folder, once = tmp_path / "ensemble", {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    with (
        cluster(tmp_path / "dask", stand_in, memory_limit="1500MiB", **once) as (_, address),
        distributed.Client(address) as client,
    ):
        failed = notebook["train_ensemble"](client, [1, 2, 3], folder, train_hungry)
        assert list(failed) == [2] and isinstance(failed[2], distributed.KilledWorker)
        client.wait_for_workers(2, timeout=PATIENCE)
    check_members(notebook, folder, [1, 3], "train_hungry on stand-in")
    assert "memory" in (tmp_path / "dask" / "workers.txt").read_text()


# --- The embedded cluster ------------------------------------------------------------------------

EMBEDDED = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from conftest import definitions
notebook = definitions("10", DATA=Path("."), data_name="stand-in")
client = notebook["connect"](n_workers=2)
print(*client.run(__import__("os").getpid).values(), flush=True)
time.sleep(600)
"""


def test_workers_listen_here_only_and_end_with_their_notebook(tmp_path):
    code = EMBEDDED.format(tests=str(ROOT / "tests"))
    kernel = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        workers = [int(pid) for pid in kernel.stdout.readline().split()]
        assert len(workers) == 2
        family = [psutil.Process(kernel.pid), *map(psutil.Process, workers)]
        listening = [
            one.laddr.ip for process in family for one in process.net_connections()
            if one.status == psutil.CONN_LISTEN
        ]  # fmt: skip
        assert len(listening) >= 3 and set(listening) == {"127.0.0.1"}
    finally:
        kernel.kill()
        kernel.communicate()
    wait_until(lambda: not any(map(psutil.pid_exists, workers)), "workers outlive their notebook")


def test_a_local_worker_has_one_thread_no_gpu_and_ordinary_memory(notebook, monkeypatch):
    """Whatever is set for the notebook itself.

    With Dask's own MALLOC_TRIM_THRESHOLD_, a training step takes about 1.5 times as long.
    """
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with notebook["start_cluster"](1) as here, distributed.Client(here) as client:
        (found,) = client.run(lambda: dict(os.environ)).values()
    assert found["TF_NUM_INTRAOP_THREADS"] == found["TF_NUM_INTEROP_THREADS"] == "1"
    assert found["CUDA_VISIBLE_DEVICES"] == "-1"
    assert "MALLOC_TRIM_THRESHOLD_" not in found


def test_shards_are_scored_whole_and_in_order(tmp_path, two_workers, notebook):
    """The stream of images: what is written is what is scored, whoever does it."""
    pandas = notebook["pd"]
    model = train_tiny(np.random.rand(64, 28, 28, 1), np.eye(10)[np.arange(64) % 10], 1)
    model.save(tmp_path / "tiny.keras")
    with distributed.Client(two_workers) as client:
        write, score = notebook["write_shard"], notebook["score_shard"]
        names = client.gather(client.map(write, range(3), folder=tmp_path, n_images=700))
        assert names == [f"shard-{k:05d}.parquet" for k in range(3)]
        labels = [pandas.read_parquet(tmp_path / name)["label"] for name in names]
        assert not labels[0].equals(labels[1]), "each shard has images of its own"
        moments = [(tmp_path / name).stat().st_mtime_ns for name in names]
        client.gather(client.map(write, range(3), folder=tmp_path, n_images=700, pure=False))
        assert [(tmp_path / name).stat().st_mtime_ns for name in names] == moments, "kept"
        where = {"folder": tmp_path, "model_path": tmp_path / "tiny.keras"}
        scored = client.gather(client.map(score, names, **where))
    assert [one["images"] for one in scored] == [700] * 3
    for number, (name, one) in enumerate(zip(names, scored, strict=True)):
        images = pandas.read_parquet(tmp_path / name)
        result = pandas.read_parquet(tmp_path / f"result-{number:05d}.parquet")
        assert list(result["image_id"]) == list(range(700 * number, 700 * number + 700))
        assert np.array_equal(images[["image_id", "label"]], result[["image_id", "label"]])
        pixels = np.frombuffer(b"".join(images["pixels"]), np.uint8).reshape(-1, 28, 28, 1)
        probabilities = model.predict(pixels.astype("float32") / 255, verbose=0)
        assert np.mean(probabilities.argmax(axis=1) == result["digit"]) > 0.99
        assert one["errors"] == (result["digit"] != result["label"]).sum()
        assert result["confidence"].between(0.1, 1.001).all() and one["memory_mb"] > 50


def test_the_other_way_in_works_as_it_is_written(tmp_path, two_workers, notebook):
    """The lines with joblib in the text, which no cell runs."""
    path = next((ROOT / "notebooks").glob("10-*.ipynb"))
    (text,) = (cell.source for cell in read(path).cells if "import joblib" in cell.source)
    lines = text.split("```python\n")[1].split("```")[0]
    space = notebook | {"SEEDS": [1, 2], "train_quick": train_tiny}
    with distributed.Client(two_workers):
        exec(lines, space)
    check_members(notebook, tmp_path / "ensemble", [1, 2], "train_tiny on stand-in")
