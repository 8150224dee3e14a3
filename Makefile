# The same commands for a person and for .ci/run. Each makes the environment that it needs, once, and again when
# pyproject.toml or constraints.txt change. VENV=… puts it elsewhere, PYTHON=… chooses the interpreter it is made with.
VENV ?= .venv
PYTHON ?= python3
LOWEST ?= .venv-lowest
CONSUMERS ?= .venv-consumers
RESOLVER ?= .venv-uv
RUN = $(VENV)/bin/python
INSTALLED = $(VENV)/.installed
TORCH = 2.13.0
FASTEMBED = 0.9.1

# What $(PYTHON) says of itself: ok, or in one line why it can't make an environment.
FOUND = $(shell $(PYTHON) .ci/interpreter.py "$(PYTHON)" 2>/dev/null)
NONE = expected a Python interpreter, got none that runs as $(PYTHON); name another, as in PYTHON=python3.13
check_python = $(if $(filter ok,$(FOUND)),,$(error $(if $(filter expected,$(firstword $(FOUND))),$(FOUND),$(NONE))))

.PHONY: install check format messages test test-slow bench demo lowest consumers constraints clean

install: $(INSTALLED)

# An older environment is emptied first: what it has besides the tested versions could hide a missing dependency.
$(INSTALLED): pyproject.toml constraints.txt
	@$(check_python)
	$(PYTHON) -m venv $(if $(wildcard $(VENV)/pyvenv.cfg),--clear) $(VENV)
	@echo "installing the tested versions in $(VENV): some minutes; what pip says is in $(VENV)/install.log"
	@{ $(RUN) -m pip install --upgrade "pip>=25.1" && $(RUN) -m pip install --constraint constraints.txt --editable \
	  ".[train,app,distributed,benchmark,onnx,photos,video,sound,watch,generate]" --group dev; } >$(VENV)/install.log 2>&1 \
	  || { tail -n 20 $(VENV)/install.log >&2; exit 1; }
	@touch $(INSTALLED)

check: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/typos

format: $(INSTALLED)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

messages: $(INSTALLED)  ## the Turkish catalog with what the source says now; what has no translation yet is named
	$(RUN) tests/helpers/messages.py

test: $(INSTALLED)  ## two processes of one thread each: half the time of one process of two
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow and not bench" -n 2 --dist loadfile

test-slow: $(INSTALLED)
	$(RUN) -m pytest -m slow

bench: $(INSTALLED)
	$(RUN) -m pytest -m bench -s --durations=0 tests/benchmarks

demo: $(INSTALLED)
	$(RUN) -m training.demo

lowest: $(INSTALLED)  ## what `make demo` trained, published (dry) and checked under the oldest libraries that its card names
	@$(check_python)
	$(RUN) -m training.publish demo
	$(RUN) -m training.publish demo --paired
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet torch==$(TORCH) sentence-transformers==5.4.0 transformers==4.57.1 pillow
	$(LOWEST)/bin/python -I turkish_clip/verify.py runs/demo/publish/text --image-model training/mini/clip
	$(LOWEST)/bin/python -m pip install --quiet transformers==5.0.0
	$(LOWEST)/bin/python -I turkish_clip/verify.py runs/demo/publish/text --image-model training/mini/clip
	$(LOWEST)/bin/python -I turkish_clip/verify.py runs/demo/publish/paired

consumers: $(INSTALLED)  ## exports in fastembed itself, which wants a huggingface-hub below 2, so in an environment of its own
	@$(check_python)
	$(PYTHON) -m venv $(CONSUMERS)
	$(CONSUMERS)/bin/python -m pip install --quiet fastembed==$(FASTEMBED)
	FASTEMBED_PYTHON=$(CONSUMERS)/bin/python $(RUN) -m pytest -m "not bench" tests/turkish_clip/exports/test_fastembed.py

# Versions that still fit stay; `make constraints UPGRADE=1` takes the newest: first for the Python that most tests run on,
# then for all of them, which keeps those versions wherever they are to be had.
RESOLVE = echo "torch==$(TORCH)" | $(RESOLVER)/bin/uv pip compile pyproject.toml --quiet --no-annotate --all-extras --group dev \
  --custom-compile-command "make constraints" --constraints - --output-file constraints.txt
constraints:  ## torch is raised by hand, in TORCH: here 2.13.0 is a CPU build, the newest gigabytes of CUDA
	@$(check_python)
	$(PYTHON) -m venv $(RESOLVER)
	$(RESOLVER)/bin/python -m pip install --quiet --upgrade uv
	$(if $(UPGRADE),$(RESOLVE) --python-version 3.11 --upgrade)
	$(RESOLVE) --python-version 3.10 --universal

clean:
	rm -rf runs dist .mypy_cache .ruff_cache .pytest_cache
