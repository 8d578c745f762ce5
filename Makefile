# make demo: pre-train in 3D and 2D on built-in synthetic images, fine-tune with and without the weights, compare
# make test: lint, types and tests (about 11 minutes on 2 cores)
# make methods: every pre-training method a few steps on built-in synthetic images: seconds a step, memory, losses
# make bench: views and steps beside those of other libraries, in an environment of its own (half an hour on 2 cores)
# make federation-test: two simulated sites in NVFlare pre-train two rounds on built-in synthetic images (Python 3.11)
# make label-test: the bundles in a real MONAI Label server on loopback, in an environment of its own (3.3 GB, Python 3.11)
# make deploy-test: a run's bundle in MONAI Deploy, DICOM series in, DICOM SEG out, in an environment of its own (3.4 GB, Python 3.11)
# make site: the documentation with all API pages as a web site in site/
# make docs-test: every command of README and docs as written, with short trainings (about an hour on 2 cores, 16 GB)
# make torture: kills at random moments, lost processes, hours of running (KILLS=100 HOURS=2), bad values: docs/reliability.md
# make compat-test: all tests with the lowest versions that setup.cfg allows, and with the newest (10 GB, half an hour)
# Each makes its own .venv on first use. Another Python: make demo PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
FEDERATION := .venv-federation/bin/python
DEPLOY := .venv-deploy/bin/python
RUN := $(BIN)/python -m monai.bundle run --config_file
DEMO := demo
SMALL := --num_workers 0 --queue_size 256 --momentum 0.99 --discriminator_channels 16
ORGANS_3D := ['background', 'lung', 'heart', 'bone']
ORGANS_2D := ['background', 'lung']
PRETRAIN_3D := bundles/dira_pretrain_3d/configs/train.json
PRETRAIN_2D := bundles/dira_pretrain_2d/configs/train.json
TUNE := bundles/dira_finetune_segmentation_
NETWORK_3D := --network_def\#features "[16, 32, 64, 128, 128, 16]"
NETWORK_2D := --network_def\#backbone resnet10
OPTIONS_3D := --dataset_dir $(DEMO)/ct.json $(NETWORK_3D) --class_names "$(ORGANS_3D)" --patch_size "[48, 48, 48]" \
  --label_fraction 0.2 --batch_size 2 --epoch_length 30 --max_epochs 4 --val_interval 2 --warmup_epochs 0
OPTIONS_2D := --dataset_dir $(DEMO)/xray.json $(NETWORK_2D) --class_names "$(ORGANS_2D)" --patch_size "[96, 96]" \
  --image_size "[96, 96]" --label_fraction 0.1 --batch_size 4 --epoch_length 15 --max_epochs 4 --val_interval 2 --warmup_epochs 0

# fine-tune on few labels, then measure on the test images: $(call tune,2d or 3d,name of the run,options)
define tune
$(RUN) $(TUNE)$(1)/configs/train.json --output_dir $(DEMO)/$(1)/$(2)/output --ckpt_dir $(DEMO)/$(1)/$(2)/models $(3)
$(RUN) "['$(TUNE)$(1)/configs/train.json','$(TUNE)$(1)/configs/evaluate.json']" \
  --output_dir $(DEMO)/$(1)/$(2)/output --ckpt_dir $(DEMO)/$(1)/$(2)/models $(3)
endef

.PHONY: demo demo-3d demo-2d methods test site docs-test lint types federation-test clean

# torch comes first and pinned, so that no other package brings another build of it along; nnU-Net's networks come without
# the torchvision that they ask for and do not need, since the one of the package index may not suit this torch
.venv/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps dynamic-network-architectures
	touch $@

demo: demo-3d demo-2d
	@echo
	@echo "SYNTHETIC phantoms, a short run. Few labels, without and with pre-trained weights, on the same test images:"
	@echo
	@$(BIN)/python -m dira_monai scores $(DEMO)/3d/random/output $(DEMO)/3d/tuned/output
	@echo
	@$(BIN)/python -m dira_monai scores $(DEMO)/2d/random/output $(DEMO)/2d/tuned/output
	@echo
	@echo "picture: $(DEMO)/3d/output/panel.png (pre-training: target, distorted, restored, error)"
	@echo "picture: $(DEMO)/2d/output/panel.png"

# the list comes first: pre-training and fine-tuning must not see the test images
demo-3d: .venv/installed
	$(BIN)/python -m dira_monai phantom $(DEMO)/ct --kind ct --count 16
	$(BIN)/python -m dira_monai labeled $(DEMO)/ct --task segmentation --class_names "$(ORGANS_3D)" \
	  --output $(DEMO)/ct.json --test_fraction 0.25
	$(RUN) $(PRETRAIN_3D) --dataset_dir $(DEMO)/ct.json $(NETWORK_3D) --patch_size "[32, 32, 32]" $(SMALL) \
	  --output_dir $(DEMO)/3d/output --ckpt_dir $(DEMO)/3d/models \
	  --batch_size 8 --epoch_length 15 --max_epochs 8 --stage_epochs "[1, 3, 4]" --val_samples 32 --val_interval 2 \
	  --learning_rate 0.0003 --warmup_epochs 2
	$(call tune,3d,random,$(OPTIONS_3D))
	$(call tune,3d,tuned,$(OPTIONS_3D) --pretrained $(DEMO)/3d/models/model.pt)

demo-2d: .venv/installed
	$(BIN)/python -m dira_monai phantom $(DEMO)/xray --kind xray --count 64
	$(BIN)/python -m dira_monai labeled $(DEMO)/xray --task segmentation --class_names "$(ORGANS_2D)" \
	  --label_threshold 127 --output $(DEMO)/xray.json --test_fraction 0.25
	$(RUN) $(PRETRAIN_2D) --dataset_dir $(DEMO)/xray.json $(NETWORK_2D) --patch_size "[96, 96]" $(SMALL) \
	  --output_dir $(DEMO)/2d/output --ckpt_dir $(DEMO)/2d/models --pooled_norm True \
	  --batch_size 16 --epoch_length 15 --max_epochs 8 --stage_epochs "[1, 3, 4]" --val_interval 2
	$(call tune,2d,random,$(OPTIONS_2D))
	$(call tune,2d,tuned,$(OPTIONS_2D) --pretrained $(DEMO)/2d/models/model.pt)

methods: .venv/installed
	$(BIN)/python benchmarks/methods.py --output $(DEMO)/methods

test: lint types
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

.PHONY: torture
torture: .venv/installed
	rm -rf $(DEMO)/torture
	$(BIN)/python tests/torture/torture.py $(DEMO)/torture --kills $(KILLS) --hours $(HOURS)
	$(BIN)/python tests/torture/bad_values.py

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
