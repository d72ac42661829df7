"""Write "Open in Colab" badges into the notebooks and README.md, for whoever publishes the series.

    python badges.py owner/name                  the series lies at github.com/owner/name
    python badges.py owner/name --branch draft   and there on another branch than main
    python badges.py ""                          take the badges out again

A badge leads to the notebook on that branch. Badges that are there already are replaced. Taken
out, they leave every file as it was, byte for byte. Files are edited as text, so that nothing
else in them changes.

Exit status: 0 done; 1 a file has no place for a badge, or cannot be written; 2 a name is no good.
Unless all files have a place for theirs, none is changed.
"""

import argparse
import json
import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
IMAGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
PLACE = "https://colab.research.google.com/github/"
BADGE = re.compile(rf"(?: ·)? {re.escape(IMAGE)}\({re.escape(PLACE)}[^)]*\)")
# The first line of the first cell, up to its end: it holds the links to the neighbours.
TOP = re.compile(r'"source": \[\s*"\[(?:[^"\\]|\\[^n])*')


def repository(text):
    """Check a repository's name, "owner/name"; an empty one stands for no badges."""
    if text and not re.fullmatch(r"[a-z\d][\w-]*/(?!\.+$)[\w.-]+(?<!\.git)", text, re.A | re.I):
        raise argparse.ArgumentTypeError(f"{text!r} is not like owner/name")
    return text


def branch(text):
    """Check a branch's name: letters, digits and - _ . / do not break a link."""
    if not re.fullmatch(r"\w[\w./-]*", text, re.A):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be part of a link")
    return text


def changes(root, repo, branch):
    """Return {path: new text} of all files that change. Raises ValueError if one has no place."""
    readme = root / "README.md"
    notebooks = sorted((root / "notebooks").glob("[0-9][0-9]-*.ipynb"))
    old = {path: path.read_bytes().decode("utf-8") for path in [readme, *notebooks]}
    new = {path: BADGE.sub("", text) for path, text in old.items()}
    for path in notebooks if repo else ():
        badge = f"{IMAGE}({PLACE}{repo}/blob/{branch}/notebooks/{path.name})"
        row = re.compile(rf"^\| \[[^]]*\]\(notebooks/{re.escape(path.name)}\)", re.M)
        for file, place, space in (readme, row, " "), (path, TOP, " · "):
            if not (match := place.search(new[file])):
                raise ValueError(f"{file.name} has no place for the badge of {path.name}.")
            new[file] = new[file][: match.end()] + space + badge + new[file][match.end() :]
        if badge not in "".join(json.loads(new[path])["cells"][0]["source"]):
            raise ValueError(f"{path.name} does not begin with links: no place for its badge.")
    return {path: text for path, text in new.items() if text != old[path]}


def write(path, text):
    """Write a file so that it is either the new one or the old one, never half of one."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(text.encode("utf-8"))
        shutil.copymode(path, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def main(arguments=None, root=ROOT):
    parser = argparse.ArgumentParser(description='Write "Open in Colab" badges.')
    parser.add_argument("repo", type=repository, help="owner/name on GitHub; empty: no badges")
    parser.add_argument("--branch", type=branch, default="main", help="main, if not given")
    wishes = parser.parse_args(arguments)
    try:
        new = changes(root, wishes.repo, wishes.branch)
        for path, text in new.items():
            write(path, text)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    whose = f"badges of {wishes.repo}, branch {wishes.branch}" if wishes.repo else "no badges"
    print(f"{len(new)} files changed: README.md and the notebooks now have {whose}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
