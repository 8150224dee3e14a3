# The same commands for a person and for .ci/run. VENV=… puts the environment elsewhere.
VENV ?= .venv
PYTHON ?= python3
LOWEST ?= .venv-lowest
RUN = $(VENV)/bin/python

.PHONY: install check format test test-slow bench demo lowest clean

install:  ## torch is pinned to the tested version: here that is a CPU build, while the newest pulls gigabytes of CUDA
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade "pip>=25.1"
	$(RUN) -m pip install --quiet torch==2.13.0
	$(RUN) -m pip install --quiet --editable ".[train,app,distributed,benchmark,onnx]" --group dev

check:
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/typos

format:
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

test:  ## two processes of one thread each: half the time of one process of two
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not slow and not bench" -n 2 --dist loadfile

test-slow:
	$(RUN) -m pytest -m slow

bench:
	$(RUN) -m pytest -m bench -s --durations=0 tests/benchmarks

demo:
	$(RUN) -m training.demo

lowest:  ## what `make demo` trained, published (dry) and checked under the oldest libraries that its card names
	$(RUN) -m training.publish demo
	$(RUN) -m training.publish demo --paired
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet torch==2.13.0 sentence-transformers==5.4.0 transformers==4.57.1 pillow
	$(LOWEST)/bin/python -I turkish_clip/verify.py runs/demo/publish/text --image-model training/mini/clip
	$(LOWEST)/bin/python -m pip install --quiet transformers==5.0.0
	$(LOWEST)/bin/python -I turkish_clip/verify.py runs/demo/publish/text --image-model training/mini/clip
	$(LOWEST)/bin/python -I turkish_clip/verify.py runs/demo/publish/paired

clean:
	rm -rf runs dist .mypy_cache .ruff_cache .pytest_cache
