"""Run every notebook under nbval, in order where one needs what another leaves, two at a time.

    python tests/every_notebook.py TREE --nbval        each cell must print what is stored
    python tests/every_notebook.py TREE --nbval-lax    only errors count

TREE: a copy of the project, in which the notebooks leave their files. Exit status: 0 if all pass.
It is a process of its own, so that it can go on while other tests run (see conftest.py).
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# 03 and 04 leave the models that the others load. Long ones follow first, so that both cores are
# busy to the end; 07 comes before 09, whose network it would use.
FIRST = {"03": ["10", "08", "01", "00", "02"], "04": ["07", "09", "11", "05", "06"]}


def main(tree, how):
    command = [
        *(sys.executable, "-m", "pytest", "-p", "no:python", "-p", "no:cacheprovider"),
        *(how, "--nbval-current-env", "--nbval-cell-timeout", "1800", "--tb", "short"),
        *("--no-header", "--color", "no"),
    ]
    paths = {path.name[:2]: path for path in (tree / "notebooks").glob("[0-9][0-9]-*.ipynb")}
    assert paths.keys() == FIRST.keys() | {number for later in FIRST.values() for number in later}

    def run(number, after=None):
        if after:
            after.result()  # wait for the model
        whole = [*command, f"notebooks/{paths[number].name}"]
        done = subprocess.run(whole, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        sys.stdout.buffer.write(done.stdout)  # in one piece, not line by line with another's
        sys.stdout.flush()
        return done.returncode

    with ThreadPoolExecutor(2) as pool:
        ends = {number: pool.submit(run, number) for number in FIRST}
        for number, later in FIRST.items():
            for name in later:
                ends[name] = pool.submit(run, name, ends[number])
    return max(abs(end.result()) for end in ends.values())  # of a killed process: below 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
