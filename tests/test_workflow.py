"""The workflow for GitHub Actions: it calls what is there. (It is not run here.)"""

import itertools
import re
import shlex
from types import SimpleNamespace

import conftest
import pytest
import yaml
from conftest import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"
SUPPORTED = {"3.11", "3.12", "3.13"}


def fill(part, entry):
    """Put an entry's values into a part of a workflow, wherever it says ${{ matrix... }}."""
    if isinstance(part, dict):
        return {key: fill(value, entry) for key, value in part.items() if key != "strategy"}
    if isinstance(part, list):
        return [fill(value, entry) for value in part]
    if isinstance(part, str):
        return re.sub(r"\$\{\{ matrix\.(\w+) }}", lambda match: entry[match[1]], part)
    return part


def jobs(text):
    """Return the jobs of a workflow: one for each entry of a matrix, with its values filled in.

    What `include` lists counts as entries of their own: ours name every value that they need.
    """
    found = []
    for job in yaml.safe_load(text)["jobs"].values():
        matrix = dict(job.get("strategy", {}).get("matrix", {}))
        include = matrix.pop("include", [])
        entries = [dict(zip(matrix, v, strict=True)) for v in itertools.product(*matrix.values())]
        found += [
            fill(job, entry) for entry in (entries if matrix or not include else []) + include
        ]
    return found


def commands(text):
    """Return all command lines of a workflow, each as a list of words, with / in paths."""
    runs = [step["run"] for job in jobs(text) for step in job["steps"] if "run" in step]
    lines = [line.replace("\\", "/") for run in runs for line in run.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def targets(makefile):
    """Return the names of what a Makefile can make."""
    names = re.findall(r"^([\w./ -]+):(?!=)", makefile, re.M)
    return {name for line in names for name in line.split()} - {".PHONY", ".DEFAULT_GOAL"}


def faults(text, makefile):
    """Return what a workflow calls, or asks for, that is not there."""
    found = []
    for words in commands(text):
        program = words[0].rsplit("/", 1)[-1]
        if program == "make":
            found += [f"make {word}" for word in words[1:] if word not in targets(makefile)]
        elif program == "python":
            found += [
                word
                for before, word in itertools.pairwise(words)
                if (before in ("-r", "-c", "pytest") or word.endswith(".py"))
                and not (ROOT / word).exists()
            ]
    for job in jobs(text):
        for step in job["steps"]:
            if "setup-python" in step.get("uses", ""):
                version = step["with"]["python-version"]
                found += [f"Python {version}"] * (version not in SUPPORTED)
                listed = step["with"]["cache-dependency-path"].split()
                found += [name for name in listed if not (ROOT / name).exists()]
    return found


@pytest.fixture
def workflow():
    return WORKFLOW.read_text(encoding="utf-8")


@pytest.fixture
def makefile():
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def test_everything_it_calls_is_there(workflow, makefile):
    assert faults(workflow, makefile) == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("make data/mnist.npz", "make data/digits.npz", "make data/digits.npz"),
        ("target: test-colab", "target: test-collab", "make test-collab"),
        ("python -m venv .venv", "python running.py", "running.py"),
        ("-m pytest tests", "-m pytest test", "test"),
        ("-c constraints.txt", "-c pins.txt", "pins.txt"),
        ('"3.11", ', '"3.10", ', "Python 3.10"),
        ('python: "3.13"', "python: '3.14'", "Python 3.14"),
        ("            constraints.txt", "            pins.txt", "pins.txt"),
    ],
)
def test_what_is_not_there_is_found(workflow, makefile, right, wrong, fault):
    assert right in workflow
    assert fault in faults(workflow.replace(right, wrong), makefile)


def test_every_supported_python_and_every_system_is_tested(workflow):
    tested = {
        (job["runs-on"], step["with"]["python-version"])
        for job in jobs(workflow)
        for step in job["steps"]
        if "setup-python" in step.get("uses", "")
    }
    assert {version for system, version in tested if system == "ubuntu-latest"} == SUPPORTED
    assert {system for system, _ in tested} == {"ubuntu-latest", "macos-latest", "windows-latest"}


def test_windows_does_by_hand_what_make_does(workflow, makefile):
    """Its lines are those of README.md's "Without make", or make's own."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [
        line.strip() for line in (readme + makefile.replace("$(BIN)", ".venv/bin")).splitlines()
    ]
    by_hand = {line.split("  #")[0].rstrip() for line in lines}
    (windows,) = (job for job in jobs(workflow) if job["runs-on"] == "windows-latest")
    runs = [step["run"] for step in windows["steps"] if "python " in step.get("run", "")]
    assert len(runs) == 3
    for run in runs:
        assert run.replace(".venv\\Scripts\\python", ".venv/bin/python") in by_hand


def test_it_may_only_read_and_ends(workflow):
    assert yaml.safe_load(workflow)["permissions"] == {"contents": "read"}
    for job in jobs(workflow):
        assert "permissions" not in job
        assert job["timeout-minutes"] <= 180
        for step in job["steps"]:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/a@v1"))


@pytest.mark.parametrize("must_run, skipped, status", [("1", 2, 1), ("1", 0, 0), ("", 2, 0)])
def test_where_tests_must_run_skipped_ones_fail(monkeypatch, must_run, skipped, status):
    """As in `make test-offline` and `make test-jupyterlab`: a machine may lack something."""
    monkeypatch.setenv("MUST_RUN", must_run)
    reporter = SimpleNamespace(stats={"skipped": [object()] * skipped})
    plugins = SimpleNamespace(getplugin={"terminalreporter": reporter}.get)
    session = SimpleNamespace(config=SimpleNamespace(pluginmanager=plugins), exitstatus=0)
    conftest.pytest_sessionfinish(session)
    assert session.exitstatus == status
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in ("offline", "jupyterlab"):
        assert f"MUST_RUN=1 $(BIN)/python -m pytest -rs tests/test_{name}.py" in makefile
