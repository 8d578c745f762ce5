"""A resumed run with other values: each takes effect as in a new run, or is refused before anything is read."""

import json
from pathlib import Path

import finetune_bundle
import pretrain_bundle
import pytest
from monai.bundle import ConfigWorkflow

from dira_monai.bundle.header import check_run, fixed_values
from dira_monai.bundle.header_values import HEADER
from dira_monai.utils.errors import InputError

PLACES = ("bundle_root", "dataset_dir", "output_dir", "ckpt_dir")
NEW = {  # that what is built keeps as attributes, where loading a checkpoint could change them back
    "learning_rate": 0.002,
    "warmup_epochs": 1,
    "gradient_clip": 0.5,
    "accumulation_steps": 2,
    "precision": "bf16",
    "max_epochs": 3,
    "batch_size": 4,
    "keep_checkpoints": 3,
    "val_interval": 2,
}
OF_KIND = {
    "pretrain": {
        "optimizer_arguments": {"weight_decay": 0.5, "betas": [0.8, 0.9]},
        "stage_epochs": [1, 0, 2],
        "discriminator_learning_rate": 0.1,
        "contrastive_weight": 2,
        "restoration_weight": 3,
        "adversarial_weight": 4,
        "gan": "hinge",
        "gradient_penalty": 1,
        "momentum": 0.5,
        "final_momentum": 0.75,
        "temperature": 0.7,
        "patch_size": [32, 32, 32],
        "crop_scale": [0.5, 0.6],
    },
    "segmentation": {
        "optimizer_arguments": {"weight_decay": 0.5},
        "layer_decay": 0.5,
        "freeze_epochs": 1,
        "patience": 3,
        "patch_size": [32, 32, 32],
        "overlap": 0.25,
        "class_weights": [1, 2, 3],
    },
}


def workflow(kind, files, options):
    """The trainer and what it is made of, built but not run."""
    made = ConfigWorkflow(files, workflow_type="train", **options)
    made.initialize()
    return made


def settings(made):
    """All plain values in what the configuration has built, by their places."""
    trainer = made.parser.get_parsed_content("train#trainer")
    parts = {"trainer": trainer, "objective": getattr(trainer, "objective", None), "loss": trainer.loss_function}
    parts |= {"schedule": getattr(trainer, "schedule", None), "sampler": trainer.data_loader.sampler}
    found = {
        f"{name}.{k}": v
        for name, part in parts.items()
        for k, v in getattr(part, "__dict__", {}).items()
        if _is_plain(v)
    }
    found["state"] = (trainer.state.max_epochs, trainer.state.epoch_length, trainer.data_loader.batch_size)
    for name in ("optimizer", "discriminator_optimizer"):
        groups = getattr(trainer, name).param_groups if hasattr(trainer, name) else []
        found[name] = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in groups]
    return found | {"schedule of rates": made.parser.get_parsed_content("lr_scheduler").base_lrs}


def _is_plain(value):
    return isinstance(value, bool | float | int | str) or (isinstance(value, tuple) and all(map(_is_plain, value)))


@pytest.mark.parametrize("kind", ["pretrain", "segmentation"])
def test_every_value_that_may_change_takes_effect(kind, pretrain_scans, finetune_scans, tmp_path):
    if kind == "pretrain":
        options = pretrain_bundle.overrides(3, pretrain_scans, tmp_path, max_epochs=1, stage_epochs=[0, 0, 1])
        files = [str(pretrain_bundle.BUNDLES[3] / "configs/train.json")]
    else:
        options = finetune_bundle.overrides((kind, 3), finetune_scans, tmp_path, max_epochs=1)
        files = finetune_bundle.configs((kind, 3), ["train"])
    workflow(kind, files, options).run()
    options |= NEW | OF_KIND[kind]
    fresh = settings(workflow(kind, files, options))
    resumed = workflow(kind, files, options | {"resume": True})
    resumed.run()
    found = settings(resumed)
    differ = {name for name in fresh if found[name] != fresh[name]}
    assert differ <= {"objective.progress", "trainer.summed", "sampler.epoch", "sampler.start"}, differ
    assert len(json.loads(Path(options["output_dir"], "run.json").read_text())["starts"]) == 2


@pytest.mark.parametrize(
    "file", sorted(pretrain_bundle.ROOT.glob("bundles/*/configs/train.json")), ids=lambda p: p.parts[-3]
)
def test_every_value_is_refused_or_let_pass_as_the_table_says(file, tmp_path):
    config = json.loads(file.read_text())
    config |= {"output_dir": str(tmp_path), "ckpt_dir": str(tmp_path / "models"), "resume": True}
    config["network_def"] = {"_target_": "BasicUNet"}
    (tmp_path / "models").mkdir()
    (tmp_path / "models/checkpoint.pt").touch()
    before = fixed_values(config)
    assert {name for name in HEADER if HEADER[name].fixed and name in config} - {"features"} <= {*before} | {
        "pretrained"
    }
    for name in before:
        record = {"starts": [{"fixed": before | {name: "another"}}]}
        (tmp_path / "run.json").write_text(json.dumps(record))
        with pytest.raises(InputError, match=f"^--{name} is .* where it was 'another' before"):
            check_run(config)
    (tmp_path / "run.json").write_text(json.dumps({"starts": [{"fixed": before}]}))
    check_run(config)
    assert not {*NEW, *OF_KIND["pretrain"], *OF_KIND["segmentation"]} & {*before}
