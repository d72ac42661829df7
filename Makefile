# make run    set up, bring the data, execute the series: data/result.csv and pages/index.html
# make test   set up, run every test
# make lab    set up, open JupyterLab on the series
# make lint   set up, check the style of notebooks and scripts
PYTHON ?= python3
BIN = .venv/bin

.PHONY: run test lab lint setup
.DEFAULT_GOAL := run

run: setup
	$(BIN)/python run.py

test: setup
	$(BIN)/python -m pytest tests

lab: setup
	$(BIN)/jupyter lab notebooks/00-start-here.ipynb

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

setup: .venv/installed

# Made again only when the lists of packages change.
.venv/installed: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is another: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up .venv: about 2 GB of packages, some minutes the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off \
	  -r requirements.txt -c constraints.txt
	@touch $@
