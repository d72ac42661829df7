"""Write "Open in Colab" badges into the notebooks and README.md, to publish the series on GitHub.

    python badges.py owner/name                  the series is at github.com/owner/name
    python badges.py owner/name --branch draft   and on a branch other than main
    python badges.py ""                          remove the badges

A badge links to the notebook on that branch. Existing badges are replaced. Removing them leaves
every file as it was before, byte for byte, because the files are edited as text and nothing else in
them changes.

Exit status: 0 if all is well; 1 if a file has no place for a badge or cannot be written; 2 if a
name is invalid. If any file has no place for its badge, no file is changed.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from recaps import write_atomically

ROOT = Path(__file__).resolve().parent
IMAGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
PLACE = "https://colab.research.google.com/github/"
BADGE = re.compile(rf"(?: ·)? {re.escape(IMAGE)}\({re.escape(PLACE)}[^)]*\)")
# The first line of the first cell, up to its end: it has the links to the neighboring notebooks.
TOP = re.compile(r'"source": \[\s*"\[(?:[^"\\]|\\[^n])*')


def repository(text):
    """Return a valid repository name, "owner/name"; an empty one means no badges."""
    if text and not re.fullmatch(r"[a-z\d][\w-]*/(?!\.+$)[\w.-]+(?<!\.git)", text, re.A | re.I):
        raise argparse.ArgumentTypeError(f"{text!r} does not have the form owner/name")
    return text


def branch(text):
    """Return a valid branch name; letters, digits, and - _ . / do not break a link."""
    if not re.fullmatch(r"\w[\w./-]*", text, re.A):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be part of a link")
    return text


def changes(root, repo, branch):
    """Return {path: new text} for all files that change.

    Raises ValueError if a file has no place for a badge.
    """
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
            raise ValueError(
                f"{path.name} does not begin with links, so there is no place for its badge."
            )
    return {path: text for path, text in new.items() if text != old[path]}


def main(arguments=None, root=ROOT):
    parser = argparse.ArgumentParser(description='Write "Open in Colab" badges.')
    parser.add_argument(
        "repo", type=repository, help="owner/name on GitHub; empty to remove the badges"
    )
    parser.add_argument(
        "--branch", type=branch, default="main", help="the branch to link to (default: main)"
    )
    wishes = parser.parse_args(arguments)
    try:
        new = changes(root, wishes.repo, wishes.branch)
        for path, text in new.items():
            write_atomically(path, text)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    whose = f"badges of {wishes.repo}, branch {wishes.branch}" if wishes.repo else "no badges"
    print(f"{len(new)} files changed: README.md and the notebooks now have {whose}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
