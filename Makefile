# Everything runs in .venv, which is made on first use. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRAIN_STAMP := $(VENV)/.installed-train

.PHONY: eval test check experiment experiment-arith format clean

# a quick look: 200 candidates a task take 5 to 15 minutes on 2 cores; `repo-agent eval` alone has the full budget
eval: ARGS ?= --max-iters 200
eval: $(STAMP)
	$(BIN)/repo-agent eval $(ARGS)

# the whole suite tests against the training libraries too (torch among them); `check` does without
test: $(TRAIN_STAMP)
	REPO_AGENT_REQUIRE_TRAIN=1 $(BIN)/python -m pytest -rs -n 2 --dist loadfile $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/python -m pytest -rs -m "not slow" -n 2 --dist loadfile $(ARGS)

# a model from scratch learns the protocol, and is measured before and after; one thread is the fastest on shared cores
experiment: WORK ?= runs/experiment
experiment: $(TRAIN_STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} $(BIN)/python -m tests.benchmarks.teach_protocol --work $(WORK) $(ARGS)

# GRPO against SFT on arithmetic: three seeds of a model from scratch, one per core at a time
experiment-arith: WORK ?= runs/experiment-arith
experiment-arith: $(TRAIN_STAMP)
	$(BIN)/python -m tests.benchmarks.teach_arith --work $(WORK) $(ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("repo-agent needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(TRAIN_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,train]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
