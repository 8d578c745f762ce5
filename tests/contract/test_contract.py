"""What version 0.1.0 left: its checkpoints go on, its archives run, its names, config keys and commands are known."""

import json
import lzma
import shutil
import warnings
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from pretrain_bundle import OWN, SMALL, overrides, run
from running import load

import dira_monai
from dira_monai.__main__ import COMMANDS, FORMER
from dira_monai.bundle.command_line import check_command_line

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PUBLIC = json.loads((HERE / "public_0.1.0.json").read_text())


def test_a_checkpoint_is_resumed(pretrain_scans, tmp_path):
    """Two epochs of 3 steps were trained, the second with the adversary; the third is trained here."""
    (tmp_path / "models").mkdir()
    shutil.copy(HERE / "checkpoint_0.1.0.pt", tmp_path / "models/checkpoint.pt")
    options = overrides(3, pretrain_scans, tmp_path, stage_epochs=[0, 1, 1], max_epochs=3, resume=True)
    run(3, ["train"], options)
    before, after = load(HERE / "checkpoint_0.1.0.pt"), load(tmp_path / "models/checkpoint.pt")
    assert before.keys() <= after.keys()
    assert (before["epoch"], after["epoch"], after["iteration"]) == (2, 3, 9)
    assert {state["step"].item() for state in after["optimizer"]["state"].values()} == {9}
    assert {state["step"].item() for state in after["discriminator_optimizer"]["state"].values()} == {6}
    for part in ("network", "objective", "discriminator"):
        assert before[part].keys() == after[part].keys()


def test_an_archive_runs_on_the_code_that_it_carries(command, stranger, pretrain_scans, tmp_path):
    archive = tmp_path / "dira_pretrain_3d.zip"
    archive.write_bytes(lzma.decompress((HERE / "archive_0.1.0.zip.xz").read_bytes()))
    assert command("unpack", str(archive), "out", "--trust", "True")[0] == 0
    bundle = tmp_path / "out" / "dira_pretrain_3d"
    data = {"dataset_dir": str(pretrain_scans[3]), "patch_size": OWN[3]["patch_size"]}
    code = f"""import monai.bundle
monai.bundle.run(config_file="configs/train.json", **{SMALL | data | {"max_epochs": 1}})
monai.bundle.run(config_file="configs/inference.json", **{data})
import dira_monai
print(dira_monai.__file__, dira_monai.__version__)
"""
    done = stranger("-c", code, cwd=bundle)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{bundle / 'dira_monai/__init__.py'} 0.1.0"
    assert load(bundle / "models/checkpoint.pt")["epoch"] == 1
    assert len(list((bundle / "restored").rglob("*_restored.nii.gz"))) == 5


def test_public_names_resolve():
    former = dira_monai._FORMER
    for name in PUBLIC["names"]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            value = getattr(dira_monai, name)
        told = [str(warning.message) for warning in caught if warning.category is FutureWarning]
        assert told == ([f"dira_monai.{name} is now dira_monai.{former[name]}."] if name in former else [])
        assert value is getattr(dira_monai, former.get(name, name))


def test_commands_are_known():
    assert [name for name in PUBLIC["commands"] if name not in COMMANDS and name not in FORMER] == []


@pytest.mark.parametrize("bundle", PUBLIC["config_keys"])
def test_config_keys_are_known(bundle):
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundles" / bundle / "configs/train.json"))
    assert [key for key in PUBLIC["config_keys"][bundle] if key not in parser] == []


@pytest.mark.parametrize("bundle", [name for name in PUBLIC["config_keys"] if "finetune" in name])
def test_former_config_key_still_sets_the_value(bundle):
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundles" / bundle / "configs/train.json"))
    parser.update({"label_subset": 3})
    assert parser.get_parsed_content("label_seed") == 3
    file = str(ROOT / "bundles" / bundle / "configs/train.json")
    with pytest.warns(FutureWarning, match=r"^label_subset is now label_seed\.$"):
        check_command_line(["python", "run", "--config_file", file, "--label_subset", "3"])
