"""What runs, what is read and what listens: nothing that a stranger's file or network can use.

Each rule is a function that returns what breaks it, and is shown to find what it should.
"""

import ast
import re
import struct
import zlib

import keras
import numpy as np
import pytest
from conftest import NOTEBOOKS, ROOT, code_cells, definitions, read, syntax

SCRIPTS = sorted([*ROOT.glob("*.py"), *ROOT.glob("data/*.py"), *ROOT.glob("tests/**/*.py")])
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
every_script = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)


# --- Commands -----------------------------------------------------------------------------------

COMMAND = re.compile(
    r"""^\s*!                                        # Jupyter's own way to run a command,
    | ^\s*[\w, ]+=\s*!                               # to keep what it prints,
    | ^\s*%%?(bash|sh|script|cmd|powershell|perl|ruby|system|sx|sc)\b  # and by name
    | \bos\.(system|popen|startfile|exec\w+|spawn\w+|posix_spawn\w*)\b
    | \b(subprocess|pty)\b
    | \bget_ipython\(\)(?!\.kernel\b)""",
    re.X,
)
PIP = re.compile(r"    %pip install --quiet [a-z]+")


def shell_commands(source):
    """Return the lines of a cell that run a command, or magic other than a guarded %pip install."""
    found, previous = [], ""
    for line in source.splitlines():
        guarded = PIP.fullmatch(line) and re.fullmatch(r"if find_spec\(.+\) is None:", previous)
        if COMMAND.search(line) or (re.match(r"\s*%", line) and not guarded):
            found.append(line)
        previous = line
    return found


@every_notebook
def test_notebooks_run_no_commands(path):
    assert [line for cell in code_cells(read(path)) for line in shell_commands(cell.source)] == []


@pytest.mark.parametrize(
    "line",
    [
        "!ls",
        "    !pip install anywidget",
        "files = !ls",
        "%%bash",
        "%system ls",
        "%matplotlib inline",
        "%pip install anywidget",
        "os.system('ls')",
        "os.execvp('ls', [])",
        "import subprocess",
        "from os import path, popen; import pty",
        "get_ipython().system('ls')",
        "if True:\n    %pip install --quiet anywidget",
        "if find_spec('a') is None:\n    %pip install --quiet a --index-url http://b",
    ],
)
def test_commands_are_found(line):
    assert shell_commands(f"x = 1\n{line}") == [line.splitlines()[-1]]


@pytest.mark.parametrize(
    "source",
    ["a = b if c != d else 7 % 3", "if find_spec('a') is None:\n    %pip install --quiet a"],
)
def test_what_is_no_command_is_not_taken_for_one(source):
    assert shell_commands(source) == []


# --- Reading files ------------------------------------------------------------------------------

NO_IMPORT = {"pickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "torch"}
NO_CALL = {"eval", "exec", "compile", "__import__"}
NO_METHOD = {"read_pickle", "enable_unsafe_deserialization"}
ONLY = {"allow_pickle": False, "safe_mode": True}  # else a file may hold code, which then runs


def unsafe_options(tree):
    """Return calls that allow code in files: np.load, keras.models.load_model and their like."""
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for option in node.keywords
        if option.arg in ONLY
        and getattr(option.value, "value", None) is not ONLY[option.arg]
        or option.arg is None
        and getattr(node.func, "attr", "") in ("load", "load_model")
    ]


def unsafe_code(tree):
    """Return what runs code out of texts or files: imports, calls and names."""
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [name for name in names if name.split(".")[0] in NO_IMPORT]
        if isinstance(node, ast.Name) and node.id in NO_CALL:
            found.append(node.id)
        elif isinstance(node, ast.Attribute) and node.attr in NO_METHOD:
            found.append(node.attr)
    return found


@every_notebook
def test_notebooks_run_no_code_out_of_files(path):
    for cell in code_cells(read(path)):
        assert unsafe_options(syntax(cell)) == []
        assert unsafe_code(syntax(cell)) == []


@every_script
def test_scripts_read_arrays_and_models_only(path):
    found = unsafe_options(ast.parse(path.read_text(encoding="utf-8")))
    attack = "keras.models.load_model(path, safe_mode=False)"  # the one below, to show its effect
    assert found == ([attack] if path.name == "test_safety.py" else [])


@pytest.mark.parametrize(
    "source",
    [
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=anything)",
        "np.load(path, **options)",
        "keras.models.load_model(path, safe_mode=False)",
        "keras.saving.load_model(path, safe_mode=None)",
    ],
)
def test_unsafe_options_are_found(source):
    assert unsafe_options(ast.parse(source)) == [source]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import torch.nn",
        "from joblib import load",
        "eval('1')",
        "run = exec",
        "pd.read_pickle(path)",
        "keras.config.enable_unsafe_deserialization()",
    ],
)
def test_unsafe_code_is_found(source):
    assert len(unsafe_code(ast.parse(source))) == 1


def test_a_model_file_with_code_in_it_is_not_used(tmp_path, capsys):
    """A stranger's model.keras: a layer holds code, and Keras would run it on loading."""
    trace = tmp_path / "the-code-ran"
    name = str(trace)
    layer = keras.layers.Lambda(lambda x: (__import__("pathlib").Path(name).touch(), x)[1])
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((28, 28, 1)), layer], name="cnn_toy").save(path)
    trace.unlink()  # the code has run once already, on making the file
    keras.models.load_model(path, safe_mode=False)
    assert trace.exists(), "this file is dangerous"
    trace.unlink()

    random = np.random.default_rng(0)
    images = random.random((64, 28, 28, 1)).astype("float32")
    given = {"DATA": tmp_path, "data_name": "toy", "x_train": images, "y_train": np.arange(64) % 10}
    load_or_train = definitions("05", "load_or_train", "build_cnn", **given)["load_or_train"]
    model = load_or_train("model.keras")
    assert not trace.exists(), "the file's code ran"
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in model.layers)
    said = capsys.readouterr().out
    assert "model.keras cannot be read" in said and "Using a quick, less accurate model" in said


# --- Images -------------------------------------------------------------------------------------


def lifted_limits(source):
    """Return Pillow's safety limits that this code touches."""
    return re.findall(r"MAX_IMAGE_PIXELS|LOAD_TRUNCATED_IMAGES|MAX_TEXT_\w+", source)


@every_notebook
def test_pillows_limits_stay(path):
    for cell in code_cells(read(path)):
        assert lifted_limits(cell.source) == []


def test_lifted_limits_are_found():
    assert lifted_limits("Image.MAX_IMAGE_PIXELS = None") == ["MAX_IMAGE_PIXELS"]


def bomb(width, height):
    """A PNG of some bytes that claims to be width × height pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


# Pillow itself refuses more than twice its limit of 89 million pixels. From once to twice it only
# warns, and the notebook makes a refusal of that.
@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (12_000, 8_000)])
def test_a_decompression_bomb_is_refused_with_a_sentence(tmp_path, capsys, width, height):
    names = definitions("07", DATA=tmp_path)  # nothing gets as far as a model
    (tmp_path / "bomb.png").write_bytes(bomb(width, height))
    names["read_folder"](tmp_path, None, show=False)
    said = capsys.readouterr().out
    assert said.startswith("bomb.png: ") and "larger than 89 million pixels" in said
    assert "damaged" not in said


def test_a_file_below_the_limit_is_refused_for_another_reason(tmp_path, capsys):
    names = definitions("07", DATA=tmp_path)
    (tmp_path / "cut.png").write_bytes(bomb(3000, 3000))
    names["read_folder"](tmp_path, None, show=False)
    assert "damaged or incomplete" in capsys.readouterr().out


# --- What listens -------------------------------------------------------------------------------

LOOPBACK = r"127\.0\.0\.1|localhost"
BEYOND = re.compile(
    rf"""--(?:ServerApp\.|NotebookApp\.)?ip[= ]['"]?(?!(?:{LOOPBACK})\b).*
    | \bServerApp\.ip\b.*
    | --(?:ServerApp\.)?allow_(?:remote_access|origin)\b.*
    | \b(?:bind|\w*Server)\(\s*\(\s*(?!["'](?:{LOOPBACK})["'],).*
    | -m["',\s]+http\.server(?!.*--bind["',=\s]+(?:{LOOPBACK})).*
    | \b0\.0\.0\.0\b""",
    re.X,
)


def listens_beyond(text):
    """Return the places where something would listen to other machines than this one."""
    return [match[0].strip() for match in BEYOND.finditer(text)]


def test_whatever_listens_does_so_on_this_machine_only():
    files = [*SCRIPTS, ROOT / "Makefile", ROOT / "README.md"]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    texts |= {path: "\n".join(cell.source for cell in read(path).cells) for path in NOTEBOOKS}
    del texts[ROOT / "tests" / "test_safety.py"]  # it holds bad examples
    assert {path.name: found for path in texts if (found := listens_beyond(texts[path]))} == {}
    makefile = texts[ROOT / "Makefile"]
    assert re.search(r"^\t.*\blab .*notebooks/00", makefile, re.M), "make lab is looked at"
    assert not re.search(r"token=|password=", makefile), "JupyterLab asks who is there"


@pytest.mark.parametrize(
    "line",
    [
        "\tjupyter lab --ip=0.0.0.0 notebooks",
        "\tjupyter lab --ip 192.168.0.7 notebooks",
        "jupyter lab --ServerApp.ip='*'",
        "c.ServerApp.ip = '*'",
        '"--ServerApp.allow_remote_access=True"',
        'listener.bind(("", 0))',
        'HTTPServer(\n    ("", 0), Handler)',
        "HTTPServer((host, 0), Handler)",
        '[sys.executable, "-m", "http.server", "8000"]',
    ],
)
def test_what_listens_beyond_is_found(line):
    assert listens_beyond(f"x = 1\n{line}\n")


@pytest.mark.parametrize(
    "line",
    [
        "jupyter lab notebooks/00-start-here.ipynb",
        '"--ip=127.0.0.1"',
        'listener.bind(("127.0.0.1", 0))',
        'ThreadingHTTPServer(\n    ("127.0.0.1", 0), Handler)',
        "python -m http.server --bind 127.0.0.1",
    ],
)
def test_what_listens_here_is_fine(line):
    assert listens_beyond(line) == []
