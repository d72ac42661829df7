"""Execute each notebook alone in its own empty folder, in the environment of this Python.

    python tests/elsewhere/alone.py                all notebooks
    python tests/elsewhere/alone.py 04 08          some
    python tests/elsewhere/alone.py --gpu          Keras uses XLA as it does where there is a GPU
    python tests/elsewhere/alone.py --stand-in F   on the small data set F, for a quick look

MNIST is reached as on Colab: the notebook's own cell lets Keras download it, into a Keras folder
that is empty at the beginning of each notebook. The download comes from a server of this script's
on the loopback interface, which serves data/mnist.npz. Environment variables such as KERAS_BACKEND
reach the notebooks.

A notebook passes if no cell raises an error and none shows a deprecation warning (outputs are not
compared). Prints a line for each notebook, with minutes. Exit status: 0 all pass, 1 not all.
"""

import argparse
import functools
import http.server
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from run import connection  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]-*.ipynb"))


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each request."""

    def log_message(self, *arguments):
        pass


def serve(folder):
    """Serve a folder on the loopback interface, in the background. Return the address."""
    handler = functools.partial(QuietHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def fault(path, folder):
    """Execute a notebook in a folder. Return what is wrong with it, or None."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    with tempfile.TemporaryDirectory() as private:
        config = Config(KernelManager=connection(Path(private)))
        waits = {"timeout": None, "startup_timeout": 600}  # s
        client = NotebookClient(notebook, **waits, resources=resources, config=config)
        try:
            client.execute()
        except (CellExecutionError, DeadKernelError) as error:
            return str(error)
    return deprecation(notebook)


def deprecation(notebook):
    """Return the first output that warns of something deprecated, with its cell, or None."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/html", ""))
            if re.search("deprecat|FutureWarning", text, flags=re.IGNORECASE):
                return f"{text}\nin the cell\n{cell.source}"
    return None


def main():
    parser = argparse.ArgumentParser(description="Execute each notebook alone.")
    parser.add_argument("numbers", nargs="*", help="such as 04; default: all")
    parser.add_argument("--gpu", action="store_true", help="use XLA as where there is a GPU")
    parser.add_argument("--stand-in", metavar="FILE", help="data set to use instead of MNIST")
    wishes = parser.parse_args()
    # Without the second one, kernels on newer Pythons warn that debuggers may miss breakpoints.
    environment = {"PYTHONPATH": str(HERE), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    if wishes.gpu:
        environment["PRETEND_GPU"] = "1"
    if wishes.stand_in:
        environment["DIGITS_DATA"] = str(Path(wishes.stand_in).resolve())
    elif (ROOT / "data" / "mnist.npz").exists():
        environment["MNIST_URL"] = serve(ROOT / "data") + "/mnist.npz"
    else:
        sys.exit("data/mnist.npz is missing: run data/get_mnist.py, or name a file with --stand-in")
    os.environ.update(environment)

    failed = 0
    for path in NOTEBOOKS:
        if wishes.numbers and path.name[:2] not in wishes.numbers:
            continue
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as keras_home:
            os.environ["KERAS_HOME"] = keras_home
            started = time.perf_counter()
            problem = fault(path, folder)
            minutes = (time.perf_counter() - started) / 60
        print(f"{path.stem}: {'FAILED' if problem else 'pass'}, {minutes:.1f} min", flush=True)
        if problem:
            failed += 1
            print(problem, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
