# make run              set up, download MNIST, execute 00 to 07: data/result.csv and pages/index.html
# make all              the same, with every notebook executed
# make test             set up, download MNIST, run the tests
# make lab              set up, open JupyterLab on the series
# make setup            only set up; make data/mnist.npz also downloads MNIST
# make lint             set up, check the style of notebooks and scripts
# make recaps           write the cells that stand in several notebooks, from where each is explained
# make badges REPO=me/digits   write "Open in Colab" badges for a published copy (REPO= removes them)
#
# Is it true everywhere? These take longer, and are not part of make test:
# make test-faults      killed twenty times, full disks, damaged files
# make test-jupyterlab  every notebook in JupyterLab, in a real browser
# make test-offline     with the network shut off (Linux)
# make test-colab       in the versions of Google Colab, also with XLA as on its GPUs
# make test-floors      in the oldest versions that requirements.txt allows
# make test-backends    on JAX and PyTorch instead of TensorFlow
# make audit            known vulnerabilities of the packages in constraints.txt (asks PyPI)
PYTHON ?= python3
PYTHON_OF_COLAB ?= $(or $(shell command -v python3.13),$(PYTHON))
BRANCH ?= main
BIN = .venv/bin
# Without --no-compile, pip would compile thousands of files, most of which are never imported. Those
# that are imported have to be kept, or each start of TensorFlow would compile them once more.
export PYTHONDONTWRITEBYTECODE =
PIP = -m pip install --no-compile --disable-pip-version-check --progress-bar off
ALONE = tests/elsewhere/alone.py
define AS_ON_COLAB
.venv-colab/bin/python -m pip uninstall --yes --quiet distributed pyarrow
.venv-colab/bin/python $(PIP) --quiet -r tests/elsewhere/colab-versions.txt
endef
ON_TORCH = 00 01 02 03 04 05 06 07 08# on JAX also 09 and 11; in 10, it fills the workers' memory

.PHONY: run all test lab lint recaps badges setup help
.PHONY: test-faults test-jupyterlab test-offline test-colab test-floors test-backends audit
.DEFAULT_GOAL := run

run: setup
	$(BIN)/python run.py

all: setup
	$(BIN)/python run.py --all

# Without MNIST, the tests go on with a stand-in; a file that is not MNIST stops them (status 2).
test: setup
	test -n "$$DIGITS_DATA" || $(BIN)/python data/get_mnist.py || test $$? -eq 1
	$(BIN)/python -m pytest tests -m "not slow"

lab: setup
	$(BIN)/jupyter lab --ServerApp.root_dir=. notebooks/00-start-here.ipynb

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

recaps: setup
	$(BIN)/python recaps.py

badges:
	$(if $(filter undefined,$(origin REPO)),$(error Say whose: make badges REPO=owner/name; REPO= removes them))
	$(PYTHON) badges.py --branch '$(BRANCH)' '$(REPO)'

test-faults: setup
	$(BIN)/python -m pytest tests/test_faults.py

test-jupyterlab: setup
	MUST_RUN=1 $(BIN)/python -m pytest -rs tests/test_jupyterlab.py

test-offline: setup
	MUST_RUN=1 $(BIN)/python -m pytest -rs tests/test_offline.py

# Notebook 10 installs Dask's newest version, as it does on Colab: each run begins without it.
test-colab: .venv-colab/installed data/mnist.npz
	$(AS_ON_COLAB)
	.venv-colab/bin/python $(ALONE)
	$(AS_ON_COLAB)
	.venv-colab/bin/python $(ALONE) --gpu

test-floors: .venv-floors/installed data/mnist.npz
	.venv-floors/bin/python -m pytest tests -m "not slow"

test-backends: .venv-backends/installed data/mnist.npz
	KERAS_BACKEND=jax .venv-backends/bin/python $(ALONE) $(ON_TORCH) 09 11
	KERAS_BACKEND=torch .venv-backends/bin/python $(ALONE) $(ON_TORCH)

# --strict: what PyPI does not know was not checked, and counts as a failure.
audit: .venv-audit/installed
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: .venv/installed

data/mnist.npz: | setup
	$(BIN)/python data/get_mnist.py

# Made again only when the lists of packages change.
.venv/installed: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is another: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up .venv: about 3.4 GB of packages, some minutes the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) -r requirements.txt -c constraints.txt
	@touch $@

.venv-colab/installed: tests/elsewhere/colab-versions.txt
	$(PYTHON_OF_COLAB) -m venv .venv-colab
	.venv-colab/bin/python $(PIP) -r tests/elsewhere/colab-versions.txt
	@touch $@

.venv-audit/installed:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python $(PIP) pip-audit
	@touch $@

# The floors, word for word: >= becomes ==.
.venv-floors/installed: requirements.txt
	$(PYTHON) -m venv .venv-floors
	sed 's/>=/==/' requirements.txt > .venv-floors/floors.txt
	.venv-floors/bin/python $(PIP) -r .venv-floors/floors.txt
	@touch $@

.venv-backends/installed: requirements.txt constraints.txt tests/elsewhere/backends.txt
	$(PYTHON) -m venv .venv-backends
	.venv-backends/bin/python $(PIP) -r requirements.txt -r tests/elsewhere/backends.txt -c constraints.txt
	@touch $@
