"""Execute the series: bring the data, run the notebooks, write data/result.csv and pages/.

pages/draw.html runs the network of data/model.keras in a browser; notebook 11 explains it.

    python run.py            execute the core, 00 to 07, and write all pages; the others are shown
                             with the outputs stored in them. The notebooks stay as they are
    python run.py --all      execute every notebook
    python run.py --store    the same, and store the outputs in notebooks/, and README.png (for
                             editors)

Exit status: 0 done; 1 a notebook failed, or not even a stand-in could be written; 2 the data is
not what it should be: data/mnist.npz is not MNIST, DIGITS_DATA names a missing file, or --store
was asked for without MNIST.
"""

import argparse
import base64
import html
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert import HTMLExporter
from PIL import Image
from traitlets.config import Config

import recaps
from recaps import write_atomically

ROOT = Path(__file__).resolve().parent
NOTEBOOKS, DATA, PAGES = ROOT / "notebooks", ROOT / "data", ROOT / "pages"
CORE = "07"  # the last notebook that is executed if nothing else is asked for
sys.path.insert(0, str(DATA))
import get_mnist  # noqa: E402

# What is folded in JupyterLab is folded in the pages, too: a reader opens it with a click.
FOLDING_TEMPLATE = """
{%- extends "lab/index.html.j2" -%}
{%- block input_group -%}
{%- if cell.metadata.get("jupyter", {}).get("source_hidden") -%}
<details class="folded"><summary>{{ cell.source.splitlines()[0] | replace("# @title ", "") | e }}
</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock input_group -%}
{%- block output_group -%}
{%- if cell.metadata.get("jupyter", {}).get("outputs_hidden") -%}
<details class="folded"><summary>Show the result</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock output_group -%}
{%- block html_head -%}{{ super() }}
<style>
  details.folded > summary { cursor: pointer; color: #555; font: 14px system-ui, sans-serif;
    padding: 4px 8px }
  body { max-width: 60rem; margin: 0 auto }
</style>
{%- endblock html_head -%}
"""
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
    if given := os.environ.get("DIGITS_DATA"):
        given = Path(given).resolve()  # the notebooks run in another folder
        if not given.is_file():
            print(f"DIGITS_DATA names a missing file, {given}: correct or unset it.")
            return 2
        os.environ["DIGITS_DATA"] = str(given)
        print(f"DIGITS_DATA names the data: {given}")
        return 0
    status = get_mnist.main([])
    if status == 1:
        print(STAND_IN_WARNING)
        status = get_mnist.main(["--stand-in"])
        os.environ["DIGITS_DATA"] = str(DATA / "stand-in.npz")
    return status


def connection(folder):
    """Return how to reach a kernel: through files in a private folder, where the platform can.

    The other way, TCP, is not encrypted, and each kernel would print a warning that says so.
    """
    address = folder / "kernel"
    if os.name != "posix" or len(os.fsencode(address)) + 2 >= 104:  # macOS takes no longer ones
        return {}
    return {"transport": "ipc", "ip": str(address), "connection_file": str(folder / "kernel.json")}


def failure(path, notebook, client, error):
    """Say in which cell a notebook failed, and why."""
    number = client.code_cells_executed
    cell = [c for c in notebook.cells if c.cell_type == "code" and c.source][number - 1]
    if isinstance(error, DeadKernelError):
        why = "the kernel died; most often the machine ran out of memory: close other programs, "
        why += "and run this again"
    else:
        why = f"{error.ename}: {error.evalue}"
    return (
        f"{path.name} failed in code cell [{number}], which begins with\n"
        f"    {cell.source.splitlines()[0]}\n{why}"
    )


def execute(path):
    """Execute a notebook in its own folder. Return it, outputs and run time included.

    Raises RuntimeError saying which cell failed and why.
    """
    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="digits-") as folder:
        if not os.access(os.path.expanduser("~"), os.W_OK):  # both would warn about that
            os.environ |= {"IPYTHONDIR": folder, "MPLCONFIGDIR": folder}
        client = Client(
            notebook,
            timeout=None,
            startup_timeout=600,  # s; a busy machine may need more than the usual minute
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": str(path.parent)}},
            config=Config(KernelManager=connection(Path(folder))),
        )
        try:
            client.execute()
        except (CellExecutionError, DeadKernelError) as error:
            raise RuntimeError(failure(path, notebook, client, error)) from None
        except AssertionError:
            if client.km is None:  # on Ctrl-C, nbclient ends the kernel, and then misses it
                raise KeyboardInterrupt from None
            raise
    shrink_figures(notebook)
    notebook.metadata["measured"] = {"seconds": round(time.perf_counter() - started)}
    return notebook


def store_outputs(path, notebook):
    """Write an executed notebook to `path`, unless its cells were edited meanwhile."""
    now = nbformat.read(path, as_version=4)
    if [cell.source for cell in now.cells] != [cell.source for cell in notebook.cells]:
        print(f"{path.name} was edited while it was executed, so its outputs are not stored.")
        return
    write_atomically(path, nbformat.writes(notebook) + "\n")


def shrink_figures(notebook):
    """Store the PNG figures of a notebook in fewer bytes, with the same pixels."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                file, image = io.BytesIO(), Image.open(io.BytesIO(base64.b64decode(png)))
                if image.mode == "RGBA" and image.getextrema()[3] == (255, 255):
                    image = image.convert("RGB")  # nothing is transparent
                if image.mode == "RGB" and image.getcolors(256):  # few colors: a palette is shorter
                    few = image.quantize(256, dither=Image.Dither.NONE)
                    if few.convert("RGB").tobytes() == image.tobytes():
                        image = few
                image.save(file, "PNG", optimize=True)
                output.data["image/png"] = base64.b64encode(file.getvalue()).decode()


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


def readme_image(executed):
    """Return the PNG file that README.md shows: the figure of the cell with that tag."""
    return next(
        base64.b64decode(output.data["image/png"])
        for notebook in executed.values()
        for cell in notebook.cells
        if "readme-image" in cell.metadata.get("tags", [])
        for output in cell.outputs
    )


def write_page(name, notebook):
    """Write one notebook as a page that needs nothing but itself; links lead to its sisters."""
    page = nbformat.from_dict(notebook)
    for cell in page.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\]\((\d\d-[\w-]+)\.ipynb", r"](\1.html", cell.source)
            cell.source = re.sub(r" · \[!\[Open in Colab]\S+", "", cell.source)  # from the internet
    exporter = HTMLExporter(template_name="lab", exclude_input_prompt=True)
    exporter.raw_template = FOLDING_TEMPLATE
    exporter.exclude_output_prompt = exporter.exclude_anchor_links = True
    # No formulas, no scripts that ask for a loader: nothing is to be fetched from the internet.
    exporter.mathjax_url = exporter.require_js_url = ""
    body, _ = exporter.from_notebook_node(page, {"metadata": {"name": title(notebook)}})
    write_atomically(PAGES / f"{name}.html", body)


def write_draw_page():
    """Write pages/draw.html with notebook 11's function, or say why there is none."""
    page, model_file = PAGES / "draw.html", DATA / "model.keras"
    page.unlink(missing_ok=True)
    if not model_file.exists():
        print(f"No page to draw on: {model_file} is missing; notebook 04 makes it.")
        return
    eleven = {"DATA": DATA}
    exec(recaps.definitions("load_digits", "scale", "split", "write_draw_page"), eleven)
    (x_all, y_all), _, data_name = eleven["load_digits"]()
    _, x_val, _, y_val = eleven["split"](eleven["scale"](x_all), y_all)
    try:
        eleven["write_draw_page"](page, model_file, x_val, y_val, data_name)
    except ValueError as error:  # a network of another kind, or of other data
        print(f"No page to draw on: {error}.")


def write_index(executed, stored, summary):
    """Write pages/index.html: links to the pages, how long each took, and what they found.

    executed, stored: {name: notebook}, those that ran here, and those shown as they were stored.
    """
    rows, drawing = "", ""
    if (PAGES / "draw.html").exists():
        drawing = '<p><a href="draw.html">Draw a digit and watch every layer</a></p>\n'
    for name, notebook in (executed | stored).items():
        how = "with its stored outputs; <code>make all</code> executes it"
        if name in executed:
            how = f"{notebook.metadata['measured']['seconds']} s"
        link = f'<a href="{name}.html">{html.escape(title(notebook))}</a>'
        rows += f"<li>{link} <small>{how}</small></li>\n"
    write_atomically(
        PAGES / "index.html",
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
<p>The notebooks as they ran on this machine, with the time that each one took. Others are shown
with their stored outputs, where it says so.</p>
{drawing}<ol start="0">
{rows}</ol>
<pre>{html.escape(summary)}</pre>
</html>
""",
    )


def main():
    parser = argparse.ArgumentParser(description="Execute the series.")
    parser.add_argument("--all", action="store_true", help="execute every notebook")
    parser.add_argument("--store", action="store_true", help="store outputs in notebooks/, too")
    wishes = parser.parse_args()
    store = wishes.store
    if status := choose_data():
        return status
    other_data = os.environ.get("DIGITS_DATA")
    if store and other_data:
        print("Stored outputs come from data/mnist.npz: bring it, and leave DIGITS_DATA unset.")
        return 2

    PAGES.mkdir(exist_ok=True)
    executed, stored = {}, {}
    for path in sorted(NOTEBOOKS.glob("[0-9][0-9]-*.ipynb")):
        if path.name[:2] > CORE and not (wishes.all or store):
            stored[path.stem] = nbformat.read(path, as_version=4)
            write_page(path.stem, stored[path.stem])
            continue
        print(path.stem, flush=True)
        try:
            executed[path.stem] = notebook = execute(path)
        except RuntimeError as error:
            print(f"\n{error}", file=sys.stderr)
            return 1
        write_atomically(PAGES / path.name, nbformat.writes(notebook))
        write_page(path.stem, notebook)
        print(f"\r    done in {notebook.metadata['measured']['seconds']} s", flush=True)

    summary = "\n".join(filter(None, (printed(nb, "headline") for nb in executed.values())))
    if other_data:
        summary += f"\nNOT MNIST, but the data that DIGITS_DATA names: {Path(other_data).name}"
    write_draw_page()
    write_index(executed, stored, summary)
    if store:
        for name, notebook in executed.items():
            store_outputs(NOTEBOOKS / f"{name}.ipynb", notebook)
        write_atomically(ROOT / "README.png", readme_image(executed))
    seconds = sum(notebook.metadata["measured"]["seconds"] for notebook in executed.values())
    print(f"\nAll of it took {seconds / 60:.1f} minutes.\n\n{summary}\n")
    if stored:
        print(f"Shown with stored outputs: {', '.join(stored)} (make all executes them)")
    print(f"Predictions: {DATA / 'result.csv'}\nPages to read: {PAGES / 'index.html'}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"{error}\nFree some disk space, or make the folder writable, and run this again.")
    except KeyboardInterrupt:
        sys.exit("\nStopped. Run this again: notebook 04 continues after its last whole epoch.")
