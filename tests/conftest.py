"""What the tests share: the notebooks, the functions defined in them, and a copy of the tree."""

import ast
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest
from hypothesis import settings
from nbclient import NotebookClient
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]-*.ipynb"))
HAS_MNIST = (ROOT / "data" / "mnist.npz").exists() and not os.environ.get("DIGITS_DATA")
# The stored outputs come from Linux on x86-64; other systems round otherwise.
AS_STORED = HAS_MNIST and (sys.platform, platform.machine()) == ("linux", "x86_64")

# Continuous integration uses the same examples every time; elsewhere they are new each time.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

sys.path[:0] = [str(ROOT), str(ROOT / "data")]
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the notebooks


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def syntax(cell):
    """Parse a code cell; a line of Jupyter's own, such as %pip, counts as `pass`."""
    return ast.parse(re.sub(r"^(\s*)%.*", r"\1pass", cell.source, flags=re.M))


def definitions(number, *names, **given):
    """Load definitions out of a notebook, without running it.

    number: the notebook's number, such as "04". names: the names of functions, classes, and
    variables; without any, all functions and classes, and all variables that hold a string or a
    number. given: names that the definitions need, such as DATA. The notebook's imports are
    executed. Returns a dict like a module's namespace.
    """
    path = next(path for path in NOTEBOOKS if path.name.startswith(number))
    wanted, found = [], set()
    for cell in code_cells(read(path)):
        for node in syntax(cell).body:
            name, plain = getattr(node, "name", ""), True
            if isinstance(node, ast.Assign | ast.AugAssign):
                name = getattr(node, "targets", [getattr(node, "target", None)])[0]
                name, plain = getattr(name, "id", ""), isinstance(node.value, ast.Constant)
            if isinstance(node, ast.Import | ast.ImportFrom):
                wanted.append(node)
            elif name and (name in names if names else plain):
                wanted.append(node)
                found.add(name)
    assert found >= set(names), f"{path.name} does not define {set(names) - found}"
    import keras  # which the setup cell imports inside a `try`

    # "__main__", as in a notebook: before a function is sent to a worker, any other name is
    # looked up in all modules, which is slow
    space = {"keras": keras, "__name__": "__main__"} | given
    exec(compile(ast.Module(wanted, type_ignores=[]), path.name, "exec"), space)
    return space


def run_cells(names, number, *starts):
    """Execute the cells of a notebook that begin so, in the namespace `names`, and return it."""
    path = next(path for path in NOTEBOOKS if path.name.startswith(number))
    for start in starts:
        (source,) = [
            cell.source for cell in code_cells(read(path)) if cell.source.startswith(start)
        ]
        exec(source, names)
    return names


def execute_two_at_once(notebooks, folder_of, **environment):
    """Execute notebooks, {name: notebook}, each in its own folder, two at a time, one per core.

    folder_of: a function that returns the folder for a name. environment: variables for the
    kernels. The outputs are stored in the notebooks. Returns {name: future}; result() of a future
    raises the error of a cell that has failed.
    """
    from run import connection

    environment = os.environ | environment | {"TF_NUM_INTRAOP_THREADS": "1"}

    def execute(name):
        with tempfile.TemporaryDirectory(prefix="digits-") as private:
            # Files instead of ports: two kernels that start at once may be given the same port
            NotebookClient(
                notebooks[name],
                startup_timeout=600,
                resources={"metadata": {"path": str(folder_of(name))}},
                config=Config(KernelManager=connection(Path(private))),
            ).execute(env=environment)

    with ThreadPoolExecutor(2) as pool:
        return {name: pool.submit(execute, name) for name in notebooks}


@pytest.fixture(scope="session")
def two_at_once():
    """`execute_two_at_once`; tests that name it are run late, see pytest_collection_modifyitems."""
    return execute_two_at_once


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """The path of a stand-in for MNIST, made by data/get_mnist.py."""
    return make_stand_in(tmp_path_factory.mktemp("stand-in"))


def make_stand_in(folder):
    """Make a stand-in for MNIST in a folder; return its path."""
    import get_mnist

    path = Path(folder, "stand-in.npz").resolve()
    get_mnist.write(path, **get_mnist.stand_in())
    return path


def data_file():
    """Return the path of the data that the notebooks use: DIGITS_DATA, or MNIST."""
    return Path(os.environ.get("DIGITS_DATA") or ROOT / "data/mnist.npz").resolve()


if not data_file().exists() and not os.environ.get("DIGITS_DATA"):
    # As run.py does without MNIST: the stand-in that it has left, or, in a fresh clone, a new one
    left = (ROOT / "data/stand-in.npz").resolve()
    FOLDER = tempfile.TemporaryDirectory(prefix="digits-")  # removed when Python ends
    os.environ["DIGITS_DATA"] = str(left if left.exists() else make_stand_in(FOLDER.name))


def pytest_report_header():
    """Say at the beginning if the tests prove less than they could."""
    if not HAS_MNIST:
        return "MNIST IS NOT HERE: tests use a stand-in and check no accuracy (make data/mnist.npz)"


def pytest_sessionfinish(session):
    """With MUST_RUN=1, a skipped test counts as failed: it has proved nothing."""
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if os.environ.get("MUST_RUN") and reporter.stats.get("skipped"):
        session.exitstatus = 1


def copy_tree(target):
    """Copy everything that is needed to run the project to `target`, and MNIST if it is here."""
    for name in (
        "run.py",
        "recaps.py",
        "notebooks",
        "data/README.md",
        "data/get_mnist.py",
        "data/benchmarks.csv",
        "data/mnist.npz",
    ):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns(".*"))
        elif source.exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    return target


def pytest_collection_modifyitems(items):
    """Put the tests last that need what notebooks leave: these are executed beside the others.

    After most of these come those that execute two notebooks at once, to keep both cores busy even
    if there is nothing beside them any more.
    """
    late = ("nbval", "two_at_once", "left_file")
    items.sort(key=lambda item: [name in item.fixturenames for name in late])


@pytest.fixture(scope="session", autouse=True)
def beside(request, tmp_path_factory):
    """Run all notebooks under nbval beside the other tests, if a test needs that.

    Most tests keep one core busy and nbval two, so no core is idle. Yields the copy of the tree in
    which the notebooks run, the file that gets nbval's report, and the process.
    """
    needed = {"nbval", "left_file"}
    if not any(needed & set(item.fixturenames) for item in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("nbval")
    tree, report = copy_tree(folder / "tree"), folder / "report.txt"
    # On some machines, TensorFlow writes to stderr. The structure tests make sure that no stored
    # output contains any of it.
    (tree / "notebooks" / "conftest.py").write_text(
        "def pytest_collectstart(collector):\n"
        "    if hasattr(collector, 'skip_compare'):\n"
        "        collector.skip_compare += ('stderr',)\n"
    )
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "1"}
    if not HAS_MNIST:
        environment["DIGITS_DATA"] = str(request.getfixturevalue("stand_in"))
    command = [sys.executable, ROOT / "tests" / "every_notebook.py", tree]
    command += ["--nbval" if AS_STORED else "--nbval-lax"]
    with report.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    yield tree, report, process
    if process.poll() is None:  # the tests end early
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


@pytest.fixture(scope="session")
def left_file(beside):
    """A function that waits for a file which a notebook leaves in the data folder of the copy.

    It returns the file's path, also if all notebooks have ended without it.
    """
    assert beside, "name the fixture among the test's arguments: see pytest_collection_modifyitems"
    tree, _, process = beside

    def wait(name):
        while not (tree / "data" / name).exists() and process.poll() is None:
            time.sleep(1)
        return tree / "data" / name

    return wait


@pytest.fixture(scope="session")
def nbval(request, beside):
    """Wait for all notebooks; return the copy of the tree they ran in, and the exit status.

    On MNIST, nbval is strict: each cell must print what is stored. On the stand-in or on a system
    that rounds otherwise, which gives other numbers, only errors count.
    """
    assert beside, "name the fixture among the test's arguments: see pytest_collection_modifyitems"
    tree, report, process = beside
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), report.open() as file:
        how = "strict, on" if AS_STORED else "lax, on"
        how += " MNIST" if HAS_MNIST else " the stand-in"
        print(f"\nall notebooks under nbval, {how}:", flush=True)
        running = True
        while running:  # it may take minutes: let its progress be seen
            running = process.poll() is None
            print(file.read(), end="", flush=True)
            time.sleep(running)
    return tree, process.returncode
