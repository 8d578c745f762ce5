"""Values at the top of train.json that no run may have."""

import json
import re
import shutil

import numpy as np
import pytest
from finetune_bundle import ROOT
from wrong_values import bad_values

from dira_monai.bundle.header import check_header, check_run, fixed_values
from dira_monai.bundle.header_docs import TABLES, write_tables
from dira_monai.bundle.header_values import HEADER
from dira_monai.utils.errors import InputError

BUNDLES = sorted(path.parent.parent.name for path in ROOT.glob("bundles/*/configs/train.json"))


@pytest.mark.parametrize("name", HEADER)
def test_each_bad_value_is_one_sentence(name):
    told = HEADER[name].rule.told
    for _, value in bad_values(told):
        for dims in (2, 3):
            with pytest.raises(InputError, match=rf"^--{name} must be {re.escape(told)}, got .*\.$"):
                check_header({"spatial_dims": dims, name: value})


@pytest.mark.parametrize("bundle", BUNDLES)
def test_shipped_values_and_expressions_pass(bundle):
    header = json.loads((ROOT / "bundles" / bundle / "configs/train.json").read_text())
    check_header(header)
    check_header(
        header | {"batch_size": np.int64(4), "learning_rate": "$1e-3 * @batch_size", "val_interval": "@batch_size"}
    )


def test_a_word_may_be_no_class_or_leave_its_image_out():
    check_header({"label_map": {"Mass": "", "Hernia": "none", "poor": None}})


def test_expressions_are_evaluated_before_they_are_checked():
    with pytest.raises(InputError, match=r"^--learning_rate must be a number from 0, got -0\.5\.$"):
        check_header({"learning_rate": "$-@momentum", "momentum": 0.5})
    with pytest.raises(InputError, match=r"^--batch_size \$1 / 0: cannot be computed \(division by zero\)\.$"):
        check_header({"batch_size": "$1 / 0"})
    check_header({"queue_size": "$[@network_def].index(1)", "network_def": {"_target_": "BasicUNet"}})  # left alone


def test_a_warm_up_that_is_longer_than_the_run_is_refused():
    with pytest.raises(InputError, match=r"--warmup_epochs must be at most max_epochs \(3\), got 5\."):
        check_header({"warmup_epochs": 5, "max_epochs": 3})


WIRED = """  # set by files beside train.json, and by no user
    package bundle_root listed trained_on network keys label_transforms modes voxel diagonal there hausdorff distance
    missed hd95 surface tolerances surface_dice distances timeout local_rank rank world_size objective words finalize
"""


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("bundles/*/configs/*.json")), ids=lambda path: "/".join(path.parts[-3:])
)
def test_each_value_at_the_top_of_a_file_has_a_rule(file):
    train = json.loads((file.parent / "train.json").read_text())
    below = list(train)[list(train).index("imports") :]
    names = list(content := {} if file.stem == "metadata" else json.loads(file.read_text()))
    own = names[: names.index("imports")] if "imports" in content else [n for n in names if n not in below]
    assert [n for n in own if "#" not in n and n not in ("_desc_", "+imports", *WIRED.split(), *HEADER)] == []


def test_the_tables_of_the_docs_are_those_of_the_rules(tmp_path):
    for page in (*TABLES, "objectives.md"):
        shutil.copy(ROOT / "docs" / page, tmp_path)
    assert write_tables(tmp_path) == [], "run: python -m dira_monai.bundle.header_docs docs"


def test_a_resumed_run_cannot_change_what_is_fixed(tmp_path):
    config = {"output_dir": str(tmp_path / "out"), "ckpt_dir": str(tmp_path), "train": {}, "resume": True}
    config |= {"batch_size": 4, "queue_size": "$8 * @batch_size", "class_names": ["a", "b"], "seed": 0}
    config["network_def"] = {"_target_": "BasicUNet", "features": [8]}
    (tmp_path / "out").mkdir()
    record = tmp_path / "out/run.json"
    record.write_text(json.dumps({"starts": [{"fixed": fixed_values(config)}]}))
    check_run(config | {"seed": 1})  # there is nothing to resume
    (tmp_path / "checkpoint.pt").touch()
    same = {"queue_size": 32, "class_names": ("a", "b"), "network_def": {"_target_": "BasicUNet", "features": [4]}}
    check_run(config | same)
    others = {"batch_size": 8, "class_names": ["b", "a"], "seed": 1, "network_def": {"_target_": "SegResNet"}}
    for name, value in others.items():
        told = {"batch_size": "--queue_size is 64 where it was 32 before"}.get(name, f"--{name} is ")
        with pytest.raises(InputError, match=f"^{told}.* by {record}, and a resumed run cannot change it; "):
            check_run(config | {name: value})
        check_run(config | {name: value, "resume": False})


@pytest.mark.parametrize("name", ["output_dir", "ckpt_dir"])
def test_a_folder_that_cannot_be_written_is_found_before_anything_is_read(name, tmp_path):
    (tmp_path / "file").touch()
    places = {"output_dir": str(tmp_path / "a"), "ckpt_dir": str(tmp_path / "b"), "train": {}}
    check_run(places)
    with pytest.raises(InputError, match=f"^{tmp_path}/file/x: cannot be written .*; name another folder"):
        check_run(places | {name: f"{tmp_path}/file/x"})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
