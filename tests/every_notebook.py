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

# Long ones come early, so that both cores are busy to the end, and 04 and 09 before others, because
# tests wait for their networks. 07 comes before 09, whose network it would use.
ORDER = ["04", "03", "08", "07", "09", "10", "01", "11", "05", "06", "00", "02"]
AFTER = {"05": ["03", "04"], "06": ["04"], "07": ["04"], "09": ["07"], "11": ["04"]}


def main(tree, how):
    command = [
        *(sys.executable, "-m", "pytest", "-p", "no:python", "-p", "no:cacheprovider"),
        *(how, "--nbval-current-env", "--nbval-cell-timeout", "1800"),
        *("--nbval-kernel-startup-timeout", "600", "--tb", "short"),
        *("--no-header", "--color", "no"),
    ]
    paths = {path.name[:2]: path for path in (tree / "notebooks").glob("[0-9][0-9]-*.ipynb")}
    assert sorted(ORDER) == sorted(paths)
    ends = {}

    def run(number):
        for earlier in AFTER.get(number, ()):
            ends[earlier].result()  # wait for its network
        whole = [*command, f"notebooks/{paths[number].name}"]
        done = subprocess.run(whole, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        sys.stdout.buffer.write(done.stdout)  # in one piece, not line by line with another's
        sys.stdout.flush()
        return done.returncode

    with ThreadPoolExecutor(2) as pool:
        for number in ORDER:
            ends[number] = pool.submit(run, number)
    return max(abs(end.result()) for end in ends.values())  # of a killed process: below 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
