"""Write the cells that stand in several notebooks, from the one place where each is edited.

    python recaps.py            write the copies
    python recaps.py --check    only say which copies differ; exit status 1 if any does

- The setup cell is edited in notebook 00; every other notebook gets a copy.
- The web page of notebook 11 is edited in the folder web/; the notebook's cell with the tag "page"
  gets a copy, because a notebook that is opened alone has no such folder.
- A recap cell repeats definitions of other notebooks. Its first line names them,
      # @title Recap: load_digits, scale
  and the rest of the cell is written by this script: the definitions as they stand in the notebook
  that teaches them, what these need in turn, and the imports for all of it.

Outputs, metadata, and all other cells stay as they are.
"""

import argparse
import ast
import json
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
NOTEBOOKS = ROOT / "notebooks"
TITLE = "# @title Recap: "
NOTE = "# Copied from the notebooks that explain them. To change one, see recaps.py.\n"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell):
    return "".join(cell["source"])


def syntax(text):
    """Parse a cell; a line of Jupyter's own, such as %pip, counts as `pass`."""
    return ast.parse(re.sub(r"^(\s*)%.*", r"\1pass", text, flags=re.M))


def tagged(notebook, tag):
    """Return the code cells with this tag."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [cell for cell in cells if tag in cell["metadata"].get("tags", [])]


def segment(text, node):
    """Return the text of a statement, decorators included."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


class Lesson:
    """What one notebook defines outside its setup and recap cells, and all that it imports."""

    def __init__(self, notebook):
        self.definitions, self.imports = {}, {}
        copied = tagged(notebook, "recap")
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            text = source(cell)
            for node in syntax(text).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    self.add_imports(node)
                elif cell not in copied:
                    self.add_definition(text, node)

    def add_imports(self, node):
        for alias in node.names:
            what = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
            plain = isinstance(node, ast.Import)
            line = (0, f"import {what}") if plain else (1, node.module, what)
            self.imports[alias.asname or alias.name] = line

    def add_definition(self, text, node):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self.definitions[node.name] = segment(text, node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name.isupper() and name != "DATA":
                self.definitions[name] = segment(text, node)


def needed_names(definition):
    """Return the names that a definition takes from outside itself, in alphabetical order."""
    nodes = list(ast.walk(ast.parse(definition)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    own = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    own |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return sorted({node.id for node in names} - own)


def collect(name, lessons, found, imports):
    """Put a definition into `found`, after all that it needs; add the imports to `imports`."""
    teacher = next((lesson for lesson in lessons if name in lesson.definitions), None)
    if teacher is None:
        raise SystemExit(f"No notebook defines {name}, which a recap cell names in its first line.")
    for need in needed_names(teacher.definitions[name]):
        if need in teacher.imports:
            imports.add(teacher.imports[need])
        elif need != name and need not in found and any(need in s.definitions for s in lessons):
            collect(need, lessons, found, imports)
    found[name] = teacher.definitions[name]


def import_block(imports, known):
    """Return import statements in the order that ruff wants, without those that setup has."""
    sections = {True: [], False: []}  # the standard library first
    from_lines = {}
    for line in sorted(imports - known):
        if line[0] == 0:
            module = line[1].split()[1]
            sections[module.split(".")[0] in sys.stdlib_module_names].append(line[1])
        else:
            from_lines.setdefault(line[1], []).append(line[2])
    for module, names in sorted(from_lines.items(), key=lambda item: item[0].lower()):
        text = f"from {module} import {', '.join(sorted(names, key=isort_key))}"
        sections[module.split(".")[0] in sys.stdlib_module_names].append(text)
    return "\n\n".join("\n".join(lines) for lines in sections.values() if lines)


def isort_key(name):
    """Constants, then classes, then functions, as isort sorts what is imported from a module."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def recap(title_line, lessons, known):
    """Return the text of a recap cell whose first line is given."""
    found, imports = {}, set()
    for name in title_line.removeprefix(TITLE).split(","):
        collect(name.strip(), lessons, found, imports)
    parts, previous = [], ""
    for name, text in found.items():
        gap = "\n" if name.isupper() and previous.isupper() else "\n\n\n"
        parts.append((gap if parts else "") + text)
        previous = name
    block = import_block(imports, known)
    if block:
        after = "\n\n" if next(iter(found)).isupper() else "\n\n\n"
        return f"{title_line}\n{NOTE}{block}{after}{''.join(parts)}"
    return f"{title_line}\n{NOTE}{''.join(parts)}"


def page_cell():
    """Return the text of the cell that holds the page of web/, style and scripts included."""
    page = (ROOT / "web" / "draw.html").read_text(encoding="utf-8")
    for name in ("draw.css", "network.js", "draw.js"):
        part = (ROOT / "web" / name).read_text(encoding="utf-8")
        page = page.replace(f"/* {name} */\n", part)
    title = "# @title The page: HTML, CSS, and JavaScript, without the weights"
    note = "# Copied from the folder web/. To change it, see recaps.py.\n"
    return f'{title}\n{note}PAGE = r"""{page}"""'


def definitions(*names):
    """Return Python code that defines these names as the notebooks do, with all that they need."""
    lessons = [Lesson(read(path)) for path in sorted(NOTEBOOKS.glob("[0-9][0-9]-*.ipynb"))]
    return recap(TITLE + ", ".join(names), lessons, set())


def changed_cells(path, notebook, setup, lessons, known):
    """Give each copied cell its text. Return the titles of the cells that have changed."""
    changed = []
    texts = [(cell, setup) for cell in tagged(notebook, "setup")]
    texts += [(cell, page_cell()) for cell in tagged(notebook, "page")]
    for cell in tagged(notebook, "recap"):
        title_line = source(cell).splitlines()[0]
        if not title_line.startswith(TITLE):
            raise SystemExit(f"{path.name}: a recap cell has to begin with {TITLE}name, name")
        texts.append((cell, recap(title_line, lessons, known)))
    for cell, text in texts:
        if source(cell) != text:
            cell["source"] = text.splitlines(keepends=True)
            changed.append(text.splitlines()[0])
    return changed


def write_atomically(path, content):
    """Write text or bytes under a temporary name, and rename: a file is whole, or the old one."""
    part = path.with_name(f"unfinished-{path.name}")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description="Write setup and recap cells.")
    parser.add_argument("--check", action="store_true", help="only say which copies differ")
    wishes = parser.parse_args()
    notebooks = {path: read(path) for path in sorted(NOTEBOOKS.glob("[0-9][0-9]-*.ipynb"))}
    first = next(iter(notebooks.values()))
    setup = source(tagged(first, "setup")[0])
    lessons = [Lesson(notebook) for notebook in notebooks.values()]
    known = set()
    for node in ast.walk(ast.parse(setup)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            only_setup = Lesson({"cells": []})
            only_setup.add_imports(node)
            known |= set(only_setup.imports.values())
    differing = 0
    for path, notebook in notebooks.items():
        for title in changed_cells(path, notebook, setup, lessons, known):
            differing += 1
            print(f"{path.name}: {title}")
            if not wishes.check:
                write_atomically(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    return 1 if wishes.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
