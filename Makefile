# make book: everything from nothing. Needs only make, a Python >= 3.11 and a network for the first installation.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
ifeq ($(strip $(PYTHON)),)
$(error no Python >= 3.11 found: install one, or name it, as in: make PYTHON=/path/to/python3 book)
endif

BIN := .venv/bin
PRESS := $(BIN)/python -m press
# The name holds the hash of what was installed, so that a changed pin installs again and a touched file does not.
READY := .venv/ready-$(shell cat requirements.txt requirements.lock pyproject.toml | $(PYTHON) -c \
  'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])')

# pip compiles nothing, so the first process that imports a module does. Where that may not be kept, every chapter and
# every test with a process of its own would compile what it imports of torch anew, for seconds each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: book pdf archive test lint serve store models campaign results colab audit clean
.DEFAULT_GOAL := book

$(READY):
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes --requirement requirements.lock
	grep -E '^(torch|torchvision|triton)==' requirements.txt | $(BIN)/python -m pip install --quiet --no-compile --requirement /dev/stdin
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	rm -f .venv/ready-*
	touch $@

# What each does stands in src/press/__main__.py, where there is no make too: python -m press book
book test lint serve store results audit: $(READY)
	$(PRESS) $@

# build/the-creative-denoiser.pdf, printed from the built pages by a Chromium.
pdf: book
	$(PRESS) pdf

# The book to take away: that PDF, and build/the-creative-denoiser.zip, which opens by a double click.
archive: pdf
	$(PRESS) archive

# PROFILE=cpu: hours on two cores; t4, h200: an hour or half an hour of that GPU; gpu: eight times the images; full: the
# papers' schedules
PROFILE ?= cpu
models: $(READY)
	$(BIN)/python -m helpers.experiments train --profile $(PROFILE)

# The same in the background: CORES networks at a time, everything else on the machine first, the most wanted first.
CORES ?= 1
campaign: $(READY)
	$(BIN)/python -m helpers.experiments train --campaign --workers $(CORES) --profile $(PROFILE)

# The chapters as Colab runs them; CHAPTERS="01 15" for some. It makes an environment of its own.
CHAPTERS ?=
colab:
	$(PYTHON) tests/colab.py $(CHAPTERS)

clean:
	rm -rf build
