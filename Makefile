# make demo: pre-train in 3D and 2D on built-in synthetic images and show how well it went (about 3 minutes on 2 cores)
# make test: lint, types and tests (about 3 minutes on 2 cores)
# Each makes its own .venv on first use. Another Python: make demo PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m monai.bundle run --config_file
DEMO := demo
SMALL := --num_workers 0 --queue_size 256 --momentum 0.99 --discriminator_channels 16

.PHONY: demo demo-3d demo-2d test lint types clean

# torch comes first and pinned, so that no other package brings another build of it along
.venv/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

demo: demo-3d demo-2d
	@echo
	@echo "pictures to look at (rows: samples; columns: target, distorted, restored, error):"
	@echo "  $(DEMO)/3d/output/panel.png"
	@echo "  $(DEMO)/2d/output/panel.png"

demo-3d: .venv/installed
	$(BIN)/python -m dira_monai phantom $(DEMO)/ct --kind ct --count 16
	$(RUN) bundles/dira_pretrain_3d/configs/train.json --dataset_dir $(DEMO)/ct/images \
	  --output_dir $(DEMO)/3d/output --ckpt_dir $(DEMO)/3d/models --patch_size "[32, 32, 32]" \
	  --network_def#features "[16, 32, 64, 128, 128, 16]" $(SMALL) \
	  --batch_size 8 --epoch_length 15 --max_epochs 8 --stage_epochs "[1, 3, 4]" --val_samples 32 --val_interval 2

demo-2d: .venv/installed
	$(BIN)/python -m dira_monai phantom $(DEMO)/xray --kind xray --count 64
	$(RUN) bundles/dira_pretrain_2d/configs/train.json --dataset_dir $(DEMO)/xray/images \
	  --output_dir $(DEMO)/2d/output --ckpt_dir $(DEMO)/2d/models --patch_size "[96, 96]" \
	  --network_def#backbone resnet10 --pooled_norm True --validation_fraction 0.25 $(SMALL) \
	  --batch_size 16 --epoch_length 15 --max_epochs 8 --stage_epochs "[1, 3, 4]" --val_interval 2

test: lint types
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: .venv/installed
	$(BIN)/mypy

clean:
	rm -rf .venv $(DEMO)
