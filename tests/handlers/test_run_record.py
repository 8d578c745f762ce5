"""The record of a run: what it holds, and when it is written."""

import json
import shutil
import subprocess
from pathlib import Path

import ignite
import monai
import pytest
import torch
from finetune_bundle import bundle, train, write_data
from finetune_bundle import overrides as finetune_overrides
from ignite.engine import Engine, Events
from listed_files import write_listed
from monai.bundle import ConfigParser
from pretrain_bundle import overrides, run

import dira_monai
from dira_monai.bundle.run_json import read_starts
from dira_monai.data.digest import data_sha256
from dira_monai.handlers.run_record import RunRecord, git_commit
from dira_monai.utils.errors import InputError

TINY = {"max_epochs": 1, "epoch_length": 1}


@pytest.fixture
def listed(tmp_path):
    return write_listed(tmp_path / "data")


def git(folder, *words):
    identity = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_the_commit_is_told_with_a_mark_where_something_was_changed(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    file = tmp_path / "part.py"
    file.write_text("one\n")
    assert git_commit(file) == "unknown"
    git(tmp_path, "init", "--quiet")
    (tmp_path / "other.py").write_text("other\n")
    git(tmp_path, "add", "other.py")
    git(tmp_path, "commit", "--quiet", "--message", "Add another file")
    assert git_commit(file) == "unknown"  # in the folder, but not in the repository
    git(tmp_path, "add", "part.py")
    git(tmp_path, "commit", "--quiet", "--message", "Add the file")
    git(tmp_path, "tag", "v1")
    head = subprocess.run(
        ["git", "-C", str(tmp_path), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert git_commit(file) == head
    file.write_text("two\n")
    assert git_commit(file) == f"{head}-dirty"


def begin(record):
    """Start an engine with the handler."""
    engine = Engine(lambda engine, batch: None)
    engine.state.device = torch.device("cpu")
    record.attach(engine)
    engine.fire_event(Events.STARTED)
    return engine


def test_a_start_names_versions_data_and_the_configuration(listed, tmp_path):
    parser = ConfigParser({"output_dir": str(tmp_path / "out"), "rate": "$2 * 0.5", "datalist": listed})
    parser["record"] = {"_target_": "dira_monai.RunRecord", "output_dir": "@output_dir", "datalist": "@datalist"}
    engine = begin(parser.get_parsed_content("record"))
    engine.fire_event(Events.STARTED)  # a further round of a federation
    [start] = read_starts(tmp_path / "out/run.json")
    assert start["versions"]["torch"] == torch.__version__
    assert start["versions"]["monai"] == monai.__version__
    assert start["versions"]["ignite"] == ignite.__version__
    assert start["versions"]["dira_monai"] == dira_monai.__version__
    assert start["versions"]["python"].count(".") == 2
    assert start["git_commit"] == git_commit(Path(dira_monai.__file__).with_name("__init__.py"))
    assert start["images"] == {"training": 2, "validation": 1}
    assert start["data_sha256"] == data_sha256(listed)
    assert (start["device"], start["processes"]) == ("cpu", 1)
    assert start["config"]["rate"] == "$2 * 0.5"
    assert start["config"]["output_dir"] == str(tmp_path / "out")


def test_a_file_that_is_no_record_is_kept(listed, tmp_path):
    (tmp_path / "run.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"run\.json is no record of runs"):
        begin(RunRecord(str(tmp_path), listed))
    assert (tmp_path / "run.json").read_text() == "[1, 2]"


def test_pre_training_and_its_evaluation_record_each_start(pretrain_scans, tmp_path):
    options = overrides(2, pretrain_scans, tmp_path, **TINY, restoration_weight=0, adversarial_weight=0)
    run(2, ["train"], options)
    run(2, ["train"], options | {"resume": True, "max_epochs": 2})
    run(2, ["train", "evaluate"], options)
    first, second = read_starts(tmp_path / "out/run.json")
    assert (first["config"]["resume"], second["config"]["resume"]) == (False, True)
    assert (first["config"]["max_epochs"], second["config"]["max_epochs"]) == (1, 2)
    assert first["config"]["train"]["trainer"]["max_epochs"] == "@max_epochs"
    [evaluated] = read_starts(tmp_path / "out/evaluation/run.json")
    assert {start["data_sha256"] for start in (first, second, evaluated)} == {first["data_sha256"]}
    assert first["images"] == {"training": 4, "validation": 1}


def test_pre_training_on_a_list_with_label_maps_and_test_images_records_its_start(pretrain_scans, tmp_path):
    options = overrides(2, pretrain_scans, tmp_path, **TINY, restoration_weight=0, adversarial_weight=0)
    run(2, ["train"], options)
    made = json.loads((tmp_path / "out/datalist.json").read_text())
    made["test"] = [made["training"].pop()]
    for entry in made["training"] + made["test"]:
        entry["label"] = (
            f"labels/{entry['image']}"  # paths below the folder, as labeled writes them; nobody reads these
        )
    (tmp_path / "list.json").write_text(json.dumps(made))
    run(2, ["train"], options | {"dataset_dir": str(tmp_path / "list.json"), "output_dir": str(tmp_path / "labeled")})
    [start] = read_starts(tmp_path / "labeled/run.json")
    assert start["images"] == {"training": 3, "validation": 1, "test": 1}


def test_fine_tuning_records_its_start(tmp_path):
    kind = ("classification", 2)
    data = {2: write_data(tmp_path / "data", 2)}
    options = finetune_overrides(kind, data, tmp_path, **TINY)
    train(kind, options)
    [start] = read_starts(tmp_path / "out/run.json")
    made = json.loads((tmp_path / "out/datalist.json").read_text())
    assert start["images"] == {name: len(made[name]) for name in ("training", "validation")}
    assert start["config"]["network_def"]["_target_"] == "resnet10"
    assert (
        start["config"]["_meta_"]["version"]
        == json.loads((bundle(*kind) / "configs/metadata.json").read_text())["version"]
    )


def test_of_two_processes_only_the_first_writes(listed, tmp_path, monkeypatch):
    monkeypatch.setattr("dira_monai.handlers.run_record.rank", lambda: 1)
    begin(RunRecord(str(tmp_path / "out"), listed))
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("dira_monai.handlers.run_record.rank", lambda: 0)
    monkeypatch.setattr("dira_monai.handlers.run_record.world_size", lambda: 2)
    begin(RunRecord(str(tmp_path / "out"), listed))
    [start] = read_starts(tmp_path / "out/run.json")
    assert start["processes"] == 2
