"""Execute the series: bring the data, run the notebooks, write data/result.csv and pages/.

    python run.py            into pages/; the notebooks themselves stay as they are
    python run.py --store    also store the outputs in notebooks/, and README.png (for editors)

Exit status: 0 done; 1 a notebook failed, or not even a stand-in could be written; 2 the data is
not what it should be: data/mnist.npz is not MNIST, or --store was asked for without MNIST.
"""

import argparse
import base64
import html
import os
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from nbconvert.preprocessors import TagRemovePreprocessor

ROOT = Path(__file__).resolve().parent
NOTEBOOKS, DATA, PAGES = ROOT / "notebooks", ROOT / "data", ROOT / "pages"
sys.path.insert(0, str(DATA))
import get_mnist  # noqa: E402

STAND_IN_WARNING = """
************************************************************************
  MNIST IS NOT HERE AND COULD NOT BE FETCHED.
  Going on with a small stand-in (1,797 digits of scikit-learn's).
  Everything runs; no number below says anything about MNIST.
************************************************************************
"""


class Client(NotebookClient):
    """A notebook client that shows how far it has come, epochs of training included."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "stream":
            for line in msg["content"]["text"].splitlines():
                if re.match(r"\d+/\d+ - ", line):  # Keras' line at the end of an epoch
                    print(f"\r    {line}", flush=True)
        elif msg["msg_type"] == "execute_input" and sys.stdout.isatty():
            print(f"\r    cell {cell_index + 1} of {len(self.nb.cells)} ", end="", flush=True)
        return super().process_message(msg, cell, cell_index)


def choose_data():
    """Bring MNIST, or go on loudly with the stand-in. Return an exit status: 0 or 2."""
    if os.environ.get("DIGITS_DATA"):
        print(f"DIGITS_DATA names the data: {os.environ['DIGITS_DATA']}")
        return 0
    status = get_mnist.main([])
    if status == 1:
        print(STAND_IN_WARNING)
        status = get_mnist.main(["--stand-in"])
        os.environ["DIGITS_DATA"] = str(DATA / "stand-in.npz")
    return status


def execute(path):
    """Execute a notebook in its own folder. Return it, outputs and run time included.

    Raises RuntimeError saying which cell failed and why.
    """
    notebook = nbformat.read(path, as_version=4)
    client = Client(
        notebook,
        timeout=None,
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    started = time.perf_counter()
    try:
        client.execute()
    except (CellExecutionError, DeadKernelError) as error:
        number = client.code_cells_executed
        cell = [c for c in notebook.cells if c.cell_type == "code" and c.source][number - 1]
        if isinstance(error, DeadKernelError):
            why = "the kernel died; most often the machine ran out of memory"
        else:
            why = f"{error.ename}: {error.evalue}"
        raise RuntimeError(
            f"{path.name} failed in code cell [{number}], which begins with\n"
            f"    {cell.source.splitlines()[0]}\n{why}"
        ) from None
    notebook.metadata["measured"] = {"seconds": round(time.perf_counter() - started)}
    return notebook


def title(notebook):
    """Return a notebook's heading."""
    return re.search(r"^# (.+)", notebook.cells[0].source, re.M)[1]


def printed(notebook, tag):
    """Return what the cells with this tag printed."""
    return "".join(
        output.text
        for cell in notebook.cells
        if tag in cell.metadata.get("tags", [])
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    ).strip()


def picture(executed):
    """Return the PNG file that README.md shows: the figure of the cell with that tag."""
    return next(
        base64.b64decode(output.data["image/png"])
        for notebook in executed.values()
        for cell in notebook.cells
        if "readme-picture" in cell.metadata.get("tags", [])
        for output in cell.outputs
    )


def write_page(name, notebook):
    """Write one notebook as a page that needs nothing but itself; links lead to its sisters."""
    page = nbformat.from_dict(notebook)
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((\d\d-[\w-]+)\.ipynb", r"](\1.html", cell.source)
    exporter = HTMLExporter(template_name="lab", exclude_input_prompt=True)
    exporter.exclude_output_prompt = exporter.exclude_anchor_links = True
    exporter.register_preprocessor(
        TagRemovePreprocessor(remove_input_tags={"recap"}, enabled=True), enabled=True
    )
    body, _ = exporter.from_notebook_node(page, {"metadata": {"name": title(notebook)}})
    (PAGES / f"{name}.html").write_text(body, encoding="utf-8")


def write_index(executed, summary):
    """Write pages/index.html: links to the pages, how long each took, and what they found."""
    rows = "\n".join(
        f'<li><a href="{name}.html">{html.escape(title(notebook))}</a>'
        f" <small>{notebook.metadata['measured']['seconds']} s</small></li>"
        for name, notebook in executed.items()
    )
    (PAGES / "index.html").write_text(
        f"""<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Reading handwritten digits</title>
<style>
  body {{ font: 18px/1.6 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto }}
  pre {{ background: #f4f4f4; padding: 1rem; white-space: pre-wrap; font-size: 16px }}
  small {{ color: #666 }}
</style>
<h1>Reading handwritten digits</h1>
<p>The notebooks as they ran on this machine, with the time each one took.</p>
<ol start="0">
{rows}
</ol>
<pre>{html.escape(summary)}</pre>
</html>
""",
        encoding="utf-8",
    )


def main():
    parser = argparse.ArgumentParser(description="Execute the series.")
    parser.add_argument("--store", action="store_true", help="store outputs in notebooks/, too")
    store = parser.parse_args().store
    if status := choose_data():
        return status
    other_data = os.environ.get("DIGITS_DATA")
    if store and other_data:
        print("Stored outputs come from data/mnist.npz: bring it, and leave DIGITS_DATA unset.")
        return 2

    PAGES.mkdir(exist_ok=True)
    executed = {}
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]-*.ipynb")):
        print(path.stem, flush=True)
        try:
            executed[path.stem] = notebook = execute(path)
        except RuntimeError as error:
            print(f"\n{error}", file=sys.stderr)
            return 1
        nbformat.write(notebook, PAGES / path.name)
        write_page(path.stem, notebook)
        print(f"\r    done in {notebook.metadata['measured']['seconds']} s", flush=True)

    summary = "\n".join(filter(None, (printed(nb, "headline") for nb in executed.values())))
    if other_data:
        summary += f"\nNOT MNIST, but the data that DIGITS_DATA names: {Path(other_data).name}"
    write_index(executed, summary)
    if store:
        for name, notebook in executed.items():
            nbformat.write(notebook, NOTEBOOKS / f"{name}.ipynb")
        (ROOT / "README.png").write_bytes(picture(executed))
    seconds = sum(notebook.metadata["measured"]["seconds"] for notebook in executed.values())
    print(f"\nAll of it took {seconds / 60:.1f} minutes.\n\n{summary}\n")
    print(f"Predictions: {DATA / 'result.csv'}\nPages to read: {PAGES / 'index.html'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"{error}\nFree some disk space, or make the folder writable, and run this again.")
