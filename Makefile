## Every command does its own set-up (Debian, Ubuntu: with apt-get, as root or by sudo, if anything is missing).
##   make demo    upscale the bundled image and compare with bicubic
##   make test    run all checks and tests
##   make lint    check style, spelling and the order of imports
##   make docs    build the documentation, in docs/_build/html
##   make clean   remove what these commands have made
## Options:
##   PYTHON=python3.12   another Python, 3.11 or newer
##   TORCH_INDEX=https://download.pytorch.org/whl/cpu   PyTorch without CUDA: a small download

PYTHON ?= python3
TORCH_INDEX ?=
export PYTHON

TOX = .venv-tox/bin/tox
tox = $(if $(TORCH_INDEX),PIP_EXTRA_INDEX_URL=$(TORCH_INDEX)) $(TOX) run -e

.PHONY: help demo test lint docs clean

help:
	@sed -n 's/^## //p' Makefile

demo:
	tools/install-system-libraries
	$(PYTHON) -m venv .venv-demo
	.venv-demo/bin/python -m pip install --quiet --constraint constraints.txt torch $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	.venv-demo/bin/python -m pip install --quiet --constraint constraints.txt .
	.venv-demo/bin/python docs/examples/upscale_sample.py

test: $(TOX)
	tools/install-system-libraries qt
	$(tox) lint,core,full

lint docs: $(TOX)
	$(tox) $@

$(TOX):
	tools/install-system-libraries
	$(PYTHON) -m venv .venv-tox
	.venv-tox/bin/python -m pip install --quiet tox

clean:
	rm -rf .tox .venv-demo .venv-tox .*_cache .hypothesis build dist docs/_build src/*.egg-info vdsr_before_after.png
