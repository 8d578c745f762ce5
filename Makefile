# make demo: studies in 3D and 2D on built-in synthetic images: with few labels, does pre-training beat random weights?
# make test: lint, types and tests (about 7 minutes on 2 cores)
# make methods: every pre-training method a few steps on built-in synthetic images: seconds a step, memory, losses
# make bench: views and steps beside those of other libraries, in an environment of its own (40 minutes on 2 cores)
# make federation-test: two simulated sites in NVFlare pre-train two rounds on built-in synthetic images (Python 3.11)
# make label-test: the bundles in a real MONAI Label server on loopback, in an environment of its own (3.3 GB, Python 3.11)
# make deploy-test: a run's bundle in MONAI Deploy, DICOM series in, DICOM SEG out, in an environment of its own (3.4 GB, Python 3.11)
# make site: the documentation with all API pages as a web site in site/
# make docs-test: every command of README and docs as written, with short trainings (about an hour on 2 cores, 16 GB)
# make torture: kills at random moments, lost processes, hours of running (KILLS=100 HOURS=2), each 30th bad value (EVERY=30): docs/reliability.md
# make compat-test: all tests with the lowest versions that setup.cfg allows, and with the newest (18 GB, an hour)
# Each makes its own .venv on first use. Another Python: make demo PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
FEDERATION := .venv-federation/bin/python
DEPLOY := .venv-deploy/bin/python
DEMO := demo

# a study of random and pre-trained weights, three seeds each: $(call study,2d or 3d,data)
define study
$(BIN)/dira-monai study benchmarks/demo_$(1).json --labeled $(DEMO)/$(2) --output $(DEMO)/$(1) --workers 2
endef
# what it measured
define measured
	@echo
	@runs=$(DEMO)/$(1)/cells/$(2); $(BIN)/dira-monai scores \
	  $$(ls -d $$runs/random/*/*/* | paste -sd ,) $$(ls -d $$runs/volume_fusion/*/*/* | paste -sd ,)
	@sed -n 3,7p $(DEMO)/$(1)/report.md
	@echo "look at: $(DEMO)/$(1)/report.html"
endef

.PHONY: demo methods test pytest site docs-test lint types federation-test clean

# torch comes first and pinned, so that no other package brings another build of it along; nnU-Net's networks come without
# the torchvision that they ask for and do not need, since the one of the package index may not suit this torch
.venv/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps dynamic-network-architectures
	touch $@

demo: .venv/installed
	$(BIN)/dira-monai phantom $(DEMO)/ct --kind ct --count 40
	$(BIN)/dira-monai phantom $(DEMO)/xray --kind xray --count 80
	$(call study,3d,ct)
	$(call study,2d,xray)
	@echo
	@echo "SYNTHETIC phantoms, a short run. Few labels, without and with pre-trained weights, on the same test images:"
	$(call measured,3d,organs)
	$(call measured,2d,lungs)

methods: .venv/installed
	$(BIN)/python benchmarks/methods.py --output $(DEMO)/methods

# types are checked while tests run: neither keeps both cores busy
test: lint
	$(MAKE) --jobs 2 types pytest

pytest: .venv/installed
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# the peers come without their dependencies: torchvision, lightly and kornia ask for more than what is measured needs
.venv-bench/installed: setup.cfg constraints.txt benchmarks/peers/constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --constraint constraints.txt torch
	.venv-bench/bin/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	.venv-bench/bin/python -m pip install --quiet --no-deps --requirement benchmarks/peers/constraints.txt
	touch $@

.PHONY: bench
bench: .venv-bench/installed
	.venv-bench/bin/python benchmarks/compare.py
	.venv-bench/bin/python benchmarks/tables.py

site: .venv/installed
	$(BIN)/python -m mkdocs build --strict

docs-test: .venv/installed
	rm -rf $(DEMO)/docs-test
	PYTHONPATH=tests/helpers $(BIN)/python tests/docs/run_docs.py $(DEMO)/docs-test

# a server of its own on loopback, in an environment of its own (Python 3.11), since it needs an older pydicom
tests/label/.venv/installed: tests/label/constraints.txt
	$(PYTHON) -m venv tests/label/.venv
	tests/label/.venv/bin/python -m pip install --quiet --constraint tests/label/constraints.txt torch
	tests/label/.venv/bin/python -m pip install --quiet --no-deps --requirement tests/label/constraints.txt
	tests/label/.venv/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

.PHONY: label-test
label-test: tests/label/.venv/installed
	tests/label/.venv/bin/python -m pytest tests/bundles/test_monai_label.py tests/label

KILLS ?= 100
HOURS ?= 2
EVERY ?= 30

.PHONY: torture
torture: .venv/installed
	rm -rf $(DEMO)/torture
	$(BIN)/python tests/torture/torture.py $(DEMO)/torture --kills $(KILLS) --hours $(HOURS)
	$(BIN)/python tests/torture/bad_values.py --every $(EVERY)

.venv-%/installed: setup.cfg tests/compat/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --constraint tests/compat/$*.txt torch
	.venv-$*/bin/python -m pip install --quiet --constraint tests/compat/$*.txt --editable ".[test]"
	.venv-$*/bin/python -m pip install --quiet --constraint tests/compat/$*.txt --no-deps dynamic-network-architectures
	touch $@

.PHONY: compat-test
compat-test: .venv-lowest/installed .venv-newest/installed
	.venv-lowest/bin/python -m pytest --numprocesses auto --dist worksteal
	.venv-newest/bin/python -m pytest --numprocesses auto --dist worksteal

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/installed
	$(BIN)/mypy

# an environment of its own; what monai-nvflare depends on is there already, pinned
.venv-federation/installed: setup.cfg constraints.txt tests/federation/constraints.txt
	$(PYTHON) -m venv .venv-federation
	$(FEDERATION) -m pip install --quiet --constraint constraints.txt torch
	$(FEDERATION) -m pip install --quiet --constraint constraints.txt --constraint tests/federation/constraints.txt \
	  --editable . nvflare
	$(FEDERATION) -m pip install --quiet --constraint tests/federation/constraints.txt --no-deps monai-nvflare
	touch $@

federation-test: .venv-federation/installed
	rm -rf $(DEMO)/federation-test
	$(FEDERATION) tests/federation/simulate.py $(DEMO)/federation-test

# an environment of its own: the SDK of MONAI Deploy brings Holoscan and CuPy along; it runs without a GPU
.venv-deploy/installed: setup.cfg tests/deploy/constraints.txt
	$(PYTHON) -m venv .venv-deploy
	$(DEPLOY) -m pip install --quiet --constraint tests/deploy/constraints.txt torch
	$(DEPLOY) -m pip install --quiet --constraint tests/deploy/constraints.txt \
	  --editable ".[readers,seg]" monai-deploy-app-sdk holoscan-cu13 pytest
	touch $@

.PHONY: deploy-test
deploy-test: .venv-deploy/installed
	$(DEPLOY) -m pytest tests/deploy

clean:
	rm -rf .venv .venv-bench .venv-deploy .venv-federation .venv-lowest .venv-newest site tests/label/.venv $(DEMO)
